"""What is shown on a terminal, as it is: no word of data steers it, or is markup."""

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(words: str) -> str:
    r"""Returns words without what would steer a terminal: control and direction characters.

    Tabs and line breaks stay; of the others, one character becomes one, so that columns stay
    aligned. Half characters, of file names that are no UTF-8, become question marks.

    Examples:
        >>> printable("a\x1b[31mb\u202ec")
        'a␛[31mb�c'
    """
    return _SURROGATES.sub("?", _STEERING.sub(_picture, words))


def _picture(match: re.Match[str]) -> str:
    number = ord(match[0])
    return chr(0x2400 + number) if number < 0x20 else "␡" if number == 0x7F else "\ufffd"


class Plain(Console):
    """A console without markup, emoji and highlighting, on which no word steers the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(soft_wrap=True, highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Makes a text of words, whose width is that of what will be shown."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Renders what has a text of its own, which :meth:`render_str` did not see."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)
