"""Names from the model are untrusted: identifiers and comments that cannot break the C."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bnncc.backend.names import comment, identifier
from tests.backend.toolchain import run

_C = """auto break case char const continue default do double else enum extern float for goto if
    inline int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while _Bool _Complex _Imaginary _Alignas _Alignof _Atomic _Generic
    _Noreturn _Static_assert _Thread_local"""
_CPP = """alignas alignof and and_eq asm bitand bitor bool catch class compl concept const_cast
    consteval constexpr constinit decltype delete dynamic_cast explicit export false friend mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public
    reinterpret_cast requires static_assert static_cast template this thread_local throw true try
    typeid typename typeof using virtual wchar_t xor xor_eq"""
_MACROS = "main errno stdin stdout stderr NULL linux unix"
_KEYWORDS = [name for names in (_C, _CPP, _MACROS) for name in names.split()]
_SINCE_CPP11 = ["char8_t", "char16_t", "char32_t", "co_await", "co_return", "co_yield"]

# What people call model files, and what attackers do.
_NAMES = [
    *("", " ", "_", "__", "9", "42nd", "-", ".", "mnist.v2", "ResNet-18", "a b", "é", "模型", "\0"),
    *("BNN_RESTRICT", "bnn_mul", "bnn_", "model", "x" * 10_000, "_" * 50 + "x", "x" * 39 + "__y"),
    *("*/ int evil; /*", 'a"b', "a\nb", "a\\", "??/", "%s", "../../etc/passwd", "CON", "İ", "ß"),
]

_DIALECTS = [
    *(("c", dialect) for dialect in ("c99", "c11", "gnu17")),
    *(("c++", dialect) for dialect in ("c++17", "gnu++20")),
]


def _compile_declarations(compiler: str, folder, names: list[str]) -> None:
    """Compile a file that declares a variable of each name, in every dialect."""
    includes = "".join(f"#include <{name}.h>\n" for name in ("float", "stddef", "stdint"))
    functions = "".join(
        f"int f{i}(void);\nint f{i}(void) {{ int {name} = {i}; return {name}; }}\n"
        for i, name in enumerate(names)
    )
    source = folder / "names.c"
    source.write_text(includes + functions, encoding="utf-8")
    for language, dialect in _DIALECTS:
        run(compiler, "-fsyntax-only", "-x", language, f"-std={dialect}", "-Wall", source)


def assert_form(name: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,48}", name)
    assert not name.startswith("bnn_")  # the runtime's
    assert "__" not in name  # the implementation's, in C++


@pytest.mark.parametrize("name", [*_KEYWORDS, *_NAMES])
def test_identifier_has_the_form_of_one(name: str) -> None:
    assert_form(identifier(name))


@given(st.text(max_size=60))
def test_identifier_has_the_form_of_one_for_any_text(name: str) -> None:
    assert_form(identifier(name))


@given(st.text(max_size=60))
def test_identifier_of_an_identifier_is_itself(name: str) -> None:
    assert identifier(identifier(name)) == identifier(name)


def test_identifiers_compile_in_every_dialect(cc: str, tmp_path) -> None:
    names = [identifier(name) for name in (*_KEYWORDS, *_NAMES)]
    _compile_declarations(cc, tmp_path, names)


@pytest.mark.parametrize("name", _SINCE_CPP11)
def test_identifiers_are_no_keywords_of_newer_cpp(any_cc: str, tmp_path, name: str) -> None:
    _compile_declarations(any_cc, tmp_path, [identifier(name)])


def test_any_identifier_compiles(any_cc: str, tmp_path) -> None:
    texts = st.lists(st.text(max_size=60), min_size=100, max_size=100)

    @settings(max_examples=2)
    @given(texts)
    def compile_all(names: list[str]) -> None:
        _compile_declarations(any_cc, tmp_path, [identifier(name) for name in names])

    compile_all()


# --- Comments -------------------------------------------------------------------------------------

_COMMENTS = [
    *("", "conv1", "*/", "/*", "*//*", "**//", "/*/*/", "\\", "a\\\n", "??/", "????/", "*?\\?/"),
    *(
        "\n*/",
        "\r\n",
        "\t",
        "é/*",
        "\x00",
        "\u2028*/",
        "/" * 300,
        "*" * 300,
        "?" * 300,
        "x" * 10_000,
    ),
    *("*\u200b/", "*/" * 5000, "a" * 116 + "*/", "a" * 117 + "*/", "a" * 116 + "\\\\"),
]
# What replaces a backslash must not form a comment's end or another's start.
_INJECTIONS = [
    "*\\",
    "\\*",
    "*\\ int injected(void); \\*",
    "a *\\\n#error injected",
    "/\\*",
    "**\\\\",
]


def _is_safe(line: str) -> bool:
    unsafe = ("*/", "/*", "\\", "??", "\n", "\r")
    return (
        line.isascii() and line.isprintable() | (line == "") and not any(u in line for u in unsafe)
    )


@pytest.mark.parametrize("text", _COMMENTS)
def test_comment_is_one_harmless_line(text: str) -> None:
    assert _is_safe(comment(text))
    assert len(comment(text)) <= 120


_slashes = st.text(alphabet="*/\\?\n ax", max_size=12)


@given(st.one_of(_slashes, st.text(max_size=300)))
@example("*\\")
def test_any_comment_is_one_harmless_line(text: str) -> None:
    assert _is_safe(comment(text))
    assert len(comment(text)) <= 120


@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N"]), max_size=120))
def test_harmless_text_is_kept(text: str) -> None:
    assert comment(text) == text


def _commented(texts: list[str]) -> str:
    """Return C as the templates print it, where a comment that ends early or late breaks it."""
    functions = [
        f"/* {comment(text)}\n * {comment(text)}\n * {comment(text)} */\n"
        f"int f{i}(void);\nint f{i}(void) {{ /* {comment(text)} */ return {i}; }}\n"
        for i, text in enumerate(texts)
    ]
    last = len(texts) - 1
    return "".join(functions) + f"int main(void) {{ return f{last}() != {last}; }}\n"


def _compile_comments(compiler: str, folder, texts: list[str]) -> None:
    source = folder / "comments.c"
    source.write_text(_commented(texts), encoding="utf-8")
    flags = ("-std=c99", "-Wall", "-Wextra", "-Wcomment", "-Wtrigraphs", "-Werror")
    run(compiler, *flags, source, "-o", folder / "comments")
    run(folder / "comments")


def test_comments_compile(cc: str, tmp_path) -> None:
    _compile_comments(cc, tmp_path, _COMMENTS)


@pytest.mark.parametrize("text", _INJECTIONS)
def test_no_comment_lets_code_in(any_cc: str, tmp_path, text: str) -> None:
    assert _is_safe(comment(text))
    _compile_comments(any_cc, tmp_path, [text])
