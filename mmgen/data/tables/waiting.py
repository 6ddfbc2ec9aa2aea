"""Stored values that wait in files until it is known which split each row is of."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.errors import PluginError
from mmgen.files.tensors import tensor_bytes
from mmgen.modality import Modality
from mmgen.registry.loading import Registry

CHUNK = 16 * 2**20
"""The bytes of values that are read at once, or one row."""


class Waiting:
    """Rows of one stored value per modality, each in a file that has no name.

    Args:
        folder: On a disk that has room for all of them.
        modalities: By name.
        registry: Tells which plugin a kind is from.

    """

    def __init__(self, folder: Path, modalities: Mapping[str, Modality], registry: Registry):
        self._modalities, self._registry = modalities, registry
        self._folder, self._opened = folder, ExitStack()
        self._files: dict[str, IO[bytes]] = {}
        self._forms: dict[str, tuple[torch.dtype, torch.Size]] = {}
        self._has: dict[str, bytearray] = {name: bytearray() for name in modalities}

    def __enter__(self) -> "Waiting":
        for name in self._modalities:
            self._files[name] = self._opened.enter_context(TemporaryFile(dir=self._folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def known(self) -> set[str]:
        """The modalities of which a row has a value."""
        return {*self._forms}

    def add(self, values: Mapping[str, Tensor | None]) -> None:
        """Adds a row; of what it lacks, ``None``, zeros are kept.

        Raises:
            PluginError: If a value is of another shape or dtype than those before it.
            OSError: If the disk is full, or fails.
        """
        for name, value in values.items():
            before = len(self._has[name])
            self._has[name].append(value is not None)
            if value is None:
                self._skip(name, 1)
                continue
            form = (value.dtype, value.shape)
            if name not in self._forms:
                self._forms[name] = form
                self._skip(name, before)  # of which it was not known how much they take
            dtype, shape = self._forms[name]
            if form != (dtype, shape):
                kind = self._modalities[name].kind
                raise PluginError(
                    f"kind {kind!r} of plugin {self._registry.provider(kind)}: parse() gave "
                    f"{tuple(shape)} {dtype}, then {tuple(value.shape)} {value.dtype}; all rows "
                    "must be stored in one form"
                )
            self._files[name].write(tensor_bytes(value))

    def _skip(self, name: str, rows: int) -> None:
        """Leaves the place of rows without a value, once it is known how large it is."""
        if name in self._forms and rows:
            dtype, shape = self._forms[name]
            self._files[name].write(bytes(rows * dtype.itemsize * shape.numel()))

    def chunks(self, rows: Sequence[int]) -> Iterator[Batch]:
        """Yields the values of these rows, some at a time, and which of them have them."""
        sizes = {n: dtype.itemsize * shape.numel() for n, (dtype, shape) in self._forms.items()}
        at_once = max(1, CHUNK // max(1, sum(sizes.values())))
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            values = {name: self._read(name, part, size) for name, size in sizes.items()}
            has = {name: torch.tensor([self._has[name][r] > 0 for r in part]) for name in values}
            lacking = {name: each for name, each in has.items() if not each.all()}
            yield Batch({name: values[name] for name in self._modalities}, lacking or None)

    def _read(self, name: str, rows: Sequence[int], size: int) -> Tensor:
        (dtype, shape), file = self._forms[name], self._files[name]
        content = bytearray()
        for row in rows:
            file.seek(row * size)
            content += file.read(size)
        if not content:  # of values without numbers
            return torch.empty((len(rows), *shape), dtype=dtype)
        return torch.frombuffer(content, dtype=torch.uint8).view(dtype).reshape(len(rows), *shape)
