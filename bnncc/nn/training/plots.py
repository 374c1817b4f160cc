"""Learning curves as PNG files; needs matplotlib, which the extra `train` installs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bnncc.nn.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_bars", "plot_histories"]


def plot_histories(histories: Mapping[str, History], path: Path) -> bool:
    """Draw loss, validation error and flip rates over the epochs, a line each network.

    Args:
        histories: by the network's name.
        path: the PNG to write.

    Returns:
        False, and nothing written, where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(13, 4), layout="constrained")
    loss, error, flips = figure.subplots(1, 3)
    for name, history in histories.items():
        epochs = [one.epoch for one in history.epochs]
        loss.plot(epochs, [one.loss for one in history.epochs], label=name)
        errors = [100 * (1 - one.accuracy) for one in history.epochs]
        error.plot(epochs, errors, label=name)
        for layer in history.epochs[0].flips:
            rates = [one.flips[layer] for one in history.epochs]
            flips.plot(epochs, rates, label=f"{name}: {layer}")
    for axes, heading in (
        (loss, "training loss"),
        (error, "validation error, %"),
        (flips, "share of signs changed in the epoch"),
    ):
        _finish(axes, heading)
    flips.set_yscale("symlog", linthresh=1e-4)  # the last epochs change few signs, or none
    figure.savefig(path)
    return True


def plot_bars(values: Mapping[str, float], heading: str, path: Path) -> bool:
    """Draw one horizontal bar each name, the first on top.

    Returns:
        False, and nothing written, where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 0.6 + 0.5 * len(values)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(values), list(values.values()))
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel(heading)
    axes.margins(x=0.15)
    figure.savefig(path)
    return True


def _finish(axes: Axes, heading: str) -> None:
    axes.set_title(heading)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    if axes.get_lines():
        axes.legend(fontsize="x-small")
