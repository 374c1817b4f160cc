"""What `bnncc compile` and `bnncc inspect` print of a compiled model."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bnncc.backend.program import Port
from bnncc.cli.console import (
    facts,
    human_bytes,
    human_count,
    items,
    plain_table,
    safe,
    show_table,
)
from bnncc.cli.failures import diagnostics_json
from bnncc.cli.kernels import kernels_json, show_kernels
from bnncc.compiler import Artifact, Compilation, Options
from bnncc.errors import printable
from bnncc.ir.text import format_graph
from bnncc.ir.types import Element
from bnncc.report import Arithmetic, LayerReport, OtherWork, Report

__all__ = ["artifact_json", "inspection_json", "show_artifact", "show_inspection"]


def show_artifact(
    console: Console,
    artifact: Artifact,
    model: Path,
    options: Options,
    certificate: Path | None,
) -> None:
    """Print what a compile wrote, what it takes, and what to do next."""
    report = artifact.report
    console.print(Text(f"Compiled {report.model} for {report.target}", style="bold green"))
    written = [("header", str(artifact.header)), ("source", str(artifact.source))]
    written += [("certificate", str(certificate))] if certificate is not None else []
    facts(console, [*written, *_sizes(report), ("took", _time_and_memory(report))])
    _show_remarks(console, report)
    console.print()
    console.print(_next(model, options), soft_wrap=True)


def show_inspection(
    console: Console,
    compilation: Compilation,
    model: Path,
    *,
    with_graph: bool,
    with_kernels: bool,
) -> None:
    """Print the layers, what is not on bits and why, and what all of it takes."""
    report = compilation.report
    title = f"{printable(model.name)} for {report.target}"
    console.print(Text(title, style="bold"))
    program = compilation.program
    ports = [("input", _port_text(port)) for port in program.inputs]
    facts(console, ports + [("output", _port_text(port)) for port in program.outputs])
    _show_layers(console, report.layers)
    console.print()
    facts(console, _sizes(report))
    _show_remarks(console, report)
    known = {(layer.name, layer.reason) for layer in report.layers}
    left = [(names, why) for names, why in report.refusals if not _is_known(names, why, known)]
    items(console, "Left as it was", [("-", f"{names}: {why}") for names, why in left])
    if with_kernels:
        show_kernels(console, compilation)
    if with_graph:
        console.print()
        console.print(Text(safe(format_graph(compilation.lowered.graph)), end=""), soft_wrap=True)


def artifact_json(artifact: Artifact, certificate: Path | None) -> dict[str, Any]:
    """Return what a compile wrote and reported, as plain values."""
    return {
        "header": str(artifact.header),
        "source": str(artifact.source),
        "certificate": None if certificate is None else str(certificate),
        **_interface_json(artifact.compilation),
        "report": artifact.report.as_json(),
        "warnings": diagnostics_json(artifact.report.warnings),
        "peak_memory_bytes": _peak_memory(),
    }


def inspection_json(
    compilation: Compilation, *, with_graph: bool, with_kernels: bool
) -> dict[str, Any]:
    """Return what `inspect` shows, as plain values."""
    value = {
        **_interface_json(compilation),
        "report": compilation.report.as_json(),
        "warnings": diagnostics_json(compilation.report.warnings),
    }
    value |= {"kernels": kernels_json(compilation)} if with_kernels else {}
    return value | ({"graph": format_graph(compilation.lowered.graph)} if with_graph else {})


def _interface_json(compilation: Compilation) -> dict[str, Any]:
    def plain(port: Port) -> dict[str, Any]:
        kind = {"c_type": port.c_type, "shape": list(port.shape)}
        return {"name": port.tensor, "parameter": port.parameter, **kind}

    program = compilation.program
    return {
        "inputs": [plain(port) for port in program.inputs],
        "outputs": [plain(port) for port in program.outputs],
    }


def _port_text(port: Port) -> str:
    sizes = "".join(f"[{size}]" for size in port.shape)
    return f"{printable(port.tensor)}: {port.c_type}{sizes}"


_WHOLE_TABLE = 100
"""Columns of a terminal from which on the table says too what each layer reads and stores."""

_SHAPE_WIDTH = 32
_READS = {
    **{element.value: "codes" for element in Element if element.code_bits},
    **{"bipolar": "bits", "ternary": "levels", "u8": "bytes", "f32": "reals"},
}
_DOES = {Arithmetic.BITS: "bits", Arithmetic.SIGNS: "+-x", Arithmetic.REALS: "real"}


def _show_layers(console: Console, layers: Sequence[LayerReport]) -> None:
    """Print a line for each layer, then why some are not on bits: each reason once, numbered."""
    console.print()
    if not layers:
        console.print(Text("The model has no layer with weights."))
        return
    reasons = list(dict.fromkeys(layer.reason for layer in layers if layer.reason))
    whole = console.width >= _WHOLE_TABLE
    columns = [("layer", "text"), ("shape", "fixed"), ("MACs", "number"), ("sums of", "fixed")]
    columns += [("reads", "fixed"), ("stores", "fixed")] if whole else []
    table = plain_table(*columns, ("weights", "fixed"), gap=1)
    for layer in layers:
        mark = f" ({reasons.index(layer.reason) + 1})" if layer.reason else ""
        between = [_READS[layer.activations], "+".join(layer.stores)] if whole else []
        table.add_row(
            layer.title,
            textwrap.fill(layer.shape, _SHAPE_WIDTH),
            human_count(layer.macs),
            Text(_DOES[layer.arithmetic] + mark, style="yellow" if mark else "green"),
            *between,
            f"{human_bytes(layer.source_bytes)} -> {human_bytes(layer.packed_bytes)}",
        )
    show_table(console, table)
    items(console, "Not on bits", [(f"({i})", why) for i, why in enumerate(reasons, 1)])


def _is_known(names: str, why: str, known: set[tuple[str, str]]) -> bool:
    """Whether the list of layers says already what a refusal says."""
    return any(why == reason and names.startswith(layer) for layer, reason in known)


def _sizes(report: Report) -> list[tuple[str, str]]:
    layers = report.layers
    binary = sum(layer.weights == "binary" for layer in layers)
    on_bits = sum(layer.arithmetic is Arithmetic.BITS for layer in layers)
    before, after = report.source_bytes, report.flash_bytes
    ratio = f" ({before / after:.1f}x)" if after else ""
    return [
        ("layers", f"{len(layers)}: {binary} with binary weights, {on_bits} computed on bits"),
        ("flash", f"{after:,} bytes of constants; the model had {before:,}{ratio}"),
        *_parts(dict(sorted(report.constant_bytes.items(), key=lambda part: -part[1]))),
        ("RAM", _arena_text(report)),
        ("work", _work_text(report)),
        *_parts({_MACS[kind]: count for kind, count in _macs(report).items() if count}),
        *[("", f"  {_other_text(work)}") for work in report.others],
    ]


_MACS = {
    Arithmetic.BITS: "on bits",
    Arithmetic.SIGNS: "additions +-x",
    Arithmetic.REALS: "real",
}


def _macs(report: Report) -> dict[Arithmetic, int]:
    return {
        Arithmetic.BITS: report.binary_macs,
        Arithmetic.SIGNS: report.sign_macs,
        Arithmetic.REALS: report.real_macs,
    }


def _parts(amounts: Mapping[str, int]) -> list[tuple[str, str]]:
    return [("", f"  {kind:<15}{amount:>15,}") for kind, amount in amounts.items()]


def _arena_text(report: Report) -> str:
    arena, least = report.arena_bytes, report.arena_lower_bound
    above = f" ({100 * (arena / least - 1):+.1f} %)" if 0 < least < arena else ""
    return f"{arena:,} bytes of arena; no plan takes fewer than {least:,}{above}"


def _work_text(report: Report) -> str:
    share = 100 * report.binary_macs / max(1, report.macs)
    return f"{report.macs:,} MACs a sample, {share:.1f} % of them on bits"


def _other_text(work: OtherWork) -> str:
    passes = "pass" if work.count == 1 else "passes"
    return f"{work.kind:<15}{work.elements:>15,} elements in {work.count} {passes}"


_LISTED = 6
"""Assumptions that are listed one by one."""


def _show_remarks(console: Console, report: Report) -> None:
    edits = [("-", edit) for edit in report.edits]
    items(console, "Edited: the C computes the repaired model, not the file's", edits)
    plain = [("-", c.text) for c in report.cautions if c.kind == "plain float"]
    items(console, "Not a binary network", plain)
    little = [("-", c.text) for c in report.cautions if c.kind != "plain float"]
    items(console, "Gains little", little)
    assumed = [("-", text) for text in report.assumptions[:_LISTED]]
    if len(report.assumptions) > _LISTED:
        assumed.append(("-", f"and {len(report.assumptions) - _LISTED} more, see --json"))
    items(console, "Assumed", assumed)
    items(console, "Note", [("-", text) for text in report.notes])


def _time_and_memory(report: Report) -> str:
    phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in report.seconds.items())
    peak = _peak_memory()
    memory = "" if peak is None else f"; peak memory {peak / 1e6:,.0f} MB"
    return f"{sum(report.seconds.values()):.2f} s ({phases}){memory}"


def _peak_memory() -> int | None:
    """Return the most bytes of memory this process has held, or None where nobody counts.

    Linux hands the counter of getrusage on from parent to child, so there it is asked elsewhere.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _next(model: Path, options: Options) -> Text:
    """Return the line that says what to do next: a command to copy, with the options given."""
    words = ["bnncc", "verify", str(model)]
    words += ["--target", options.target] if options.target else []
    words += [word for text in options.inputs for word in ("--input", text)]
    words += ["--sign-zero", options.sign_zero] if options.sign_zero != "auto" else []
    for name, shape in options.shapes.items():
        words += ["--shape", f"{name}={'x'.join(map(str, shape))}"]
    words += ["--insert-sign"] if options.insert_sign else []
    words += [word for layer in options.insert_sign_at for word in ("--insert-sign-at", layer)]
    words += [word for text in options.kernels for word in ("--kernel", text)]
    words += ["--optimize", options.optimize] if options.optimize != Options.optimize else []
    for option, limit in (("--max-flash", options.max_flash), ("--max-ram", options.max_ram)):
        words += [option, str(limit)] if limit is not None else []
    edited = options.insert_sign or options.insert_sign_at
    line = Text(f"Next, prove that the C is {'the repaired' if edited else 'your'} model: ")
    return line.append(safe(shlex.join(words)), style="bold")
