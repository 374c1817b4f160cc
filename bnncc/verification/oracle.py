"""The oracle: the user's model in ONNX Runtime, nothing optimised, inner tensors exposed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from bnncc.frontends.onnx.runtime import open_session, run_session
from bnncc.ir.types import Array

__all__ = ["Oracle"]


class Oracle:
    """Runs the float model one sample at a time, as ONNX Runtime computes it."""

    def __init__(self, model: onnx.ModelProto, tensors: Iterable[str]) -> None:
        """Expose `tensors`; those that the model does not have under that name are left out."""
        made = {name for node in model.graph.node for name in node.output}
        outputs = [value.name for value in model.graph.output]
        extra = [name for name in dict.fromkeys(tensors) if name in made and name not in outputs]
        exposed = onnx.ModelProto()
        exposed.CopyFrom(model)
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
        self.tensors = (*outputs, *extra)
        self._session = open_session(exposed)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every exposed tensor for a batch, each sample computed alone.

        Args:
            feeds: float32 [N, ...] by input name.
        """
        (count,) = {len(array) for array in feeds.values()}
        rows = [
            run_session(self._session, {name: array[i : i + 1] for name, array in feeds.items()})
            for i in range(count)
        ]
        columns = zip(*rows, strict=True)
        return {
            name: np.concatenate(column) for name, column in zip(self.tensors, columns, strict=True)
        }
