"""A .pt2 archive: scanned, and written anew with nothing in it but what was looked at.

Two readers of one zip file need not see the same entries: names may occur twice, and there may be
two directories. So PyTorch gets an archive of our own making.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx.read import MAX_TENSOR_BYTES
from bnncc.frontends.onnx.report import path_text, quoted
from bnncc.frontends.torch.program import Unsafe, clean_payload, clean_program

__all__ = ["rewrite"]

_MOST_ENTRIES = 100_000
_LARGEST_JSON = 2**26
_TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_CONFIGS = re.compile(r"data/(weights|constants)/model_(weights|constants)_config\.json")
_PROGRAM = "models/model.json"
_MARKS = {"archive_format": b"pt2", "byteorder": b"little"}
_AS_IT_IS = re.compile(r"archive_version|\.data/(version|serialization_id)|\.format_version")
_SAMPLES = re.compile(r"data/sample_inputs/model\.pt")
_EXTRA = re.compile(r"extra/.*|\.storage_alignment", re.DOTALL)

_HELP = "export the model to ONNX where it was made: torch.onnx.export(program, ...)"
_HELP_OLD = (
    "save it again with PyTorch 2.9 or newer (torch.export.save), or export the model to ONNX "
    "where it was made"
)
_OLD = re.compile(r"serialized_\w+\.(json|pt)|data/(weights|constants)/\w+\.pt")

# Why an entry is refused, by where it lies.
_REFUSED = (
    (_OLD, "an older PyTorch wrote it, with weights as a pickle", _HELP_OLD),
    (re.compile(r"data/constants/(custom_obj|opaque_obj)_.*"), "it is a pickled object", _HELP),
    (re.compile(r"data/aotinductor/.*"), "it is compiled code, to be loaded and run", _HELP),
    (re.compile(r"(.*/)?data\.pkl|.*\.(pkl|pickle|pt|pth)"), "it is a pickle", _HELP),
)


def rewrite(path: Path, clean: Path) -> None:
    """Write what a model needs of the archive `path` to the archive `clean`.

    The example inputs are a pickle in every archive. They are not needed, and left out unread.

    Raises:
        UnsupportedModelError: BNN001 not readable, BNN005 too large, BNN014 damaged, or an entry is
            one that could only be loaded by running what it says.
    """
    try:
        with zipfile.ZipFile(path) as source:
            entries = _entries(path, source)
            with zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as target:
                for name, entry in entries:
                    content = _content(path, name, entry, source)
                    if content is not None:
                        target.writestr(f"model/{name}", content)
    except FileNotFoundError:
        raise UnsupportedModelError("BNN001", f"there is no file {path_text(path)}") from None
    except OSError as error:
        what = f"cannot read {path_text(path)}"
        raise UnsupportedModelError("BNN001", what, why=str(error)) from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        why = f"it is cut short or damaged, or no archive: {error}"
        raise _bad(path, why, "copy it again, as a binary file") from error


def _bad(path: Path, why: str, help: str = _HELP) -> UnsupportedModelError:
    what = f"the archive {path_text(path)} is not loaded"
    return UnsupportedModelError("BNN014", what, why=why, help=help)


def _entries(path: Path, source: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
    """Return the entries by their names below the archive's own folder; all bounds are checked."""
    infos = [info for info in source.infolist() if not info.is_dir()]
    claimed = sum(info.file_size for info in infos)
    if claimed > MAX_TENSOR_BYTES:
        what = f"the entries of {path_text(path)} claim {claimed} bytes"
        why = f"the limit is {MAX_TENSOR_BYTES} bytes"
        raise UnsupportedModelError("BNN005", what, why=why)
    if len(infos) > _MOST_ENTRIES:
        raise _bad(path, f"it has {len(infos)} entries; the limit is {_MOST_ENTRIES}")
    names = [info.filename for info in infos]
    for name in names:
        parts = re.split(r"[/\\]", name)
        if ".." in parts or parts[0] == "" or "\\" in name or ":" in parts[0]:
            raise _bad(path, f"entry {quoted(name)} lies outside of the archive")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _bad(path, f"entry {quoted(twice)} is there twice")
    inner = [(name.split("/", 1)[-1], info) for name, info in zip(names, infos, strict=True)]
    flat = any(_OLD.fullmatch(name) for name in names)
    if not flat and len({name.split("/", 1)[0] for name in names}) > 1:
        raise _bad(path, "its entries are not in one folder, as torch.export.save writes them")
    for name, info in inner:
        for pattern, why, help in _REFUSED:
            if pattern.fullmatch(name) and not _SAMPLES.fullmatch(name):
                raise _bad(path, f"entry {quoted(info.filename)}: {why}", help)
    present = {name for name, _ in inner}
    for needed in ("archive_format", _PROGRAM):
        if needed not in present:
            raise _bad(path, f"it has no entry {quoted(needed)}, so torch.export.save wrote it not")
    return inner


def _content(
    path: Path, name: str, entry: zipfile.ZipInfo, source: zipfile.ZipFile
) -> bytes | None:
    """Return what the new archive holds of an entry; None leaves it out."""
    if _EXTRA.fullmatch(name):
        return None
    if _SAMPLES.fullmatch(name):
        return b""
    cleaner = _cleaner(name)
    if cleaner is None:
        raise _bad(path, f"entry {quoted(entry.filename)}: nobody knows what it is for")
    if cleaner is not _same and entry.file_size > _LARGEST_JSON:
        what = f"entry {quoted(entry.filename)} of {path_text(path)} has {entry.file_size} bytes"
        raise UnsupportedModelError("BNN005", what, why=f"the limit is {_LARGEST_JSON} bytes")
    content = source.read(entry)
    if name in _MARKS and content != _MARKS[name]:
        expected = quoted(_MARKS[name].decode())
        raise _bad(path, f"entry {quoted(entry.filename)} does not say {expected}")
    try:
        return cleaner(content)
    except Unsafe as found:
        raise _bad(path, f"entry {quoted(entry.filename)}: {found}") from None


def _same(content: bytes) -> bytes:
    return content


def _cleaner(name: str) -> Callable[[bytes], bytes] | None:
    if name == _PROGRAM:
        return clean_program
    if _CONFIGS.fullmatch(name):
        return clean_payload
    if name in _MARKS or _AS_IT_IS.fullmatch(name) or _TENSORS.fullmatch(name):
        return _same
    return None
