"""Timings against what a user would pick instead; run by `make benchmark`."""
