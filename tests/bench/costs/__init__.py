"""Holds the cost model against measurements, and fits it to them: `python -m tests.bench.costs`."""
