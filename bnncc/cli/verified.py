"""What `bnncc verify` prints, and when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnncc.cli.console import facts, items, plain_table, show_table
from bnncc.cli.failures import diagnostics_json, show_diagnostics
from bnncc.errors import Diagnostic, UsageError, VerificationError, printable

if TYPE_CHECKING:
    from bnncc.verification.result import LayerCheck, OutputCheck, Verification

__all__ = ["demand_success", "samples_of", "show_verification", "verification_json"]

_UNDECIDED = (
    "the model's own float32 sum lies so close to the decision that another order of its terms "
    "decides otherwise; neither answer is wrong"
)
_ASSUMED = "the model computes sign(0) = 0 there, and sign(0) is taken as +1 or -1 (--sign-zero)"
_HELP = (
    "this is a bug in bnncc: report it with the model, or with the files of "
    "`bnncc compile MODEL --dump-dir DIR`"
)


class _Samples(TypedDict):
    data: Path | None
    samples: int | None
    seed: int


def samples_of(data: Path | None, samples: int | None, seed: int | None) -> _Samples:
    """Return what to verify on, as `verify` takes it.

    Raises:
        UsageError: BNN020, data is given and random samples are asked for as well.
    """
    if data is not None and (samples is not None or seed is not None):
        what = "--samples and --seed choose random samples, and --data names others"
        raise UsageError("BNN020", what, help="leave one of them out; --data is used in full")
    return {"data": data, "samples": samples, "seed": seed or 0}


def show_verification(console: Console, verification: Verification, model: Path) -> None:
    """Print a line for each layer and output, and the verdict."""
    source = _source_text(verification)
    title = f"{printable(model.name)}: {source}, C built with {printable(verification.compiler)}"
    console.print(Text(title, style="bold"))
    for table in (_layer_table(verification), _output_table(verification)):
        if table.rows:
            console.print()
            show_table(console, table)
    if accuracies := _accuracies(verification):
        console.print()
        facts(console, accuracies)
    remarks = [("undecided", _UNDECIDED)] if any(c.undecided for c in verification.layers) else []
    remarks += [("assumed", _ASSUMED)] if any(c.assumed for c in verification.layers) else []
    items(console, "", [(mark, text) for mark, text in remarks])
    edits = [("-", edit) for edit in verification.edits]
    items(console, "Edited: compared is the repaired model, not the file's", edits)
    console.print()
    console.print(_verdict(verification))


def verification_json(verification: Verification) -> dict[str, Any]:
    """Return the verification as plain values, with "error" if it failed."""
    value = {"ok": verification.ok, **verification.as_json()}
    if not verification.ok:
        value["error"] = diagnostics_json(_failures(verification))
    return value


def demand_success(verification: Verification) -> None:
    """Return if the C is the model; otherwise say on stderr where it is not, and exit."""
    if not verification.ok:
        show_diagnostics(_failures(verification))
        raise typer.Exit(VerificationError.exit_code)


def _source_text(verification: Verification) -> str:
    count = f"{verification.samples:,}"
    noun = "sample" if verification.samples == 1 else "samples"
    if verification.source == "random":
        return f"{count} random {noun}"
    return f"{count} {noun} of {printable(verification.source)}"


def _inner_layers(verification: Verification) -> list[LayerCheck]:
    """Return the layers, but for those that are an output and no more, shown apart."""
    outputs = {check.name for check in verification.outputs}
    return [c for c in verification.layers if c.compared or c.name not in outputs]


def _layer_table(verification: Verification) -> Table:
    headings = ("bits compared", "mismatches", "undecided", "assumed", "C differs")
    table = plain_table(("layer", "text"), *((heading, "number") for heading in headings))
    for check in _inner_layers(verification):
        table.add_row(
            printable(check.name),
            f"{check.compared:,}" if check.compared else "-",
            _failing(check.mismatches),
            f"{check.undecided:,}",
            f"{check.assumed:,}",
            _failing(check.c_mismatches),
        )
    return table


def _output_table(verification: Verification) -> Table:
    headings = ("values", "mismatches", "C differs", "largest error", "same top-1")
    table = plain_table(("output", "text"), *((heading, "number") for heading in headings))
    for check in verification.outputs:
        table.add_row(
            printable(check.name),
            f"{check.values:,}",
            _failing(check.mismatches),
            _failing(check.c_mismatches),
            f"{check.max_abs_error:.3g}",
            _percent(check.top1_agreement),
        )
    return table


def _accuracies(verification: Verification) -> list[tuple[str, str]]:
    found = []
    for check in verification.outputs:
        if check.accuracy_reference is not None or check.accuracy_c is not None:
            model, c = _percent(check.accuracy_reference), _percent(check.accuracy_c)
            found.append(("accuracy", f"{printable(check.name)}: model {model}, C {c}"))
    return found


def _failing(count: int) -> Text:
    return Text(f"{count:,}", style="bold red" if count else "")


def _percent(fraction: float | None) -> str:
    """Return a fraction in percent; only all of all is called 100.00 %."""
    if fraction is None:
        return "-"
    shown = f"{100 * fraction:.2f}"
    return "< 100 %" if shown == "100.00" and fraction < 1 else f"{shown} %"


def _verdict(verification: Verification) -> Text:
    if not verification.ok:
        return Text("FAILED: the C does not compute what the model computes.", style="bold red")
    model = "file" if verification.warnings else "model"
    model = "repaired model" if verification.edits else model
    compared = sum(check.compared for check in verification.layers)
    excused = sum(check.undecided + check.assumed for check in verification.layers)
    line = Text("VERIFIED: ", style="bold yellow" if verification.warnings else "bold green")
    if not compared:
        return line.append(f"the C computes the {model}'s outputs, up to float32 rounding.")
    if not excused:
        return line.append(f"all {compared:,} bits inside the network are the {model}'s own.")
    equal = f"{compared - excused:,} of {compared:,} bits inside the network are the {model}'s own"
    return line.append(f"{equal}; the other {excused:,} are explained above.")


def _failures(verification: Verification) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    for layer in _inner_layers(verification):
        found += _failures_of("layer", layer, layer.first)
    first = {check.name: check.first for check in verification.layers}
    for output in verification.outputs:
        found += _failures_of("output", output, first.get(output.name, ""))
    return found or [Diagnostic("BNN060", "the C and the model differ", help=_HELP)]


def _failures_of(what: str, check: LayerCheck | OutputCheck, first: str) -> list[Diagnostic]:
    name = f'{what} "{printable(check.name)}"'
    found = (
        (check.mismatches, f"{name} differs from the model in {check.mismatches:,} values"),
        (check.c_mismatches, f"the C of {name} is wrong in {check.c_mismatches:,} values"),
    )
    return [Diagnostic("BNN060", text, first, help=_HELP) for count, text in found if count]
