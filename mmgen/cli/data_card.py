"""How every ``mmgen data`` command ends: the data set with its card; and how the card is shown."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.cli.common import Settings
from mmgen.console import stderr, stdout
from mmgen.errors import DataError, MmgenError, WriteError

if TYPE_CHECKING:
    from mmgen.data.split import Split
    from mmgen.data.store import Dataset, Rows
    from mmgen.data.tables.table import BadRow
    from mmgen.modality import Modality
    from mmgen.registry.loading import Registry

MOST = 2**16
"""The most bytes of a card: one that is longer, or none, is made anew to be shown."""


def write(
    path: Path,
    name: str,
    about: str | Callable[[], str],
    modalities: Mapping[str, Mapping[str, Any]],
    splits: "Mapping[str, Rows]",
    settings: Settings,
    *,
    force: bool,
    fit: bool = False,
    bad: "Sequence[BadRow]" = (),
) -> "Dataset":
    """Writes a data set with its card and contact sheet, says so, and opens it.

    A kind that cannot be shown costs the card, never the data set.

    Args:
        path: The folder to make.
        name: The data set's name.
        about: One or two sentences.
        modalities: The configuration of each modality.
        splits: The rows of each split, whole or in chunks.
        settings: The options before the verb.
        force: Whether to replace a data set that is there.
        fit: Whether kinds still have to measure what they measure on the rows to train on.
        bad: The rows that were left out.
    """
    from mmgen import build
    from mmgen.data import content
    from mmgen.data.card import card
    from mmgen.data.store import CARD, SHEET, write_dataset
    from mmgen.gallery.contact import contact_sheet

    registry = build.registry(settings.plugins)

    def fitted(rows: "Mapping[str, Split]") -> Mapping[str, Mapping[str, Any]]:
        return content.fitted(modalities, rows, registry)

    def beside(dataset: "Dataset") -> None:
        folder, splits = dataset.path, dataset.splits
        try:
            made = _modalities(dataset.modalities, registry)
            sheet = contact_sheet(folder / SHEET, name, made, next(iter(splits.values())))
            command = shlex.join(["mmgen", *sys.argv[1:]])
            text = card(name, dataset.about, made, splits, command=command, bad=bad, sheet=sheet)
        except (OSError, WriteError):
            raise
        except Exception as error:  # of a plugin: it costs the card, never the data set
            stderr.print(f"no card: {type(error).__name__}: {error}")
            (folder / SHEET).unlink(missing_ok=True)
        else:
            (folder / CARD).write_text(text, encoding="utf-8", errors="replace")

    dataset = write_dataset(
        path,
        name=name,
        about=about,
        modalities=modalities,
        splits=splits,
        force=force,
        fit=fitted if fit else None,
        beside=beside,
    )
    counts = ", ".join(f"{split.count:,} {n}" for n, split in dataset.splits.items())
    stdout.print(f"{path}: {counts}; modalities {', '.join(dataset.modalities)}")
    return dataset


def show(dataset: "Dataset", settings: Settings) -> None:
    """Prints a data set's card, or what one would say if none lies beside."""
    from rich.markdown import Markdown

    from mmgen import build
    from mmgen.data.card import card
    from mmgen.data.store import CARD
    from mmgen.files.reading import Reader

    try:
        text = Reader(DataError).text(dataset.path / CARD, MOST, errors="replace")
    except DataError:
        try:
            made = _modalities(dataset.modalities, build.registry(settings.plugins))
        except MmgenError as error:
            stderr.print(str(error))
            made = {}
        text = card(dataset.name, dataset.about, made, dataset.splits)
    lines = [line for line in text.splitlines() if not line.startswith("![")]
    stdout.print(Markdown("\n".join(lines), hyperlinks=False), soft_wrap=False)
    stdout.print(f"{dataset.path}\nhash {dataset.hash}")


def _modalities(
    configurations: Mapping[str, Mapping[str, Any]], registry: "Registry"
) -> "dict[str, Modality]":
    return {name: registry.create(name, each) for name, each in configurations.items()}
