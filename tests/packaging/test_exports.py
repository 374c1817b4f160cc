"""The public surface: what `import bnncc` offers and costs, and what lies at the top level."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TOP_LEVEL = {
    *(".ci", ".clang-format", ".editorconfig", ".gitattributes", ".github", ".gitignore"),
    *("CHANGELOG.md", "LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml"),
    *("bnncc", "examples", "runtime_c", "templates", "tests"),
}

# A fresh interpreter: this one has imported half the world. Submodules that the import of the
# package binds as attributes are not part of the surface unless __all__ names them.
SURFACE = """
import json, sys, types, bnncc

def public(name):
    value = getattr(bnncc, name)
    submodule = isinstance(value, types.ModuleType) and value.__name__.startswith("bnncc.")
    return not name.startswith("_") and name != "annotations" and not submodule

print(json.dumps({
    "all": list(bnncc.__all__),
    "public": [name for name in dir(bnncc) if public(name) or name in bnncc.__all__],
    "missing": [name for name in bnncc.__all__ if not hasattr(bnncc, name)],
}))
"""


def run_python(code: str) -> str:
    """Return what a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def sources() -> list[str]:
    """Return every file of the checkout that is committed or could be, relative to its root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone: asks git which files belong to the repository")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).exists())


def test_all_is_exactly_the_public_names() -> None:
    surface = json.loads(run_python(SURFACE))
    assert surface["missing"] == []
    assert sorted(surface["all"]) == sorted(set(surface["all"]))
    assert sorted(surface["all"]) == sorted(surface["public"])


@pytest.mark.parametrize("library", ["torch", "onnx", "onnxruntime", "onnxscript", "tflite"])
def test_import_does_not_load(library: str) -> None:
    assert run_python(f"import sys, bnncc; print({library!r} in sys.modules)") == "False\n"


def test_every_type_ignore_says_why() -> None:
    ignore = re.compile(r"#\s*type:\s*ignore")
    reasoned = re.compile(r"#\s*type:\s*ignore\[[\w\-, ]+\]\s+#\s*\S{3,}")
    bare = [
        f"{name}:{number}: {line.strip()}"
        for name in sources()
        if name.endswith(".py")
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        if ignore.search(line) and not reasoned.search(line)
    ]
    assert bare == []


def test_top_level_holds_what_it_should() -> None:
    assert {Path(name).parts[0] for name in sources()} == TOP_LEVEL
