"""Benchmarks of the generated C, run by hand: `python -m tests.bench --help` says how."""
