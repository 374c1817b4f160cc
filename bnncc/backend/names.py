"""Names from the model are untrusted: identifiers and comments that cannot break the C."""

from __future__ import annotations

import re

__all__ = ["comment", "identifier"]

_LONGEST_IDENTIFIER = 40
_LONGEST_COMMENT = 120

# A file NAME.h beside the model's C can be found in the place of the system's <NAME.h>.
_HEADERS = frozenset(
    {
        "alloca",
        "assert",
        "complex",
        "ctype",
        "endian",
        "errno",
        "features",
        "fenv",
        "float",
        "inttypes",
        "iso646",
        "limits",
        "locale",
        "math",
        "memory",
        "setjmp",
        "signal",
        "stdalign",
        "stdarg",
        "stdatomic",
        "stdbool",
        "stddef",
        "stdint",
        "stdio",
        "stdlib",
        "stdnoreturn",
        "string",
        "strings",
        "tgmath",
        "threads",
        "time",
        "uchar",
        "unistd",
        "wchar",
        "wctype",
    }
)

_RESERVED = frozenset(
    {
        "char8_t",
        "char16_t",
        "char32_t",
        "co_await",
        "co_return",
        "co_yield",
        "alignas",
        "alignof",
        "and",
        "and_eq",
        "asm",
        "atomic",
        "auto",
        "bitand",
        "bitor",
        "bool",
        "break",
        "case",
        "catch",
        "char",
        "class",
        "compl",
        "complex",
        "concept",
        "const",
        "consteval",
        "constexpr",
        "constinit",
        "const_cast",
        "continue",
        "decltype",
        "default",
        "delete",
        "do",
        "double",
        "dynamic_cast",
        "else",
        "enum",
        "explicit",
        "export",
        "extern",
        "false",
        "float",
        "for",
        "friend",
        "goto",
        "if",
        "imaginary",
        "inline",
        "int",
        "long",
        "main",
        "mutable",
        "namespace",
        "new",
        "noexcept",
        "noreturn",
        "not",
        "not_eq",
        "nullptr",
        "operator",
        "or",
        "or_eq",
        "private",
        "protected",
        "public",
        "register",
        "reinterpret_cast",
        "requires",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "static_assert",
        "static_cast",
        "struct",
        "switch",
        "template",
        "this",
        "thread_local",
        "throw",
        "true",
        "try",
        "typedef",
        "typeid",
        "typename",
        "typeof",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "wchar_t",
        "while",
        "xor",
        "xor_eq",
        "linux",
        "unix",
        "errno",
        "stdin",
        "stdout",
        "stderr",
        "null",
    }
)


def identifier(name: str) -> str:
    """Return an identifier in C and C++ like `name`: lower case, short, not reserved."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:_LONGEST_IDENTIFIER].strip("_")
    taken = plain in _RESERVED or plain in _HEADERS or plain.startswith("bnn_")
    if not plain or plain[0].isdigit() or taken:
        return f"model_{plain}" if plain else "model"
    return plain


def comment(text: str) -> str:
    """Return `text` as one line that can stand in a C comment.

    Printable ASCII only, nothing that opens or closes a comment, continues a line or forms a
    trigraph; at most 120 characters.
    """
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    # The backslash first: what replaces it must not form one of the others.
    for unsafe, safe in (("\\", "|"), ("*/", "* /"), ("/*", "/ *"), ("??", "?.")):
        while unsafe in plain:
            plain = plain.replace(unsafe, safe)
    return plain if len(plain) <= _LONGEST_COMMENT else f"{plain[: _LONGEST_COMMENT - 3]}..."
