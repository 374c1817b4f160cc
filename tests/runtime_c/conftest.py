"""The runtime as a library, built with each compiler, plainly and for this very processor."""

from __future__ import annotations

import pytest

from tests.runtime_c.driver import WARNINGS, Library, build_library

# `native` is the trap: -O3 vectorises, -march=native brings fused multiply-add, and gcc contracts
# across statements in its default (gnu) mode.
BUILDS = {
    "portable": ("-O1", "-std=c99", *WARNINGS),
    "native": ("-O3", "-march=native", "-std=gnu99", *WARNINGS),
}


@pytest.fixture(scope="session", params=BUILDS)
def library(request: pytest.FixtureRequest, cc: str, tmp_path_factory) -> Library:
    return build_library(cc, tmp_path_factory.mktemp("runtime"), BUILDS[request.param])
