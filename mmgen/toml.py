"""TOML written: values and comments that say the same when they are read, whatever is in them."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any


def key(word: str) -> str:
    """Writes a key, in quotes where it needs them."""
    return word if re.fullmatch(r"[A-Za-z0-9_-]+", word) else value(word)


def value(content: Any) -> str:
    r"""Writes a value on one line; characters that do not show are escaped.

    Half characters, of file names that are no UTF-8, cannot be told in TOML: they become U+FFFD.

    Examples:
        >>> value({"name": 'a "b"\n', "sizes": (1, 2.5), "on": True})
        '{name = "a \\"b\\"\\n", sizes = [1, 2.5], on = true}'
        >>> value(["\u200e", 1e-8, float("inf")])
        '["\\u200E", 1e-08, inf]'
    """
    if isinstance(content, Mapping):
        pairs = [(str(k), v) for k, v in content.items() if v is not None]
        return "{" + ", ".join(f"{key(k)} = {value(v)}" for k, v in pairs) + "}"
    if isinstance(content, list | tuple):
        return "[" + ", ".join(map(value, content)) + "]"
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)  # inf and nan, where JSON has Infinity and NaN
    text = json.dumps(content, ensure_ascii=False, default=str)
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


def comment(text: str) -> str:
    r"""Writes words as a comment of one line.

    Examples:
        >>> comment("Z, the size\n    of z.")
        '# Z, the size of z.'
    """
    words = " ".join(text.split())
    return "# " + "".join(c if c.isprintable() else "?" for c in words)


def _escape(number: int) -> str:
    if 0xD800 <= number < 0xE000:
        number = 0xFFFD
    return f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"
