"""Build the generated C on this machine, run it, and hold it against the reference."""
