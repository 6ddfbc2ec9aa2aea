"""Reads and writes data sets: safetensors shards beside a ``dataset.json`` that describes them.

::

    glyphs/
      dataset.json                 name, modalities, splits, hashes
      train-00000.safetensors      one tensor (rows, ...) per modality, in its compact type; where
                                   rows lack it, present/NAME (rows,) says which have it
      test-00000.safetensors
      README.md                    the card, a page for people, with contact-sheet.png

Rows are read when they are asked for, never unpickled. A data set appears under its name complete
or not at all. The store knows nothing of plugins: a modality's configuration is a plain dictionary.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.data.folder import appearing
from mmgen.data.index import (
    FORMAT_VERSION,
    INDEX,
    WITH_HOLES,
    Index,
    ShardRecord,
    SplitRecord,
    file_hash,
    read_index,
)
from mmgen.data.shard import Column, open_shard
from mmgen.data.split import Split
from mmgen.data.writing import PRESENT, Forms, write_split
from mmgen.errors import DataError, WriteError, listed
from mmgen.files.documents import first_of

__all__ = ["CARD", "SHEET", "Dataset", "Split", "ensure_absent", "read_dataset", "write_dataset"]

SHARD_ROWS = 65_536

CARD, SHEET = "README.md", "contact-sheet.png"
"""The files for people in a data set's folder: its card, and a page of examples."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(OneLine):
    """An opened data set.

    Attributes:
        path: Its folder.
        name: The name of the data set.
        about: One or two sentences: where it comes from, how it was made.
        modalities: Each modality's configuration, ``"kind"`` included, by name.
        splits: ``"train"``, ``"validation"``, ``"test"``, ... by name.
        hash: SHA-256 over the configurations and the contents of all shards.
    """

    path: Path
    name: str
    about: str
    modalities: dict[str, dict[str, Any]]
    splits: dict[str, Split]
    hash: str

    def verify(self) -> None:
        """Reads every byte and compares the hashes with those that were taken when it was written.

        Raises:
            DataError: If a shard changed. The message names all that changed.
        """
        records = [
            record for split in read_index(self.path).splits.values() for record in split.shards
        ]
        files = [
            record.file for record in records if file_hash(self.path / record.file) != record.sha256
        ]
        if files:
            raise DataError(
                f"data set {self.path}: {listed(files)} changed after it was written; "
                "write the data set again"
            )


def read_dataset(path: Path) -> Dataset:
    """Opens the data set at ``path``; values are read when they are used.

    Raises:
        DataError: If the folder, its index or a shard is missing, damaged, of a foreign version,
            or the counts do not match.
    """
    index = read_index(path)
    splits = _open(path, index.splits, index.modalities)
    _check_alike(path, splits)
    if any(map(_lacking, splits.values())) and index.format_version != WITH_HOLES:
        raise DataError(
            f"data set {path}: rows lack values, but its {INDEX} is of a format in which none does "
            "(version 1); write the data set again"
        )
    return Dataset(path, index.name, index.about, dict(index.modalities), splits, index.hash)


def _open(path: Path, records: Mapping[str, SplitRecord], names: Iterable[str]) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for name, record in records.items():
        opened = [_open_shard(path, shard, names) for shard in record.shards]
        masks = tuple(masks for _, masks in opened)
        shards = tuple(columns for columns, _ in opened)
        splits[name] = Split(shards, masks if any(masks) else ())
        if splits[name].count != record.count:
            raise DataError(
                f"data set {path}: split {name!r} should have {record.count} rows, but its shards "
                f"hold {splits[name].count}; write the data set again"
            )
    return splits


def _lacking(split: Split) -> bool:
    """Returns whether files say which rows lack a value."""
    return any(split.masks)


def _check_alike(path: Path, splits: Mapping[str, Split]) -> None:
    first = next(iter(splits.values())).shards[0]
    for split, values in splits.items():
        for number, shard in enumerate(values.shards):
            for name, column in shard.items():
                here, there = _form(column), _form(first[name])
                if here != there:
                    raise DataError(
                        f"data set {path}: shard {number} of split {split!r} stores {name!r} as "
                        f"{here}, the first shard as {there}; write the data set again"
                    )


def _form(column: Column) -> str:
    return f"{str(column.dtype).removeprefix('torch.')} {tuple(column.shape[1:])}"


Rows = Mapping[str, Tensor] | Iterable[Mapping[str, Tensor]]
"""The rows of a split: one stored tensor ``(count, ...)`` per modality, or such chunks of them.

Where rows lack modalities, a :class:`mmgen.batch.Batch` says which; what is stored there is zeros.
"""


def write_dataset(
    path: Path,
    *,
    name: str,
    about: str | Callable[[], str],
    modalities: Mapping[str, Mapping[str, Any]],
    splits: Mapping[str, Rows],
    force: bool = False,
    shard_rows: int = SHARD_ROWS,
    fit: Callable[[Mapping[str, Split]], Mapping[str, Mapping[str, Any]]] | None = None,
    beside: Callable[[Dataset], object] | None = None,
) -> Dataset:
    """Writes a data set under ``path``, complete or not at all, and opens it.

    The files depend on the rows alone, not on the chunks in which they come. No more than a chunk
    is in memory.

    Args:
        path: The folder to make.
        name: The name of the data set.
        about: Where it comes from, how it was made; a function is asked after the last row.
        modalities: Each modality's configuration with its ``"kind"``, in JSON values, by name.
        splits: The rows of each split; a split is iterated once, in the order of this mapping.
        force: Replace the data set (or the empty folder) at ``path``. Anything else that is there
            is never touched.
        shard_rows: The most rows in one file.
        fit: Returns the configurations to keep instead of ``modalities``, given the written rows.
        beside: Writes the card beside the files of the data set that it is given, before the folder
            appears.

    Raises:
        DataError: If ``path`` is taken, the splits do not match the modalities or each other, or
            the folder cannot be written. An ``OSError`` of the iterator of a split is taken for one
            of writing.
    """
    path = path.resolve()
    ensure_absent(path, force)
    _check(modalities, splits)
    forms: Forms = dict.fromkeys(modalities)
    try:
        with appearing(path) as folder:
            records = {
                split: write_split(folder, split, _chunks(rows), forms, shard_rows)
                for split, rows in splits.items()
            }
            opened = _open(folder, records, modalities)
            if fit is not None:
                modalities = fit(opened)
            holes = any(map(_lacking, opened.values()))
            Index(
                format_version=WITH_HOLES if holes else FORMAT_VERSION,
                name=name,
                about=about if isinstance(about, str) else about(),
                modalities=json.loads(json.dumps({key: {**modalities[key]} for key in modalities})),
                splits=records,
            ).write(folder)
            written = read_dataset(folder)  # what could not be read again does not appear
            if beside is not None:
                beside(written)
    except ValidationError as error:
        raise DataError(f"cannot write the data set {path}: {first_of(error)}") from None
    except (OSError, WriteError) as error:
        raise DataError(f"cannot write the data set {path}: {error}") from error
    return read_dataset(path)


def _chunks(rows: Rows) -> Iterable[Mapping[str, Tensor]]:
    return [rows] if isinstance(rows, Mapping) else rows


def ensure_absent(path: Path, force: bool = False) -> None:
    """Checks that a data set may be written at ``path``, before the work of making one.

    Raises:
        DataError: If something is there; with ``force``, if it is neither empty nor a data set.
    """
    if not path.exists():
        return
    if not force:
        raise DataError(f"{path} exists; choose another folder, or replace it with --force")
    entries = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    others = entries - {INDEX, CARD, SHEET}
    ours = (".safetensors", ".tmp")  # a killed process leaves what it was writing
    foreign = sorted(entry for entry in others if not entry.endswith(ours))
    if foreign or (entries and INDEX not in entries):
        raise DataError(
            f"{path} holds more than an mmgen data set ({listed(foreign or sorted(entries))}), so "
            "it is not replaced even with --force; choose another folder"
        )


def _check(modalities: Mapping[str, Mapping[str, Any]], splits: Iterable[str]) -> None:
    if not modalities or not splits:
        raise DataError("a data set needs at least one modality and one split")
    for name, configuration in modalities.items():
        if "kind" not in configuration:
            raise DataError(f"modality {name!r}: its configuration names no 'kind'")
    for split in splits:
        if not re.fullmatch(r"[\w-]+", split):
            raise DataError(f"split {split!r}: a name is made of letters, digits, - and _")


def _open_shard(
    path: Path, record: ShardRecord, names: Iterable[str]
) -> tuple[dict[str, Column], dict[str, Column]]:
    """Opens a file: the columns of the modalities, and the masks of those that some rows lack."""
    file = path / record.file
    columns = open_shard(file)
    if absent := [name for name in names if name not in columns]:
        raise DataError(f"{file} is damaged (no {listed(absent)}); write the data set again")
    for name in names:
        if len(columns[name]) != record.count:
            raise DataError(
                f"{file} should have {record.count} rows of {name!r}, but holds "
                f"{tuple(columns[name].shape)}; write the data set again"
            )
    masks = {n.removeprefix(PRESENT): each for n, each in columns.items() if n.startswith(PRESENT)}
    for name, mask in masks.items():
        if name not in names:
            raise DataError(
                f"{file} is damaged (it says which rows have {name[:80]!r}, which is no modality); "
                "write the data set again"
            )
        if (mask.dtype, mask.shape) != (torch.bool, (record.count,)):
            raise DataError(
                f"{file} is damaged (which of {record.count} rows have {name!r} is stored as "
                f"{str(mask.dtype).removeprefix('torch.')} {tuple(mask.shape)}, not as bool "
                f"({record.count},)); write the data set again"
            )
    return {name: columns[name] for name in names}, {**masks}
