"""Which layers are computed on packed channels, and which on planes of pixels.

work     how often a layer does what takes time
costs    time, flash and RAM of layers, by the constants of `bnncc.targets.costs`
cuts     the cheapest labels of a network, exactly
problem  what there is to choose, and what it costs
choice   the choice: the fastest or the smallest, within limits
"""

from __future__ import annotations

from bnncc.layouts.choice import Choice, Goal, Optimize, choose
from bnncc.layouts.costs import Cost, Size, size_of
from bnncc.layouts.problem import Conversion, Either, Problem

__all__ = [
    "Choice",
    "Conversion",
    "Cost",
    "Either",
    "Goal",
    "Optimize",
    "Problem",
    "Size",
    "choose",
    "size_of",
]
