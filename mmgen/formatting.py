"""Numbers and names as people read them, in one look everywhere."""

import math
from collections.abc import Sequence


def number(value: float, digits: int = 4, *, decimals: int = 5, trim: bool = True) -> str:
    """Writes a number to read: a real minus, thousands apart, an exponent only from 10^15 on.

    Args:
        value: The number.
        digits: The significant ones; more of a whole part that has more.
        decimals: At most so many.
        trim: Whether zeros at the end are left out; in a column they tell how exact it is.

    Examples:
        >>> [number(v) for v in (-164.3216, 0.00012345, 123456.7, 0.0, -1e308, float("nan"))]
        ['−164.3', '0.00012', '123,457', '0', '−1.0e+308', 'not finite']
        >>> number(-85.3), number(-85.3, trim=False)
        ('−85.3', '−85.30')
    """
    if not math.isfinite(value):
        return "not finite"
    if abs(value) >= 1e15:  # hundreds of digits would hide all else
        return f"{value:.1e}".replace("-", "−")
    before = math.floor(math.log10(abs(value))) + 1 if value else 1
    text = f"{value:,.{min(max(digits - before, 0), decimals)}f}"
    if trim and "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−") if text not in ("-0", "0") else "0"


def amount(value: float) -> str:
    """Writes how many parameters there are, or the like: ``"3.41 G"``.

    Examples:
        >>> [amount(n) for n in (64, 1330688, 2662400000)]
        ['64', '1.33 M', '2.66 G']
    """
    for limit, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.2f}{letter}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Writes an amount of bytes: ``"3.4 GiB"``.

    Examples:
        >>> [size(n) for n in (512, 5_000_000, 3 * 2**40)]
        ['512 B', '4.8 MiB', '3.0 TiB']
    """
    for power, letter in enumerate(("TiB", "GiB", "MiB", "KiB")):
        if value >= (unit := 1024 ** (4 - power)):
            return f"{value / unit:,.1f} {letter}"
    return f"{value:.0f} B"


def duration(seconds: float) -> str:
    """Writes how long something took.

    Examples:
        >>> [duration(s) for s in (4.2, 95, 3723)]
        ['4.2 s', '1 min 35 s', '1 h 2 min']
    """
    if not math.isfinite(seconds):
        return "not finite"
    if seconds < 60:
        return f"{number(seconds, 2)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def counted(count: int, one: str, several: str = "") -> str:
    """Writes how many: ``"1 epoch"``, ``"2 epochs"``."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def joined(words: Sequence[str]) -> str:
    """Joins names as in a sentence: ``"image, label and attributes"``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
