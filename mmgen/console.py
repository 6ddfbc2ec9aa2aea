"""The two consoles that mmgen prints to: words from data are shown as they are, never obeyed.

A class, a path or a name may hold ``[red]``, ``:x:`` or an escape sequence. Nothing that is
printed here is markup; what should be bold or coloured is a :func:`styled` text; and characters
that would steer the terminal are shown as pictures of themselves.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text


def styled(*parts: str | tuple[str, str]) -> "Text":
    """Joins words to one text, some in a style: ``styled(("error:", "bold red"), " no file")``."""
    from rich.text import Text

    return Text.assemble(*parts)


class _OnFirstUse:
    """A console that is made when something is printed: to import rich takes as long as help."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    @cached_property
    def _made(self) -> "Console":
        from mmgen.terminal import Plain

        return Plain(**self._options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)

    def hush(self, quiet: bool) -> None:
        self._made.quiet = quiet

    def __enter__(self) -> "Console":  # special methods are looked up on the class
        return self._made.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._made.__exit__(*error)


stdout: "Console" = _OnFirstUse()  # type: ignore[assignment]
"""For results."""

stderr: "Console" = _OnFirstUse(stderr=True)  # type: ignore[assignment]
"""For progress, hints and errors."""


def hush(quiet: bool) -> None:
    """Has both consoles print nothing from now on, or print again."""
    for console in (stdout, stderr):
        console.hush(quiet)  # type: ignore[attr-defined]


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
    from mmgen.terminal import printable

    if not stderr.is_terminal:  # where a line cannot vanish
        yield lambda _other: None
        return
    with stderr.status(styled(printable(words))) as shown:
        yield lambda other: shown.update(styled(printable(other)))
