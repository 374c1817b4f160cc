"""What every test may ask for, and the rule that nothing is skipped in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
IN_CI = bool(os.environ.get("CI"))

# The compilers every piece of C is built with. A machine that lacks one skips its half.
HOST_COMPILERS = ("gcc", "clang")

# Deadlines measure the machine's other tenants. CI draws the same examples every time, so that a
# red run is red for everyone; a developer's machine looks further with each run.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", _COMMON, derandomize=True, print_blob=True, max_examples=200)
settings.register_profile("dev", _COMMON, max_examples=50)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if IN_CI else "dev"))


# --- Nothing is skipped in CI ---------------------------------------------------------------------
# A skipped test reads like a passed one in a log, so a missing cross compiler could hide for
# months. Where CI is set, a skip is a failure. Expected failures (xfail) are not skips.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip in a test or its fixtures into a failure when in CI."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module (pytest.importorskip) into a failure when in CI."""
    report = yield
    if IN_CI and report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"skipped, and in CI nothing may be: {reason}"


# --- Data that is not in the repository -----------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs `../shared` where BNNCC_NO_SHARED says that there is none.

    Only .ci/run sets it, and says so: without it such tests skip, which CI does not accept.
    """
    if not os.environ.get("BNNCC_NO_SHARED"):
        return
    without = [item for item in items if "shared_dir" in getattr(item, "fixturenames", ())]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of data sets and models beside the checkout: too large, or not ours, to commit."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared (MNIST and collected models), which is not in the repository")
    return folder


# --- Compilers ------------------------------------------------------------------------------------


@pytest.fixture(scope="session", params=HOST_COMPILERS)
def cc(request: pytest.FixtureRequest) -> str:
    """Each compiler in turn: the test runs once with every one of HOST_COMPILERS."""
    return require_tool(request.param)


@pytest.fixture(scope="session")
def any_cc() -> str:
    """One host compiler, for tests to which it does not matter which."""
    found = next(filter(None, map(shutil.which, ("cc", *HOST_COMPILERS))), None)
    if found is None:
        pytest.skip("needs a C compiler: cc, gcc or clang")
    return found


def require_tool(name: str) -> str:
    """Return the path of the program `name`, or skip the test (which fails it in CI)."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}, which is not installed")
    return path


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """`tool("arm-none-eabi-gcc")` is that program's path; where it is missing, the test skips."""
    return require_tool
