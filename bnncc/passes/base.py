"""The pass contract: what a pass is given, what it returns, and what it promises."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bnncc.certificate import Assumption, LayerCertificate
from bnncc.ir.graph import Graph
from bnncc.ir.order import Order
from bnncc.ir.types import Stage
from bnncc.targets import Target

__all__ = ["Context", "Exactness", "Family", "Outcome", "Pass", "Pixels", "Refusal", "SignZero"]


class SignZero(enum.Enum):
    """What becomes of sign(0), which is 0 in PyTorch and ONNX: a third level."""

    AUTO = "auto"
    """Real inputs: +1, stated as an assumption. Accumulators: 0 is kept where it can occur."""
    PLUS = "plus"
    MINUS = "minus"
    EXACT = "exact"


class Exactness(enum.Enum):
    """How the results of what a pass rewrote compare with those before it."""

    BITWISE = "bitwise"
    VALUE = "value"
    """The same numbers; a zero may change its sign, and what was no number may become one."""
    REDUCTION_ORDER = "reduction order"
    """Equal but for the order in which a float32 sum is taken, within the rigorous bound on it."""
    ASSUMPTION = "assumption"
    """Equal except where the pass states an assumption (sign(0))."""


class Family(enum.Enum):
    """Which kernels compute a layer's sums of bits."""

    AUTO = "auto"
    """Whichever suits the whole network best, see `bnncc.layouts`."""
    DENSE = "dense"
    """XNOR and popcount on words of channels."""
    SHARED = "shared"
    """Bit slices of pixels, with sums shared between output channels."""
    LEAN = "lean"
    """The same, with the lists that say what is shared built from packed weights as it runs."""


Pixels = Mapping[str, Family]
"""What is computed on planes of pixels, by the first results of nodes: SHARED or LEAN of each."""


@dataclass(frozen=True)
class Context:
    """What the user asked for, as far as passes care.

    Attributes:
        target, sign_zero: see there.
        families: the kernel family of layers, by one of their source nodes; "*" stands for all
            others, which are AUTO without it.
        pixels: the nodes that are to take kernels of family B, once that is chosen for all; before,
            None, and family B is for layers of which it was demanded.
    """

    target: Target
    sign_zero: SignZero = SignZero.AUTO
    families: Mapping[str, Family] = field(default_factory=dict)
    pixels: Pixels | None = None

    def demanded(self, origin: Sequence[str]) -> Family:
        """Return the kernel family that was asked for of a layer of these source nodes."""
        asked = (self.families[name] for name in (*origin, "*") if name in self.families)
        return next(asked, Family.AUTO)

    def shares(self, result: str, origin: Sequence[str]) -> bool:
        """Whether a layer with this first result is to take kernels of family B."""
        if self.pixels is not None:
            return result in self.pixels
        return self.demanded(origin) in {Family.SHARED, Family.LEAN}

    def builds_lists(self, result: str, origin: Sequence[str]) -> bool:
        """Whether such a layer is to build its lists as it runs."""
        if self.pixels is not None:
            return self.pixels.get(result) is Family.LEAN
        return self.demanded(origin) is Family.LEAN

    def pools_planes(self, result: str) -> bool:
        """Whether a pool of bits is to take them from planes of pixels, where it finds these."""
        return self.pixels is None or result in self.pixels


@dataclass(frozen=True)
class Refusal:
    """A node that nearly matched, and why it was left alone. The reason reaches the user."""

    node: str
    origin: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a pass returns: the graph, and what it has to say.

    Attributes:
        graph, refusals, certificates, assumptions: see there.
        orders: of tensors that hold, in another order, what the graph held before under the name
            that `source_name` gives.
    """

    graph: Graph
    refusals: tuple[Refusal, ...] = ()
    certificates: tuple[LayerCertificate, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    orders: Mapping[str, Order] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass:
    """A named step of the pipeline with its promises, which the runner checks on every compile.

    Attributes:
        name: as in dumps and messages.
        apply: the step itself.
        requires: the stage of the graphs it takes.
        exactness: how results compare before and after.
    """

    name: str
    apply: Callable[[Graph, Context], Outcome]
    requires: Stage
    exactness: Exactness = Exactness.BITWISE
