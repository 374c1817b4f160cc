"""Numbers and untrusted text, made fit to print."""

from __future__ import annotations

import json

import pytest

from bnncc.cli.console import human_bytes, human_count, print_json, safe


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (147_456_000, "147 MB"),
        (4_321_000_000_000, "4321 GB"),
    ],
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (640, "640"),
        (9_949, "9.9 k"),
        (115_605_504, "116 M"),
        (4_100_000_000_000, "4.1 T"),
    ],
)
def test_human_count(count, text):
    assert human_count(count) == text


def test_safe_keeps_lines_and_tabs_and_escapes_the_rest():
    assert safe("a\n\tb\x1b[31m\x07\r\u202e\udc80é") == "a\n\tb\\x1b[31m\\x07\\r\\u202e\\udc80é"


def test_json_has_no_nan(capsys):
    print_json({"b": float("nan"), "a": [float("inf"), (1.5, -float("inf"))], "é": {"x": True}})
    text = capsys.readouterr().out
    assert json.loads(text) == {"b": None, "a": [None, [1.5, None]], "é": {"x": True}}
    assert text.isascii()
    assert list(json.loads(text)) == ["b", "a", "é"]
