"""A benchmark runs as the command that starts it does: a script in a process of its own."""

import sys
from pathlib import Path

from benchmarks.processes import run

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_latency_of_an_exported_classifier():
    arguments = ["--size", 10, "--filters", 4, 4, "--calls", 3]
    row = run(sys.executable, [BENCHMARKS / "latency.py", *arguments], threads=1)
    assert 0 < row["median_ms"] <= row["p99_ms"]
