"""The report: pure functions of what evaluations commit under results/."""
