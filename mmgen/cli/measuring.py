"""What ``mmgen evaluate`` and ``mmgen coherence`` share: options, the run, the bar, the notes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen.cli.common import load_run, storable
from mmgen.console import progress, stderr

if TYPE_CHECKING:
    from mmgen.run import Run

Targets = Annotated[
    list[str] | None,
    typer.Option(help="NAME ...: what to predict, together. If left out, each modality by itself."),
]
Given = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME ...: what to predict it from. If left out, every subset of the others."
    ),
]
SplitName = Annotated[
    str, typer.Option(help="Which rows of the data set: train, validation or test.")
]
Rows = Annotated[
    int | None,
    typer.Option(
        min=1, max=2**31 - 1, help="Measure only so many rows, evenly spread over the split."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(help="The folder of another data set to measure on.", callback=storable),
]
Chunk = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=2**31 - 1,
        help="How many z to decode at once: fewer take less memory.",
        show_default="1000; 10000 on CUDA",
    ),
]


def opened(
    context: typer.Context,
    run: Path,
    weights: str,
    device: str | None,
    file: Path | None,
    formats: Iterable[str],
) -> "Run":
    """Loads a run, whose folder stays where it is; checks first that the tables can be written."""
    from mmgen.tables import checked_format

    if file is not None:
        checked_format(file, formats)
    return load_run(context, run, weights, device)


@contextmanager
def rows_done(what: str) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """Shows a bar of rows.

    Yields:
        What puts other words before the bar, and what takes the rows done and all of them.
    """
    with progress("{task.completed:,}/{task.total:,} rows") as bar:
        task = bar.add_task(what, total=0, visible=False)

        def done(count: int, total: int) -> None:
            bar.update(task, description=what, completed=count, total=total, visible=True)

        yield lambda words: bar.update(task, description=words), done


def tell(notes: Iterable[str]) -> None:
    """Prints what the user should know beside the numbers."""
    for note in notes:
        stderr.print(f"note: {note}")
