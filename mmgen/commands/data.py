"""``mmgen data``: write a data set, or show what one holds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.commands.common import Force, progress, stdout

if TYPE_CHECKING:
    from torch import Tensor

app = typer.Typer(help="Write a data set, or show what one holds.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", "-o", help="The data set's folder.")]
Seed = Annotated[int, typer.Option(help="Fixes all that is random.")]
Rows = Annotated[int, typer.Option(min=0, help="Rows of this split.")]


@app.command()
def glyphs(
    out: Out,
    train: Rows = 40_000,
    validation: Rows = 4_000,
    test: Rows = 4_000,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Draw letters and digits in fonts that matplotlib ships; nothing is downloaded."""
    from mmgen.data import glyphs as source
    from mmgen.data.store import check_free

    check_free(out, force)
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
    _write(out, "glyphs", about, modalities, splits, force)


def _idx_command(name: str) -> Callable[..., None]:
    def command(
        source: Annotated[Path, typer.Argument(help="The root of torchvision's layout.")],
        out: Out,
        download: Annotated[
            bool, typer.Option("--download", help="Fetch what is missing.")
        ] = False,
        validation: Annotated[int, typer.Option(min=0, help="Rows held out of training.")] = 10_000,
        force: Force = False,
    ) -> None:
        from mmgen.data.store import check_free
        from mmgen.data.torchvision import idx_dataset

        check_free(out, force)
        modalities, splits = idx_dataset(name, source, download=download, validation=validation)
        about = (
            f"{name} as torchvision reads it: the picture, its class, and attributes measured "
            "from the picture."
        )
        _write(out, name, about, modalities, splits, force)

    return command


for _name in ("mnist", "fashion-mnist", "kmnist"):
    app.command(_name, help=f"Read {_name} from torchvision's layout; attributes are measured.")(
        _idx_command(_name)
    )


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="The data set's folder.")],
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file anew.")] = False,
) -> None:
    """Show what a data set holds: modalities, counts, base rates."""
    from mmgen.data.store import read_dataset

    dataset = read_dataset(folder)
    if verify:
        dataset.verify()
    stdout.print(f"[bold]{dataset.name}[/]  {dataset.path}\n{dataset.about}\nhash {dataset.hash}")
    for split, rows in dataset.splits.items():
        stdout.print(f"  {split}: {rows.count:,} rows")
    for name, configuration in dataset.modalities.items():
        settings = ", ".join(f"{k}={_short(v)}" for k, v in configuration.items() if k != "kind")
        stdout.print(f"  {name}: {configuration['kind']} ({settings})", markup=False)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(map(str, value)) + "]"
    return str(value)


def _write(
    path: Path,
    name: str,
    about: str,
    modalities: Mapping[str, Mapping[str, Any]],
    splits: "Mapping[str, Mapping[str, Tensor]]",
    force: bool,
) -> None:
    from mmgen.data.store import write_dataset

    dataset = write_dataset(
        path, name=name, about=about, modalities=modalities, splits=splits, force=force
    )
    counts = ", ".join(f"{split.count:,} {n}" for n, split in dataset.splits.items())
    stdout.print(f"{path}: {counts}; modalities {', '.join(dataset.modalities)}")
