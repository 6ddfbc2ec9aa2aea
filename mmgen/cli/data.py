"""``mmgen data``: write a data set, or show what one holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli import data_card, data_table
from mmgen.cli.common import Force, Seed, reachable, storable
from mmgen.console import progress

app = typer.Typer(help="Write a data set, or show what one holds.", no_args_is_help=True)

Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="The folder to write the data set to.", callback=storable),
]
Train = Annotated[int, typer.Option(min=1, max=2**40, help="How many rows to draw for training.")]
Validation = Annotated[
    int, typer.Option(min=1, max=2**40, help="How many rows to draw for validation.")
]
Test = Annotated[int, typer.Option(min=1, max=2**40, help="How many rows to draw for tests.")]


@app.command()
def glyphs(
    context: typer.Context,
    out: Out,
    train: Train = 40_000,
    validation: Validation = 4_000,
    test: Test = 4_000,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Draw letters and digits in fonts that matplotlib ships; nothing is downloaded."""
    from mmgen.data.sources import glyphs as source
    from mmgen.data.store import ensure_absent

    ensure_absent(out, force)
    with progress("{task.completed:,} of {task.total:,}") as bar:
        task = bar.add_task("drawing glyphs", total=train + validation + test)
        modalities, splits = source.glyphs(
            train,
            validation,
            test,
            seed,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    about = f"Letters and digits drawn from the fonts that matplotlib ships, seed {seed}."
    data_card.write(out, "glyphs", about, modalities, splits, context.obj, force=force)


def _idx_command(name: str) -> Callable[..., None]:
    def command(
        context: typer.Context,
        source: Annotated[
            Path,
            typer.Argument(help="The folder that torchvision downloads to.", callback=reachable),
        ],
        out: Out,
        download: Annotated[
            bool, typer.Option("--download", help="Download the files that are missing.")
        ] = False,
        validation: Annotated[
            int,
            typer.Option(
                min=1, max=59_999, help="Rows of the training split to hold out for validation."
            ),
        ] = 10_000,
        force: Force = False,
    ) -> None:
        from mmgen.data.sources.torchvision import idx_dataset
        from mmgen.data.store import ensure_absent

        ensure_absent(out, force)
        modalities, splits = idx_dataset(name, source, download=download, validation=validation)
        about = (
            f"{name} as torchvision reads it: the picture, its class, and attributes measured "
            "from the picture."
        )
        data_card.write(out, name, about, modalities, splits, context.obj, force=force)

    return command


for _name in ("mnist", "fashion-mnist", "kmnist"):
    app.command(
        _name,
        help=f"Read {_name} as torchvision stores it; attributes are measured from the pictures.",
    )(_idx_command(_name))

app.command()(data_table.table)
app.command()(data_table.folder)


@app.command()
def show(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The data set's folder.", callback=storable)],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and compare it with its hash.")
    ] = False,
) -> None:
    """Show what a data set holds: modalities, counts, shares of each value, how it was made."""
    from mmgen.data.store import read_dataset

    dataset = read_dataset(folder)
    if verify:
        dataset.verify()
    data_card.show(dataset, context.obj)
