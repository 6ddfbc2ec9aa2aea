"""Reads and writes data sets: safetensors shards beside a ``dataset.json`` that describes them.

::

    glyphs/
      dataset.json                 name, modalities, splits, hashes
      train-00000.safetensors      one tensor (rows, ...) per modality, in its compact type
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

from pydantic import ValidationError
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.data.folder import appearing
from mmgen.data.index import INDEX, Index, ShardRecord, SplitRecord, file_hash, read_index
from mmgen.data.shard import Column, open_shard
from mmgen.data.split import Split
from mmgen.errors import DataError, WriteError, listed
from mmgen.files.documents import first_of
from mmgen.files.tensors import write_tensors

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
    splits: dict[str, Split] = {}
    for name, record in index.splits.items():
        shards = tuple(_open_shard(path, shard, index.modalities) for shard in record.shards)
        splits[name] = Split(shards)
        if splits[name].count != record.count:
            raise DataError(
                f"data set {path}: split {name!r} should have {record.count} rows, but its shards "
                f"hold {splits[name].count}; write the data set again"
            )
    _check_alike(path, splits)
    return Dataset(path, index.name, index.about, dict(index.modalities), splits, index.hash)


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


def write_dataset(
    path: Path,
    *,
    name: str,
    about: str,
    modalities: Mapping[str, Mapping[str, Any]],
    splits: Mapping[str, Mapping[str, Tensor]],
    force: bool = False,
    shard_rows: int = SHARD_ROWS,
    beside: Callable[[Path], object] | None = None,
) -> Dataset:
    """Writes a data set under ``path``, complete or not at all, and opens it.

    Args:
        path: The folder to make.
        name: The name of the data set.
        about: Where it comes from, how it was made.
        modalities: Each modality's configuration with its ``"kind"``, in JSON values, by name.
        splits: For each split, one stored tensor ``(count, ...)`` per modality.
        force: Replace the data set (or the empty folder) at ``path``. Anything else that is there
            is never touched.
        shard_rows: The most rows in one file.
        beside: Writes the card into the folder that it is given, before the folder appears.

    Raises:
        DataError: If ``path`` is taken, the splits do not match the modalities or each other, or
            the folder cannot be written.
    """
    path = path.resolve()
    ensure_absent(path, force)
    _check(modalities, splits)
    try:
        with appearing(path) as folder:
            Index(
                name=name,
                about=about,
                modalities=json.loads(json.dumps({key: {**modalities[key]} for key in modalities})),
                splits={key: _write_split(folder, key, splits[key], shard_rows) for key in splits},
            ).write(folder)
            read_index(folder)  # what could not be read again does not appear
            if beside is not None:
                beside(folder)
    except ValidationError as error:
        raise DataError(f"cannot write the data set {path}: {first_of(error)}") from None
    except (OSError, WriteError) as error:
        raise DataError(f"cannot write the data set {path}: {error}") from error
    return read_dataset(path)


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


def _check(
    modalities: Mapping[str, Mapping[str, Any]], splits: Mapping[str, Mapping[str, Tensor]]
) -> None:
    if not modalities or not splits:
        raise DataError("a data set needs at least one modality and one split")
    for name, configuration in modalities.items():
        if "kind" not in configuration:
            raise DataError(f"modality {name!r}: its configuration names no 'kind'")
    reference = next(iter(splits.values()))
    for split, values in splits.items():
        if not re.fullmatch(r"[\w-]+", split):
            raise DataError(f"split {split!r}: a name is made of letters, digits, - and _")
        if set(values) != set(modalities):
            raise DataError(
                f"split {split!r} holds {listed(values)}; the modalities are {listed(modalities)}"
            )
        rows = {name: len(value) if value.ndim else 0 for name, value in values.items()}
        if len(set(rows.values())) != 1 or 0 in rows.values():
            raise DataError(f"split {split!r} needs as many rows of each modality, but has {rows}")
        for name, value in values.items():
            if (value.shape[1:], value.dtype) != (reference[name].shape[1:], reference[name].dtype):
                raise DataError(f"modality {name!r} is not of one shape and type in all splits")


def _write_split(
    folder: Path, split: str, values: Mapping[str, Tensor], shard_rows: int
) -> SplitRecord:
    count = len(next(iter(values.values())))
    shards = []
    for number, start in enumerate(range(0, count, shard_rows)):
        file = folder / f"{split}-{number:05d}.safetensors"
        rows = {name: value[start : start + shard_rows] for name, value in values.items()}
        write_tensors(file, rows, {})
        here = min(shard_rows, count - start)
        shards.append(ShardRecord(file=file.name, count=here, sha256=file_hash(file)))
    return SplitRecord(count=count, shards=shards)


def _open_shard(path: Path, record: ShardRecord, names: Iterable[str]) -> dict[str, Column]:
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
    return {name: columns[name] for name in names}
