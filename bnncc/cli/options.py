"""The options that describe a model and how to compile it, shared by several commands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bnncc.compiler import Options
from bnncc.errors import UsageError, printable

__all__ = [
    "HERE",
    "NONE_DECLARED",
    "AsJson",
    "CertificateFile",
    "DataFile",
    "DumpFolder",
    "Inputs",
    "InsertSign",
    "InsertSignAt",
    "ModelFile",
    "Name",
    "OptimizeFor",
    "OutputFolder",
    "Samples",
    "Seed",
    "Shapes",
    "SignOfZero",
    "TargetName",
    "options_of",
]

_SHAPE = re.compile(r"(?P<name>.+)=(?P<sizes>[1-9][0-9]{0,9}(x[1-9][0-9]{0,9})*)", re.DOTALL)

_BYTES = re.compile(r"(?P<count>[0-9]{1,15})(?P<unit>[kKmM]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}

NONE_DECLARED: list[str] = []
"""The default of options that may be given several times. Never changed."""

HERE = Path()
"""The current folder."""

ModelFile = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="The trained network: ONNX, .pt2 of PyTorch, or .tflite."),
]
Name = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Prefix of the C identifiers and of the files. Default: the model file's name.",
        show_default=False,
    ),
]
TargetName = Annotated[
    str,
    typer.Option(
        metavar="TARGET",
        help="What the C is for, see `bnncc targets`. Default: this machine.",
        show_default=False,
    ),
]
Inputs = Annotated[
    list[str],
    typer.Option(
        "--input",
        metavar="[NAME=]uint8:SCALE,OFFSET",
        help="Take an input as bytes u that stand for u * SCALE + OFFSET, as a camera gives them; "
        "int8 instead of uint8 for signed ones. NAME is needed where the model has several inputs; "
        "may be given several times.",
        show_default=False,
    ),
]
SignOfZero = Annotated[
    str,
    typer.Option(
        metavar="auto|plus|minus|exact",
        help="What sign(0) becomes: +1, -1, or exactly 0. auto keeps 0 where whole numbers meet "
        "it, takes +1 where real numbers might, and says so.",
    ),
]
Shapes = Annotated[
    list[str],
    typer.Option(
        "--shape",
        metavar="NAME=1x784",
        help="The shape of an input whose size the model leaves open; may be given several times.",
        show_default=False,
    ),
]
InsertSign = Annotated[
    bool,
    typer.Option(
        "--insert-sign",
        help="Put a sign on the input of each layer that the exporter seems to have left without "
        "one (`bnncc explain BNN016`). The C, and what verify compares with, are then the model "
        "so repaired.",
    ),
]
InsertSignAt = Annotated[
    list[str],
    typer.Option(
        metavar="LAYER",
        help="Put a sign on the input of this layer, called as `bnncc inspect` does; may be given "
        "several times.",
        show_default=False,
    ),
]
Kernels = Annotated[
    list[str],
    typer.Option(
        "--kernel",
        metavar="[LAYER=]auto|dense|shared|lean",
        help="The kernels of a layer, or of all others: dense (XNOR and popcount on words of "
        "channels), shared (bit slices of pixels, sums shared between output channels), lean (the "
        "same in less flash: lists of what is shared are built as it runs), or auto (dense or "
        "shared, whichever suits the whole network, see `bnncc inspect --kernels`), the default; "
        "may be given several times.",
        show_default=False,
    ),
]
OptimizeFor = Annotated[
    str,
    typer.Option(
        "--optimize",
        metavar="speed|size",
        help="What kernels are chosen by: time, or flash and then RAM.",
    ),
]
MaxFlash = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES",
        help="The most flash that the C may take, such as 65536, 64K or 1M: constants, and an "
        "estimate of the code.",
        show_default=False,
    ),
]
MaxRam = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES",
        help="The most RAM that the C may take: the arena, and a bound on its stack.",
        show_default=False,
    ),
]
OutputFolder = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="DIR", help="The folder that NAME.h and NAME.c are written to."
    ),
]
CertificateFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write what was proven of each layer, as JSON."),
]
DumpFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write the graph after every pass, as text."),
]
DataFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz",
        help="Samples: arrays by input name, perhaps with `labels`. All of them are used.",
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="How many random samples.  [default: 256, fewer for large models]"
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Which random samples.  [default: 0]"),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, for other programs to read.")
]


def options_of(
    *,
    name: str,
    target: str,
    inputs: Sequence[str],
    sign_zero: str,
    shapes: Sequence[str],
    insert_sign: bool,
    insert_sign_at: Sequence[str],
    kernels: Sequence[str],
    optimize: str,
    max_flash: str | None,
    max_ram: str | None,
    dump_dir: Path | None = None,
) -> Options:
    """Return the compiler's options.

    Raises:
        UsageError: BNN020, a shape does not read NAME=1x784, an input has two, or a limit is no
            number of bytes.
    """
    declared: dict[str, tuple[int, ...]] = {}
    for text in shapes:
        input_name, shape = _shape(text)
        if input_name in declared:
            what = f'two shapes are given for input "{printable(input_name)}"'
            raise UsageError("BNN020", what, help="give each input one --shape")
        declared[input_name] = shape
    return Options(
        name=name,
        target=target,
        inputs=tuple(inputs),
        sign_zero=sign_zero,
        shapes=declared,
        insert_sign=insert_sign,
        kernels=tuple(kernels),
        insert_sign_at=tuple(insert_sign_at),
        optimize=optimize,
        max_flash=_bytes("--max-flash", max_flash),
        max_ram=_bytes("--max-ram", max_ram),
        dump_dir=dump_dir,
    )


def _bytes(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    match = _BYTES.fullmatch(text)
    if match is None:
        what = f'{option}: "{printable(text)}" is no number of bytes'
        raise UsageError("BNN020", what, help="such as 65536, 64K or 1M; K is 1024 bytes")
    return int(match["count"]) * _UNITS[match["unit"].upper()]


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise UsageError(
            "BNN020",
            f'"{printable(text)}" is not a shape',
            why="it must read NAME=SIZExSIZE..., with an input's name and sizes of 1 or more",
            help="for an image of 28 by 28 pixels as one row: --shape image=1x784",
        )
    return match["name"], tuple(int(size) for size in match["sizes"].split("x"))
