"""The runtime headers a model needs, as one text without includes among themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bnncc import resources

__all__ = ["amalgamate"]

_LOCAL_INCLUDE = re.compile(r'^#include "(?:\.\./)?([\w./]+)"\n', re.MULTILINE)
_GUARD = re.compile(r"^#ifndef (BNN_\w+_H)\n#define \1\n(.*)^#endif\n\Z", re.MULTILINE | re.DOTALL)


def amalgamate(headers: Iterable[str]) -> str:
    """Return the given headers of runtime_c and all they include, each once, dependencies first."""
    done: dict[str, str] = {}
    for header in headers:
        _collect(header, done)
    return "\n".join(text.strip("\n") + "\n" for text in done.values())


def _collect(header: str, done: dict[str, str]) -> None:
    if header in done:
        return
    text = (resources.runtime_dir() / header).read_text(encoding="utf-8")
    for included in _LOCAL_INCLUDE.findall(text):
        _collect(included, done)
    done[header] = _GUARD.sub(r"\2", _LOCAL_INCLUDE.sub("", text))
