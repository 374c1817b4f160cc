"""Finding templates/ and runtime_c/: in a checkout, in an installed package, in a broken one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnncc import resources
from bnncc.errors import InternalError

ROOT = Path(__file__).resolve().parents[2]


def test_checkout_uses_the_siblings_of_the_package() -> None:
    assert resources.templates_dir() == ROOT / "templates"
    assert resources.runtime_dir() == ROOT / "runtime_c"


def test_installed_package_uses_its_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "bnncc"
    for folder in (package / "_data", tmp_path):  # siblings too: they must not win
        (folder / "templates").mkdir(parents=True)
        (folder / "runtime_c").mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.templates_dir() == package / "_data" / "templates"
    assert resources.runtime_dir() == package / "_data" / "runtime_c"


@pytest.mark.parametrize("installed", [False, True])
def test_missing_folder_is_reported_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    package = tmp_path / "bnncc"
    package.mkdir()
    if installed:
        (package / "_data").mkdir()
        (tmp_path / "templates").mkdir()  # must not stand in for the installed one
    monkeypatch.setattr(resources, "_PACKAGE", package)
    expected = (package / "_data" if installed else tmp_path) / "templates"
    with pytest.raises(InternalError) as caught:
        resources.templates_dir()
    assert str(caught.value) == (
        "error[BNN091]: the folder templates/ is missing from this installation of bnncc\n"
        f"  where: {expected}\n"
        "  why:   the package was copied or installed without its data files\n"
        "  help:  install it again: pip install --force-reinstall bnncc"
    )
