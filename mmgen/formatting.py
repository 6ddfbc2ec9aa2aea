"""Numbers and names as the page writes them."""

import math
from collections.abc import Sequence


def number(value: float, digits: int = 4) -> str:
    """Writes a number to read: a real minus, thousands apart, an exponent only from 10^15 on.

    Examples:
        >>> [number(v) for v in (-164.3216, 0.00012345, 123456.7, 0.0, -1e308, float("nan"))]
        ['−164.3', '0.00012', '123,457', '0', '−1.0e+308', 'not finite']
    """
    if not math.isfinite(value):
        return "not finite"
    if abs(value) >= 1e15:  # hundreds of digits would hide the rest of the page
        return f"{value:.1e}".replace("-", "−")
    before = math.floor(math.log10(abs(value))) + 1 if value else 1
    decimals = min(max(digits - before, 0), 5)
    text = f"{value:,.{decimals}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−") if text not in ("-0", "0") else "0"


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
