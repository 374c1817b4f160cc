"""The program in a .pt2 archive: which strings and operators PyTorch gets to see.

No pickle is needed to run code by such a file. torch.export.load hands symbolic shapes to
sympy.sympify, which evaluates them as Python; it compiles `guards_code`; it writes names of
arguments into the source of a function; it looks up operators by any path below `torch`; and it
imports modules that a pytree's context names. So the JSON is read here first, and what PyTorch
reads is written anew from it: metadata and guards left out, operators from a list, and of every
other string nothing in it that could be a call, a quote or a statement.
"""

from __future__ import annotations

import json
import re
from typing import Any

from bnncc.frontends.onnx.read import MAX_TENSOR_BYTES

__all__ = ["Unsafe", "clean_payload", "clean_program"]

_NAME = re.compile(r"[\w.:+-]*", re.ASCII)
_TEXT = re.compile(r"[\w .,:>/+-]*", re.ASCII)
"""For arguments that are texts, such as einsum's. They are quoted wherever they are written."""

_FACTS = "positive|negative|nonnegative|integer|real|zero"
_EXPRESSION = re.compile(
    rf"(?:Symbol\('[a-z]{{1,5}}\d{{1,9}}'(?:, (?:{_FACTS})=(?:True|False)){{0,9}}\)"
    r"|(?:Integer|Add|Mul|FloorDiv|CeilDiv|Mod|PythonMod|CleanDiv|Max|Min)(?=\()"
    r"|[a-z]{1,5}\d{1,9}|\d{1,18}|[-+()/, ]|\*(?!\*))+",
    re.ASCII,
)
"""No identifier but symbols such as s77 and a few functions, and no power, which could be huge."""

_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file\.|save\.|_print\.|warn\.)\w+\.\w+"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_(int|float|ite|max|min|not|sqrt|sum)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|getitem)"
    r"|_operator\.(eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc)",
    re.ASCII,
)
_CONTAINERS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict"})

_LEFT_OUT: dict[str, Any] = {"metadata": {}, "guards_code": []}
_MOST_ELEMENTS = MAX_TENSOR_BYTES // 4


class Unsafe(Exception):  # noqa: N818 - a value on its way to a diagnostic
    """Why PyTorch must not see this."""


def clean_program(content: bytes) -> bytes:
    """Return the JSON of an exported program with nothing in it that PyTorch could run.

    Raises:
        Unsafe: it holds something else than names, numbers and known operators.
    """
    return _dumped(_clean(_parsed(content), ""))


def clean_payload(content: bytes) -> bytes:
    """Return the JSON that lists the weights or constants.

    Raises:
        Unsafe: a tensor is pickled, or they are larger than any model may be.
    """
    document = _clean(_parsed(content), "")
    elements = 0
    for name, payload in _items(_items(document).get("config")).items():
        if _items(payload).get("use_pickle") is not False:
            raise Unsafe(f"tensor {_shown(name)} is a pickle")
        count = 1
        for size in _items(payload.get("tensor_meta")).get("sizes", ()):
            if not isinstance(_items(size).get("as_int"), int) or size["as_int"] < 0:
                raise Unsafe(f"tensor {_shown(name)} has no fixed size")
            count *= size["as_int"]
        elements += count
    if elements > _MOST_ELEMENTS:
        raise Unsafe(f"its tensors claim {elements} elements; the limit is {_MOST_ELEMENTS}")
    return _dumped(document)


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unsafe(f"it is not JSON: {error}") from None


def _dumped(document: object) -> bytes:
    return json.dumps(document).encode("ascii")


def _items(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unsafe("it does not read as torch.export.save writes it")
    return value


def _clean(value: object, key: str) -> object:
    """Return `value`, which stands under `key`, without what is left out."""
    if key in _LEFT_OUT:
        return _LEFT_OUT[key]
    if isinstance(value, dict):
        for name in value:
            _demand(_NAME, name, "the name")
        return {name: _clean(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, key) for item in value]
    if isinstance(value, str):
        match key:
            case "target":
                _demand(_OPERATOR, value, "the operator")
            case "expr_str":
                _demand(_EXPRESSION, value, "the symbolic size")
            case "in_spec" | "out_spec":
                _check_tree(value)
            case "as_string" | "as_strings":
                _demand(_TEXT, value, "the text")
            case _:
                _demand(_NAME, value, "the name")
    return value


def _check_tree(text: str) -> None:
    """Check how arguments are nested: plain containers, without classes to import."""
    tree = _parsed(text.encode()) if text else None
    if tree is None:
        return
    if not isinstance(tree, list) or len(tree) != 2:
        raise Unsafe("its arguments are nested in an unknown way")
    nodes = [_items(tree[1])]
    while nodes:
        node = nodes.pop()
        kind, context = node.get("type"), node.get("context")
        if kind not in _CONTAINERS:
            raise Unsafe(
                f"an argument is of type {_shown(str(kind))}; only tensors, tuples, lists "
                "and dictionaries of them are known"
            )
        keys = _parsed(context.encode()) if isinstance(context, str) else context
        for name in keys if isinstance(keys, list) else [] if keys is None else [keys]:
            if not isinstance(name, str):
                raise Unsafe("a key of an argument is no text")
            _demand(_NAME, name, "the name")
        nodes += map(_items, node.get("children_spec", ()))


def _demand(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text):
        raise Unsafe(f"{what} {_shown(text)} is none that a model of known operators has")


def _shown(text: str) -> str:
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return f'"{plain if len(plain) <= 80 else plain[:77] + "..."}"'
