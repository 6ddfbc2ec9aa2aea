"""What ``mmgen encode`` and ``mmgen fill`` share: options of tables and of models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mmgen.cli.common import MOST, reachable
from mmgen.console import progress

Config = Annotated[
    Path | None,
    typer.Option(
        help="A TOML file that says which columns of a table make which modality, as "
        "mmgen data table --show prints it. If left out, they are found by their headings.",
        callback=reachable,
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
    int | None,
    typer.Option(
        min=0,
        max=MOST,
        help="How many z of each row predictions are averaged over; 0 takes the mean of z: faster, "
        "and surer than it should be.",
        show_default="16; 512 given no more than classes or a few attributes",
    ),
]


def wanted_columns(config: Path | None) -> dict[str, dict[str, Any]]:
    """Returns which columns are whose, as a file says."""
    from mmgen.data.tables.columns import read_wanted

    return {} if config is None else read_wanted(config)


@contextmanager
def share_done(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar of the share that is done, of rows or of a table's bytes."""
    with progress("{task.percentage:.0f} %") as bar:
        task = bar.add_task(what, total=0, visible=False)

        def done(count: int, total: int) -> None:
            bar.update(task, completed=count, total=total, visible=True)

        yield done
