"""`python -m bnncc.cli`, for where the script `bnncc` is not on the path."""

from __future__ import annotations

from bnncc.cli.app import main

if __name__ == "__main__":
    main()
