"""Render a Program through the Jinja templates. Reproducible: no time, host or path in the text."""

from __future__ import annotations

import functools

import jinja2

from bnncc import resources
from bnncc.backend.literals import initialiser
from bnncc.backend.program import Program

__all__ = ["render", "render_header", "render_source"]


def render_header(program: Program) -> str:
    """Return the text of model.h."""
    return render("model.h.j2", program)


def render_source(program: Program) -> str:
    """Return the text of model.c."""
    return render("model.c.j2", program)


def indented(code: str) -> str:
    """Return the lines of a function's body indented by the braces that they stand in.

    Templates nest loops that may or may not be there; in them, only what a line says counts.
    """
    lines: list[str] = []
    depth = 1
    for line in filter(None, map(str.strip, code.splitlines())):
        outside = depth - line.startswith("}")
        lines.append(f"{'  ' * outside}{line}\n")
        depth += line.count("{") - line.count("}")
    return "".join(lines)


def render(template: str, program: Program) -> str:
    """Return the text of a template under templates/ for a program."""
    return _environment().get_template(template).render(program=program)


@functools.cache
def _environment() -> jinja2.Environment:
    """Return what templates are parsed and run by; it keeps them parsed."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.templates_dir()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # the output is C; names pass through backend.names
    )
    environment.filters["initialiser"] = initialiser
    environment.filters["indented"] = indented
    return environment
