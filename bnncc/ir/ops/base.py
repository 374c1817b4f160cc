"""What every operation is: attributes, a type rule, and an executable definition."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bnncc.ir.types import Array, Stage, TensorType

__all__ = ["Op", "OpError", "Scratch"]


class OpError(Exception):
    """Operands that do not fit an operation; the frontend names the node in the user's model."""


@dataclass(frozen=True)
class Scratch:
    """Memory that an operation writes and reads while it runs; what it holds means nothing after.

    Attributes:
        name: of the parameter in C.
        kind: what it holds.
    """

    name: str
    kind: TensorType


@dataclass(frozen=True)
class Op(abc.ABC):
    """An operation with its attributes. Subclasses are frozen dataclasses; fields are attributes.

    `evaluate` is the operation's definition (invariant I5): the interpreter, the constant folder,
    the threshold finder and the pass checks all run it.
    """

    stages: ClassVar[frozenset[Stage]]

    @property
    def name(self) -> str:
        """The operation's name in dumps and messages."""
        return type(self).__name__

    @property
    def scratch(self) -> tuple[Scratch, ...]:
        """What it needs while it runs, beside its operands and results."""
        return ()

    @abc.abstractmethod
    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Return the types of the results.

        Raises:
            OpError: the operands do not fit.
        """

    @abc.abstractmethod
    def evaluate(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """Return the results for stored operands; activations may carry any batch on axis 0."""

    def __str__(self) -> str:
        fields = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)]
        attributes = ", ".join(f"{name}={value}" for name, value in fields)
        return f"{self.name}({attributes})" if attributes else self.name
