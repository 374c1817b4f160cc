"""What a model file is, by its content: suffixes are only believed where the content is silent."""

from __future__ import annotations

import enum
import zipfile
from pathlib import Path

from bnncc.errors import UnsupportedModelError
from bnncc.frontends.onnx.report import path_text

__all__ = ["FileKind", "file_kind", "refuse_pickle"]

_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_TFLITE = b"TFL3"
"""What the fifth byte on of a TensorFlow Lite file is."""
_ONNX_START = b"\x08"
"""The first field of nearly every ONNX file is ir_version, a number."""


class FileKind(enum.Enum):
    """What a file holds, as far as its first look tells; the value is what people call it."""

    ONNX = "an ONNX model"
    ARCHIVE = "a torch.export archive"
    PICKLE = "a pickle, as torch.save writes them"
    SCRIPT = "a TorchScript archive"
    TFLITE = "a TensorFlow Lite model"


def file_kind(path: Path) -> FileKind:
    """Return what is in the file; what cannot be read or is unknown is left to the ONNX reader."""
    try:
        with path.open("rb") as file:
            start, magic = file.read(4), file.read(4)
    except (OSError, ValueError):
        return FileKind.ONNX  # whose reader says what is wrong with it
    if magic == _TFLITE:
        return FileKind.TFLITE
    if start in (_ZIP, _EMPTY_ZIP):
        return _zip_kind(path)
    suffix = path.suffix.lower()
    if suffix == ".pt2":
        return FileKind.ARCHIVE
    if start.startswith(_PICKLES):
        return FileKind.PICKLE
    if suffix in _PICKLE_SUFFIXES and not start.startswith(_ONNX_START):
        return FileKind.PICKLE  # of protocol 0 or 1, or a tar archive of them
    return FileKind.ONNX


def _zip_kind(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.split("/", 1)[-1] for name in archive.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        # Cut short. Which of them it was, the suffix says.
        suffixed = path.suffix.lower() in _PICKLE_SUFFIXES
        return FileKind.PICKLE if suffixed else FileKind.ARCHIVE
    if "archive_format" in names or "models/model.json" in names:
        return FileKind.ARCHIVE
    if any(name.startswith("code/") for name in names):
        return FileKind.SCRIPT
    return FileKind.PICKLE if "data.pkl" in names else FileKind.ARCHIVE


def refuse_pickle(path: Path, kind: FileKind) -> UnsupportedModelError:
    """Return the error for a file that could only be read by running what is in it."""
    if kind is FileKind.SCRIPT:
        lines = (
            f"model = torch.jit.load({str(path)!r}).eval()",
            'torch.onnx.export(model, (example_input,), "model.onnx", dynamo=False)',
        )
        why = "it holds a program and pickles; bnncc runs neither"
        first = "if you trust the file"
    else:
        lines = (
            f"model.load_state_dict(torch.load({str(path)!r}, weights_only=True))",
            'torch.onnx.export(model.eval(), (example_input,), "model.onnx", dynamo=True)',
        )
        why = "unpickling runs code from the file, so bnncc never does; often it holds no network"
        first = "where the model is defined"
    return UnsupportedModelError(
        "BNN013",
        f"{path_text(path)} is {kind.value}",
        why=why,
        help="\n".join([f"{first}, run these two lines, and compile model.onnx:"])
        + "".join(f"\n           {_printable(line)}" for line in lines),
    )


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in line)
