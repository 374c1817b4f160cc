"""What bnncc prints for a few tiny models on two targets, for people to read in a diff.

`pytest tests/backend --update-golden` writes the files anew; the commit that changes them says why.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnncc.ir.ops import elementwise as ew
from bnncc.ir.ops.pool import MaxPool
from bnncc.ir.types import Element
from bnncc.ir.window import Axis, Window
from tests.backend.zoo import TARGETS, Model, Net, emit

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
_LONGEST = 200


def _bits() -> Model:
    """Reals to bits, a layer from bits to bits, a layer from bits to reals."""
    net = Net(1)
    x = net.sign(net.op(ew.Sub(), net.input("x", 9), net.constant(0.5)))
    x = net.batch_norm(net.dense(x, 5))
    x = net.op(ew.GreaterOrEqual(), x, net.constant(0.0))
    x = net.op(ew.Where(), x, net.constant(1.0), net.constant(-1.0))
    return Model(net.build(net.batch_norm(net.dense(x, 3))))


def _bytes() -> Model:
    """Bytes to a real value a channel, by bitplanes."""
    net = Net(2)
    x = net.op(ew.Cast(Element.F32), net.input("image", 6, element=Element.U8))
    return Model(net.build(net.op(ew.Add(), net.dense(x, 2), net.constant([0.5, -1.5]))))


def _reals() -> Model:
    """A layer of binary and one of real weights on reals, with activations between."""
    net = Net(3)
    x = net.op(ew.PRelu(), net.dense(net.input("x", 4), 3), net.constant([0.1, 0.2, -0.5]))
    return Model(net.build(net.dense(x, 2, np.float32([[1, 0.5, 3], [0.25, -2, 0.1]]))))


def _image() -> Model:
    """A convolution of signs with a real shortcut, bits pooled for the next one, an image out."""
    net = Net(4)
    x = net.input("x", 2, 4, 3)
    corner = Axis(2, before=1)
    y = net.op(ew.Add(), net.conv(net.at_least(x, 0.5), 2, Window((corner, corner))), x)
    pooled = net.op(MaxPool(Window((Axis(2, 2), Axis(3)))), net.at_least(y, 0))
    return Model(net.build(y, net.conv(pooled, 3, Window((Axis(2), Axis(1))))))


MODELS = {"bits": _bits, "bytes": _bytes, "reals": _reals, "image": _image}


def _files(model: str, target: str) -> dict[str, str]:
    e = emit(MODELS[model](), model, target)
    runtime = e.program.runtime
    assert e.source.count(runtime) == 1
    # The runtime's headers are in the repository already, and more than half of such a small file.
    source = e.source.replace(runtime, "/* Here stand the headers of runtime_c. */\n")
    return {f"{model}.{target}.c": source, f"{model}.{target}.h": e.header}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", MODELS)
def test_golden(update_golden: bool, model: str, target: str) -> None:
    for name, text in _files(model, target).items():
        path = GOLDEN / name
        if update_golden:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        help = "pytest tests/backend --update-golden writes it"
        assert path.is_file(), f"{name} is missing: {help}"
        assert path.read_text(encoding="utf-8") == text, f"{name} differs: {help}"
        assert len(text.splitlines()) < _LONGEST, f"{name} is too long for anybody to read"


def test_no_golden_without_a_model() -> None:
    expected = {name for m in MODELS for t in TARGETS for name in _files(m, t)}
    assert {path.name for path in GOLDEN.iterdir()} == expected
