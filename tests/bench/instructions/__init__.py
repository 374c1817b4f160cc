"""Instructions that single layers execute: `python -m tests.bench.instructions --help` says how."""
