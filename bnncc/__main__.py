"""`python -m bnncc` is the command line."""

from bnncc.cli import main

main()
