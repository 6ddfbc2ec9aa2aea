"""The two consoles that mmgen prints to: words from data are shown as they are, never obeyed.

A class, a path or a name may hold ``[red]``, ``:x:`` or an escape sequence. Nothing that is
printed here is markup; what should be bold or coloured is a :func:`styled` text; and characters
that would steer the terminal are shown as pictures of themselves.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

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


def styled(*parts: str | tuple[str, str]) -> Text:
    """Joins words to one text, some in a style: ``styled(("error:", "bold red"), " no file")``."""
    return Text.assemble(*parts)


class _Plain(Console):
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


stdout = _Plain()
"""For results."""

stderr = _Plain(stderr=True)
"""For progress, hints and errors."""


def progress(*columns: str, width: int = 40) -> "Progress":
    """Makes a bar that vanishes when done: what, bar, the columns, and the time left."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    texts = [TextColumn(column, markup=False) for column in ("{task.description}", *columns)]
    shown = (texts[0], BarColumn(width), *texts[1:], TimeRemainingColumn())
    return Progress(*shown, console=stderr, transient=True)


@contextmanager
def status(words: str) -> Iterator[Callable[[str], None]]:
    """Says what is being done, on a line that vanishes when it is; nothing where no one looks.

    Yields:
        What says something else from then on.
    """
    if not stderr.is_terminal:  # where a line cannot vanish
        yield lambda _other: None
        return
    with stderr.status(Text(printable(words))) as shown:
        yield lambda other: shown.update(Text(printable(other)))
