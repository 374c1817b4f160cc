"""What `bnncc compile` and `bnncc inspect` print of a compiled model."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bnncc.backend.program import Port
from bnncc.cli.console import facts, human_bytes, items, plain_table, safe, show_table
from bnncc.compiler import Artifact, Compilation, Options
from bnncc.errors import printable
from bnncc.ir.text import format_graph
from bnncc.report import LayerReport, Report
from bnncc.targets import load_kernels

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
    console: Console, compilation: Compilation, model: Path, *, with_graph: bool
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
        "peak_memory_bytes": _peak_memory(),
    }


def inspection_json(compilation: Compilation, *, with_graph: bool) -> dict[str, Any]:
    """Return what `inspect` shows, as plain values."""
    value = {**_interface_json(compilation), "report": compilation.report.as_json()}
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


def _show_layers(console: Console, layers: Sequence[LayerReport]) -> None:
    """Print a line for each layer, then why some are not on bits: each reason once, numbered."""
    reasons = list(dict.fromkeys(filter(None, map(_why_not_bits, layers))))
    columns = [("layer", "text"), ("K x channels", "fixed"), ("weights", "fixed")]
    columns += [("input", "fixed"), ("kernel", "fixed"), ("bytes", "fixed")]
    table = plain_table(*columns, gap=1)
    for layer in layers:
        why = _why_not_bits(layer)
        mark = f" ({reasons.index(why) + 1})" if why else ""
        table.add_row(
            printable(layer.name),
            f"{layer.k} x {layer.channels}",
            layer.weights,
            layer.activations,
            Text(_kernel_text(layer.kernel) + mark, style="yellow" if why else "green"),
            f"{human_bytes(layer.source_bytes)} -> {human_bytes(layer.packed_bytes)}",
        )
    console.print()
    if layers:
        show_table(console, table)
    else:
        console.print(Text("The model has no layer with weights."))
    items(console, "Not on bits", [(f"({i})", why) for i, why in enumerate(reasons, 1)])


def _kernel_text(symbol: str) -> str:
    """Return what a kernel computes and the instruction set it is for, short enough for a table."""
    found = next((kernel for kernel in load_kernels() if kernel.symbol == symbol), None)
    return f"{found.operation} {found.isa}" if found else printable(symbol)


def _why_not_bits(layer: LayerReport) -> str:
    """Return why a layer is not XNOR and popcount, or "" if it is."""
    if layer.reason or layer.weights == "binary":
        return layer.reason
    return "its weights are real"


def _is_known(names: str, why: str, known: set[tuple[str, str]]) -> bool:
    """Whether the list of layers says already what a refusal says."""
    return any(why == reason and names.startswith(layer) for layer, reason in known)


def _sizes(report: Report) -> list[tuple[str, str]]:
    layers = report.layers
    binary = sum(layer.weights == "binary" for layer in layers)
    on_bits = sum(not _why_not_bits(layer) for layer in layers)
    before, after = report.source_bytes, report.flash_bytes
    ratio = f" ({before / after:.1f}x)" if after else ""
    kinds = [("", f"  {kind:<15}{size:>13,}") for kind, size in report.constant_bytes.items()]
    least = report.arena_lower_bound
    return [
        ("layers", f"{len(layers)}: {binary} with binary weights, {on_bits} computed on bits"),
        ("flash", f"{after:,} bytes of constants; the model had {before:,}{ratio}"),
        *kinds,
        ("RAM", f"{report.arena_bytes:,} bytes of arena; no plan takes fewer than {least:,}"),
        ("work", f"{report.binary_macs:,} binary and {report.real_macs:,} real MACs a sample"),
    ]


def _show_remarks(console: Console, report: Report) -> None:
    items(console, "Assumed", [("-", text) for text in report.assumptions])
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
    line = Text("Next, prove that the C is your model: ")
    return line.append(safe(shlex.join(words)), style="bold")
