"""What the verbs share: global options and the consoles they print to."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

stdout = Console(soft_wrap=True, highlight=False)
"""For results."""

stderr = Console(stderr=True, soft_wrap=True, highlight=False)
"""For progress, hints and errors."""


@dataclass
class Settings:
    """The options that stand before the verb.

    Attributes:
        plugins: One-file plugins: module names or paths of ``.py`` files.
        debug: Whether errors show their traceback.
    """

    plugins: list[str] = field(default_factory=list)
    debug: bool = False


Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", show_default="auto")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def terminable() -> Iterator[None]:
    """Lets SIGTERM stop as Ctrl-C does."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def progress(*columns: str) -> "Progress":
    """Makes a bar that vanishes when done: what, bar, the columns, and the time left."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    texts = [TextColumn(column) for column in columns]
    first = (TextColumn("{task.description}"), BarColumn())
    return Progress(*first, *texts, TimeRemainingColumn(), console=stderr, transient=True)
