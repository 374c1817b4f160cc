"""Where the C and the templates that bnncc ships are to be found.

The only module that knows. In a checkout `templates/` and `runtime_c/` are siblings of the package;
in an installed one they are inside it, under `bnncc/_data/`. The search starts from this file, and
never from site-packages: an editable install leaves a copy there that nothing keeps up to date.
"""

from __future__ import annotations

from pathlib import Path

from bnncc.errors import InternalError

__all__ = ["runtime_dir", "templates_dir"]

_PACKAGE = Path(__file__).resolve().parent


def templates_dir() -> Path:
    """Return the folder of the Jinja templates.

    Raises:
        InternalError: the installation lacks it.
    """
    return _locate("templates")


def runtime_dir() -> Path:
    """Return the folder of the C that generated code stands on.

    Raises:
        InternalError: the installation lacks it.
    """
    return _locate("runtime_c")


def _locate(name: str) -> Path:
    """Return the folder `name`: inside the package once installed, beside it in a checkout."""
    installed = _PACKAGE / "_data"
    folder = (installed if installed.is_dir() else _PACKAGE.parent) / name
    if not folder.is_dir():
        raise InternalError(
            "BNN091",
            f"the folder {name}/ is missing from this installation of bnncc",
            where=str(folder),
            why="the package was copied or installed without its data files",
            help="install it again: pip install --force-reinstall bnncc",
        )
    return folder
