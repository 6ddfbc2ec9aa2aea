"""Writes the rows of a split, chunk by chunk: no more of them is in memory than a chunk."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import torch
from torch import Tensor

from mmgen.batch import Batch, hidden
from mmgen.data.index import ShardRecord, SplitRecord, file_hash
from mmgen.errors import DataError, listed
from mmgen.files.tensors import Values, tensor_bytes, write_values

BLOCK = 1 << 20
"""The bytes that are copied at a time."""

PRESENT = "present/"
"""Before the name of a modality: which rows have it. No modality's name has a slash."""

Chunk = Mapping[str, Tensor]
Form = tuple[torch.dtype, torch.Size]
"""The dtype and shape of a stored value."""

Forms = dict[str, Form | None]
"""How values are stored, by modality; ``None`` until the first of them is seen."""


def write_split(
    folder: Path, split: str, chunks: Iterable[Chunk], forms: Forms, shard_rows: int
) -> SplitRecord:
    """Writes a split as shards. The files depend on the rows alone, not on how they are chunked.

    A file of tensors holds all rows of a modality before those of the next, and says at its
    beginning how many there are. So rows wait in a file for each modality until there are enough
    for a shard, or no more.

    Args:
        folder: Where the shards go.
        split: The name of the split.
        chunks: Stored values ``(n, ...)`` by modality; n may differ. Of rows that lack some, a
            :class:`mmgen.batch.Batch`, which says so; a shard says it of modalities that rows of
            its own lack.
        forms: How values are stored, by modality; the first chunk of the first split decides.
        shard_rows: The most rows in one file.

    Raises:
        DataError: If a chunk holds other modalities, or values of other forms, or there is no row.
        OSError: If the disk is full, or fails.
        WriteError: The same.
    """
    shards: list[ShardRecord] = []
    with ExitStack() as files:
        waiting = {name: files.enter_context(TemporaryFile(dir=folder)) for name in forms}
        masks: dict[str, list[Tensor]] = {name: [] for name in forms}
        rows = 0
        for chunk in chunks:
            count, start = _checked(split, chunk, forms), 0
            present = Batch.of(chunk).present or {}
            while start < count:
                taken = min(shard_rows - rows, count - start)
                for name, file in waiting.items():
                    part = slice(start, start + taken)
                    has = present[name][part] if name in present else None
                    every = torch.ones(taken, dtype=torch.bool)
                    masks[name].append(every if has is None else has.cpu())
                    file.write(tensor_bytes(hidden(chunk[name][part], has)))
                rows, start = rows + taken, start + taken
                if rows == shard_rows:
                    shards.append(_shard(folder, split, len(shards), rows, waiting, masks, forms))
                    rows = 0
        if rows:
            shards.append(_shard(folder, split, len(shards), rows, waiting, masks, forms))
    if not shards:
        raise DataError(f"split {split!r} has no rows")
    return SplitRecord(count=sum(shard.count for shard in shards), shards=shards)


def _checked(split: str, chunk: Chunk, forms: Forms) -> int:
    """Checks that a chunk holds rows of all modalities, stored as those before; counts them."""
    if {*chunk} != {*forms}:
        raise DataError(
            f"split {split!r} holds {listed(chunk)}; the modalities are {listed(forms)}"
        )
    rows = {name: len(value) if value.ndim else 0 for name, value in chunk.items()}
    if len({*rows.values()}) != 1 or not all(value.ndim for value in chunk.values()):
        raise DataError(f"split {split!r} needs as many rows of each modality, but has {rows}")
    for name, value in chunk.items():
        form = (value.dtype, value.shape[1:])
        if forms[name] is None:
            forms[name] = form
        if forms[name] != form:
            raise DataError(f"modality {name!r} is not of one shape and type in all splits")
    count = next(iter(rows.values()))
    for name, has in (Batch.of(chunk).present or {}).items():
        if name not in forms or (has.dtype, has.shape) != (torch.bool, (count,)):
            raise DataError(
                f"split {split!r}: which of {count} rows have {name!r} must be bool ({count},) of "
                f"a modality, not {has.dtype} {tuple(has.shape)}"
            )
    return count


def _shard(
    folder: Path,
    split: str,
    number: int,
    rows: int,
    waiting: Mapping[str, IO[bytes]],
    masks: dict[str, list[Tensor]],
    forms: Forms,
) -> ShardRecord:
    """Writes the rows that wait as a file, and empties where they waited."""
    path = folder / f"{split}-{number:05d}.safetensors"
    values = {}
    for name, file in waiting.items():
        form = forms[name]
        assert form is not None, "rows were written"
        values[name] = Values(form[0], torch.Size([rows, *form[1]]), partial(_content, file))
    for name, parts in masks.items():
        if not (has := torch.cat(parts)).all():
            values[PRESENT + name] = Values.of(has)
        parts.clear()
    write_values(path, values, {})
    for file in waiting.values():
        file.seek(0)
        file.truncate()
    return ShardRecord(file=path.name, count=rows, sha256=file_hash(path))


def _content(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0, os.SEEK_SET)
    while block := file.read(BLOCK):
        yield block
