"""From a TensorFlow Lite file, also Larq Compute Engine's, to a `Graph` of the FLOAT stage.

    read      the flatbuffer, bounded: tensors, operators, options
    site      one operator at a time: what it reads, and the ONNX nodes that stand for it
    windows   convolutions and pools
    elements  what works on each element
    moves     what moves elements
    larq      Larq Compute Engine's operators on packed bits
    table     which function translates which operator

The file becomes an ONNX model in standard operators, which the ONNX frontend imports: that model is
what `verify` runs as the oracle.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from bnncc.frontends.onnx import Imported, load_onnx
from bnncc.frontends.onnx.report import plural
from bnncc.frontends.tflite.read import Network, read_network
from bnncc.frontends.tflite.table import translate

__all__ = ["load_tflite"]

_NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})


def load_tflite(path: Path, shapes: Mapping[str, tuple[int, ...]] = _NO_SHAPES) -> Imported:
    """Return the model in the file `path`.

    Args:
        path: a TensorFlow Lite file with float32 inputs and outputs, that nobody vouches for.
        shapes: for some inputs, by name, the shape with batch 1.

    Raises:
        UsageError: BNN020 `shapes` does not fit the model.
        UnsupportedModelError: BNN001 not readable, BNN002 damaged, BNN003 contradictory, BNN005 too
            large, BNN007 operators and BNN008 options that are not supported; further as
            `load_onnx`.
    """
    network = read_network(path)
    model = translate(network)
    with tempfile.TemporaryDirectory(prefix="bnncc-") as folder:
        translated = Path(folder) / "model.onnx"
        translated.write_bytes(model.SerializeToString())
        imported = load_onnx(translated, shapes)
    notes = (_note(network), *imported.notes)
    return dataclasses.replace(imported, sha256=network.sha256, notes=notes)


def _note(network: Network) -> str:
    larq = sum(operator.is_custom for operator in network.operators)
    names = plural(len(network.operators), "operator")
    what = f"{names} of TensorFlow Lite" + (
        f", {larq} of them Larq Compute Engine's," if larq else ""
    )
    return f"{what} translated to ONNX: verify compares with that translation in ONNX Runtime"
