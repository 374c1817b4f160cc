"""How the frontend speaks of the user's model: labels, names and library messages made safe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx.checker
import onnx.shape_inference

from bnncc.errors import Diagnostic, printable

__all__ = [
    "LIBRARY_ERRORS",
    "Refusal",
    "dimensions",
    "element_name",
    "library_text",
    "origin",
    "path_text",
    "plural",
    "quoted",
    "where",
]

LIBRARY_ERRORS = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
)
"""What the onnx library raises for models it does not like."""

_LONGEST_TEXT = 300

# What the onnx library writes round its message, and the folder that it was built in.
_NOISE = re.compile(
    r"\[\w+InferenceError\] ?|Inference error\(s\): |\(op_type:\w+, node name: @\d+@\): |"
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |/\S*(?=/onnx)"
)
_SHOWN = 3


class Refusal(Exception):  # noqa: N818 - a value on its way to a Diagnostic, not an error of its own
    """One reason not to import a node; the caller adds which node, and goes on to the next."""

    def __init__(self, code: str, what: str, *, why: str = "", help: str = "") -> None:
        super().__init__(what)
        self.code, self.what, self.why, self.help = code, what, why, help

    def diagnostic(self, where: str) -> Diagnostic:
        """Return the refusal as a finding at `where`."""
        return Diagnostic(self.code, self.what, where, self.why, self.help)


def origin(node: onnx.NodeProto) -> str:
    """Return what the user calls the node: its own name, or its operation and first result."""
    if node.name:
        return node.name
    return f"{node.op_type}({node.output[0] if node.output else ''})"


def quoted(name: str) -> str:
    """Return an untrusted name in quotes, safe to print."""
    return f'"{printable(name)}"'


def path_text(path: Path) -> str:
    """Return a path in quotes, control characters escaped, of any length."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))
    return f'"{"".join(shown)}"'


def plural(count: int, noun: str) -> str:
    """Return `count` and `noun` with an s where English wants one."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def where(nodes: Sequence[onnx.NodeProto]) -> str:
    """Return the names of up to three nodes, and how many more there are."""
    names = ", ".join(quoted(origin(node)) for node in nodes[:_SHOWN])
    more = len(nodes) - _SHOWN
    noun = "ONNX node" if len(nodes) == 1 else "ONNX nodes"
    return f"{noun} {names}{f' and {more} more' if more > 0 else ''}"


def dimensions(shape: Sequence[object]) -> str:
    """Return a shape as in `1x784`."""
    return "x".join(str(size) for size in shape) or "scalar"


def element_name(code: int) -> str:
    """Return ONNX's name of an element type, such as FLOAT16."""
    names = {value: name for name, value in onnx.TensorProto.DataType.items()}
    return str(names.get(code, f"number {code}"))


def library_text(error: BaseException, names: Mapping[str, str]) -> str:
    """Return a library's message on one line, safe to print.

    Args:
        error: what a library raised. Its text may quote names from the model.
        names: stand-ins the library was given, and what each stands for.
    """
    text = str(error).partition("==> Context")[0]
    text = _NOISE.sub("", text)
    text = re.sub(r"@\d+@", lambda m: names.get(m[0], m[0]), text)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."
