"""From a command line to a table: train some networks, for some seeds, and report on each.

What the scripts in `examples/` share. A script says which networks, on which images, how; the
rest is here: seeds, checkpoints, progress, the comparison with the generated C, curves, figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from bnncc.nn.training.data import Images, Splits
from bnncc.nn.training.history import EpochFigures, History
from bnncc.nn.training.loop import Plan, fit, seed_everything
from bnncc.nn.training.parallel import Processes, processes
from bnncc.nn.training.plots import plot_histories
from bnncc.nn.training.report import Agreement, Row, compile_and_check, float_row, results_table

__all__ = ["Outcome", "Recipe", "option_parser", "parse_options", "run"]


_ELSEWHERE = ("data", "url", "out", "device", "resume", "stop_after")
"""Options that do not change what comes out, and may name folders."""


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained.

    Attributes:
        name: a C identifier; names the files.
        build: makes the untrained network.
        plan: how it is trained.
        compiled: whether to make C of it; False for a float twin.
        start: the name of an earlier recipe of the same run, with as many epochs, whose trained
            weights are taken as the initial ones; "" keeps those of `build`.
    """

    name: str
    build: Callable[[], nn.Module]
    plan: Plan
    compiled: bool = True
    start: str = ""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one recipe came to with one seed.

    Attributes:
        name: the recipe's.
        seed: the seed.
        model: as it was after its best epoch, on the CPU and in eval mode.
        history: its epochs.
        rows: in float and, if it was compiled, in C.
        agreement: how the C compares; None if there is none.
    """

    name: str
    seed: int
    model: nn.Module
    history: History
    rows: tuple[Row, ...]
    agreement: Agreement | None


def option_parser(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser of the options that every script has.

    Args:
        description: a line on the script.
        **defaults: of `data`, `out`, `epochs`, `batch_size` and `learning_rate`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="where the images lie")
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int, help="over all processes together")
    parser.add_argument("--learning-rate", type=float, help="of the first epoch")
    parser.add_argument(
        "--seed", "--seeds", type=int, nargs="+", default=[0], help="one training each"
    )
    parser.add_argument("--resume", action="store_true", help="go on from checkpoints in --out")
    parser.add_argument("--stop-after", type=int, default=0, help="stop after so many epochs")
    parser.add_argument("--device", default="", help="cpu, cuda; by default a GPU if there is one")
    parser.add_argument("--images", type=int, default=0, help="train on the first so many; 0: all")
    parser.add_argument("--quick", action="store_true", help="a small run, to see it work")
    parser.set_defaults(**defaults)
    return parser


def parse_options(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, quick: Mapping[str, object]
) -> argparse.Namespace:
    """Return the options, with `quick` as defaults where --quick is given."""
    if parser.parse_args(argv).quick:
        parser.set_defaults(**quick)
    return parser.parse_args(argv)


def run(
    title: str, recipes: Sequence[Recipe], splits: Splits, args: argparse.Namespace
) -> list[Outcome]:
    """Train every recipe with every seed, compile what is to be compiled, print the tables.

    Writes, into --out or a folder in it for each seed: NAME.h, NAME.c, NAME.checkpoint, curves.png
    and results.json.

    Args:
        title: of the table.
        recipes: in this order; those that others start from come first.
        splits: the images.
        args: what `parse_options` returned.

    Raises:
        SystemExit: 3 if some C differs from its float model.
    """
    if args.images:
        rest = max(1, args.images // 5)
        splits = splits.shortened(args.images, rest, rest)
    outcomes = []
    with processes(args.device) as team:
        runner = _Runner(args, team, splits.to(team.device))
        for seed in args.seed:
            outcomes += runner.run(title, recipes, seed)
        if len(args.seed) > 1 and outcomes:
            runner.console.print(_means(title, outcomes))
    if not all(one.agreement.ok for one in outcomes if one.agreement):
        raise SystemExit(3)
    return outcomes


class _Runner:
    """One run of a script: its options, this process, the images, and where it prints."""

    def __init__(self, args: argparse.Namespace, team: Processes, splits: Splits) -> None:
        self.args, self.team, self.splits = args, team, splits
        # No markup: it would take the [train] of a message for one.
        self.console = Console(quiet=not team.leads, highlight=False, markup=False, soft_wrap=True)

    def run(self, title: str, recipes: Sequence[Recipe], seed: int) -> list[Outcome]:
        """Train all recipes with one seed; report on them unless the run is to stop before."""
        folder = self.args.out / f"seed{seed}" if len(self.args.seed) > 1 else self.args.out
        trained: dict[str, nn.Module] = {}
        histories: dict[str, History] = {}
        for recipe in recipes:
            if recipe.start and len(histories[recipe.start].epochs) < recipe.plan.epochs:
                self.console.print(f"{recipe.name} waits until {recipe.start} is trained")
                continue
            self.console.print(f"{recipe.name}, seed {seed}")
            trained[recipe.name] = model = _initial(recipe, seed, trained).to(self.team.device)
            histories[recipe.name] = fit(
                model,
                self.splits,
                replace(recipe.plan, seed=seed),
                self.team,
                checkpoint=folder / f"{recipe.name}.checkpoint",
                resume=self.args.resume,
                stop_after=self.args.stop_after,
                watch=_bar(self.console),
                on_epoch=_line(self.console, recipe.plan.epochs),
            )
        if self.args.stop_after or not self.team.leads:
            return []
        if not plot_histories(histories, folder / "curves.png"):
            self.console.print("no curves.png without matplotlib: pip install 'bnncc[train]'")
        test = self.splits.test.to(torch.device("cpu"))
        outcomes = []
        for recipe in recipes:
            model, history = trained[recipe.name], histories[recipe.name]
            rows, agreement = _judged(recipe, model, test, folder)
            outcomes.append(Outcome(recipe.name, seed, model, history, rows, agreement))
        _write_results(folder / "results.json", self.args, outcomes)
        self.console.print(results_table(title, [row for one in outcomes for row in one.rows]))
        for one in outcomes:
            if one.agreement:
                self.console.print(f"{one.name}: {one.agreement}")
        return outcomes


def _initial(recipe: Recipe, seed: int, trained: Mapping[str, nn.Module]) -> nn.Module:
    seed_everything(seed)
    model = recipe.build()
    if recipe.start:
        model.load_state_dict(trained[recipe.start].state_dict())
    return model


def _judged(
    recipe: Recipe, model: nn.Module, test: Images, folder: Path
) -> tuple[tuple[Row, ...], Agreement | None]:
    if not recipe.compiled:
        return (float_row(recipe.name, model, test),), None
    done = compile_and_check(recipe.name, model, test, folder)
    return (done.in_float, done.in_c), done.agreement


def _bar(
    console: Console,
) -> Callable[[Iterable[tuple[Tensor, Tensor]], int], Iterable[tuple[Tensor, Tensor]]]:
    def watch(
        batches: Iterable[tuple[Tensor, Tensor]], count: int
    ) -> Iterable[tuple[Tensor, Tensor]]:
        hidden = console.quiet or not console.is_terminal
        return track(batches, "", count, console=console, transient=True, disable=hidden)

    return watch


def _line(console: Console, epochs: int) -> Callable[[EpochFigures], None]:
    def show(figures: EpochFigures) -> None:
        console.print(
            f"  epoch {figures.epoch}/{epochs}: loss {figures.loss:.5f}, "
            f"validation error {1 - figures.accuracy:.2%}, {figures.seconds:.1f} s"
        )

    return show


def _means(title: str, outcomes: Sequence[Outcome]) -> Table:
    """Return a table with each network's test error, mean and standard deviation over seeds."""
    errors: dict[str, list[float]] = {}
    for one in outcomes:
        for row in one.rows:
            errors.setdefault(row.network, []).append(1 - row.accuracy)
    table = Table(title=f"{title}: test error over seeds", title_justify="left")
    table.add_column("network", no_wrap=True)
    for heading in ("mean", "standard deviation", "each"):
        table.add_column(heading, justify="right")
    for network, values in errors.items():
        each = " ".join(f"{value:.2%}" for value in values)
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        table.add_row(network, f"{mean:.2%}", f"{deviation:.2%}", each)
    return table


def _write_results(path: Path, args: argparse.Namespace, outcomes: Sequence[Outcome]) -> None:
    """Write what was run and what came out, without the names of this machine's folders."""
    plain = {
        "options": {name: value for name, value in vars(args).items() if name not in _ELSEWHERE},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "networks": {
            one.name: {
                "seed": one.seed,
                "best_epoch": one.history.best.epoch,
                "seconds": sum(figures.seconds for figures in one.history.epochs),
                "rows": [asdict(row) for row in one.rows],
                "agreement": asdict(one.agreement) if one.agreement else None,
                "epochs": [asdict(figures) for figures in one.history.epochs],
            }
            for one in outcomes
        },
    }
    path.write_text(json.dumps(plain, indent=1) + "\n")
