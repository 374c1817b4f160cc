"""The command line: `bnncc compile`, `inspect`, `verify`, `explain`, `operators`, `targets`.

    commands  the commands: what they take, and the call each of them makes
    options   the options that describe a model and how to compile it
    console   stdout for results, stderr for people; numbers and untrusted text made fit to print
    failures  every exception as a message and an exit code
    progress  the bar on stderr
    compiled, verified, reference, operators   what the commands print

Nothing here computes anything of a model, and nothing is imported for a command that does not need
it: `bnncc --help` loads neither onnx nor onnxruntime.
"""

from __future__ import annotations

from bnncc.cli.commands import app, main

__all__ = ["app", "main"]
