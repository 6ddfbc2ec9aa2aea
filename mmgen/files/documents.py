"""Parses JSON and TOML into values that the program can hold, or raises what is wrong.

Checked beyond Python's parsers: depth, the number of keys, digits, half characters, keys that occur
twice, and text that takes them quadratic time.
"""

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from mmgen.brief import cut

DEPTH = 32
"""The most levels of a document: ours have five."""

KEYS = 10_000
"""The most keys of one table: a term for each of 2^K subsets is the longest that we write."""

_SURROGATES = re.compile("[\ud800-\udfff]")

_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"(?:^|[\[{{,])[ \t]*+{_PART}(?:\.[ \t]*+{_PART}){{{DEPTH}}}", re.MULTILINE)
"""A dotted key with more parts than a document has levels: its time is quadratic in them."""


def from_json(text: str, *, finite: bool = True, keys: int = KEYS) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        text: The text.
        finite: Refuses NaN and Infinity, which Python's JSON has beyond the standard.
        keys: The most keys of one table.

    Raises:
        ValueError: If it is none. The message describes the fault.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant if finite else float,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    _check(value, finite, keys)
    if not isinstance(value, dict):
        raise ValueError("holds no JSON object")
    return value


def from_toml(text: str) -> dict[str, Any]:
    """Reads a TOML document.

    Raises:
        ValueError: If it is none. The message describes the fault.
    """
    if found := _LONG_KEY.search(text):
        raise ValueError(f"holds the key {short(found[0])} of more than {DEPTH} parts")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is not valid TOML: {error}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:  # of Python: a number of thousands of digits, the 30th of February
        raise ValueError(f"holds what cannot be: {error}") from None
    _check(table, finite=True, keys=KEYS)
    return table


def first_of(error: ValidationError) -> str:
    """Returns pydantic's first error in one line: ``"counts.train: should be greater than 0"``."""
    first, more = error.errors(include_url=False)[0], error.error_count() - 1
    key = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        message = "missing"
    elif not isinstance(first["input"], Mapping):
        message = f"{message}, not {short(first['input'])}"
    return f"{short(key, str) + ': ' if key else ''}{message}" + (
        f" (and {more:,} more)" if more else ""
    )


def short(value: object, write: Callable[[Any], str] = repr) -> str:
    """Returns a value as text for people, without its end if it is long."""
    try:
        text = write(value)
    except ValueError:  # a whole number of thousands of digits
        return "so long a number"
    return cut(text, 80)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"holds the key {short(key)} twice")
        table[key] = value
    return table


def _integer(text: str) -> int:
    if len(text) > 20:  # quadratic in the digits, and refused by Python from some thousands on
        raise ValueError(f"holds a number of {len(text):,} digits")
    return int(text)


def _number(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"holds {short(text, str)}, which is no finite number")
    return value


def _constant(word: str) -> float:
    raise ValueError(f"holds {word}, which is no number")


def _check(value: Any, finite: bool, keys: int) -> None:
    """Checks that a document's depth, tables, numbers and words are within the limits."""
    level = [value]
    for _ in range(DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if len(item) > keys:
                    raise ValueError(f"holds a table of {len(item):,} keys; {keys:,} are the most")
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                if not item.isascii() and _SURROGATES.search(item):
                    raise ValueError(f"holds half a character in {short(item)}")
            elif isinstance(item, float):
                if finite and not math.isfinite(item):
                    raise ValueError(f"holds {item}, which is no finite number")
            elif isinstance(item, int) and not -(2**63) <= item < 2**63:
                raise ValueError("holds a whole number beyond 64 bits")
        if not below:
            return
        level = below
    raise ValueError("is nested too deeply")
