"""What ``mmgen encode`` and ``mmgen fill`` share: options of tables and of models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli.common import MOST, Settings, reachable
from mmgen.console import progress

if TYPE_CHECKING:
    from mmgen.run import Run

Config = Annotated[
    Path | None,
    typer.Option(
        help="A TOML file that says which columns of a table make which modality, as "
        "mmgen data table --show prints it. If left out, they are found by their headings.",
        callback=reachable,
    ),
]
Missing = Annotated[
    str,
    typer.Option(
        metavar="WORDS", help='Words that count as an empty cell, joined by commas: "NA,?".'
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="What stands between two cells: a character, or the word tab.",
        show_default="found out",
    ),
]
Encoding = Annotated[
    str, typer.Option(help="How a table's text is encoded, such as utf-8 or cp932.")
]
Draws = Annotated[
    int,
    typer.Option(
        min=0,
        max=MOST,
        help="How many z of each row predictions are averaged over; 0 takes the mean of z: faster, "
        "and surer than it should be.",
    ),
]


def missing_words(words: str) -> list[str]:
    """Returns the words that count as an empty cell."""
    return [word.strip() for word in words.split(",") if word.strip()]


def wanted_columns(config: Path | None) -> dict[str, dict[str, Any]]:
    """Returns which columns are whose, as a file says."""
    from mmgen.data.tables.columns import read_wanted

    return {} if config is None else read_wanted(config)


def loaded(context: typer.Context, run: Path, weights: str, device: str | None) -> "Run":
    """Loads a run, whose folder stays where it is."""
    from mmgen.files.holding import pinned
    from mmgen.run import load

    settings: Settings = context.obj
    context.with_resource(pinned(run))
    return load(
        run,
        weights=weights,
        device="auto" if device is None else device,
        plugin_modules=settings.plugins,
    )


@contextmanager
def share_done(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar of what is done of all: of rows, or of a table's bytes as a share.

    Args:
        what: Is done.
        unit: ``"rows"``, or ``"%"``.
    """
    shown = (
        "{task.completed:,}/{task.total:,} rows" if unit == "rows" else "{task.percentage:.0f} %"
    )
    with progress(shown) as bar:
        task = bar.add_task(what, total=0, visible=False)

        def done(count: int, total: int) -> None:
            bar.update(task, completed=count, total=total, visible=True)

        yield done
