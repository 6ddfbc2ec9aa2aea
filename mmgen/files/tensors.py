"""Reads and writes files of the safetensors format, one tensor at a time.

The safetensors library writes only tensors that lie on the CPU, contiguous and apart, all at once;
and it reads through a memory map, whose pages are resident in the process until the file is closed.
Here no more than one tensor's copy exists beside what is stored: none, if it can be written from
where it lies or read to where it belongs. A header is checked before anything is taken from it.

The format: 8 bytes with the header's length, little-endian; the header, JSON padded to a multiple
of 8 bytes, ``{"__metadata__": {...}, name: {"dtype", "shape", "data_offsets"}, ...}``; the values.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, TypeAdapter
from torch import Tensor, nn

from mmgen.brief import OneLine
from mmgen.errors import WriteError
from mmgen.files.atomic import write
from mmgen.files.reading import HEADER, Reader

METADATA = "__metadata__"

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}

BLOCK = 1 << 18
"""The numbers that are checked at a time."""

MOST_DIMENSIONS = 64
"""The most dimensions that torch can describe."""


@dataclass(frozen=True, eq=False, repr=False)
class Values(OneLine):
    """A tensor to be written, whose bytes need not be in memory at once.

    Attributes:
        dtype: The dtype of its elements.
        shape: The shape of the tensor.
        parts: Returns its bytes in order, in parts.
    """

    dtype: torch.dtype
    shape: torch.Size
    parts: Callable[[], Iterable[bytes | memoryview]]

    @classmethod
    def of(cls, tensor: Tensor) -> "Values":
        """Returns those of a tensor on any device, of any strides."""

        def parts() -> Iterator[memoryview]:
            yield tensor_bytes(tensor)

        return cls(tensor.dtype, tensor.shape, parts)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors to a file, whole or not at all; see :func:`mmgen.files.atomic.write`.

    Args:
        path: The file.
        tensors: The tensors by name, on any device, of any strides; several may share memory.
        metadata: Text to store with them, by key.

    Raises:
        WriteError: If the file cannot be written, or the format has no name for a tensor's dtype.
    """
    write_values(path, {name: Values.of(tensor) for name, tensor in tensors.items()}, metadata)


def write_values(path: Path, values: Mapping[str, Values], metadata: Mapping[str, str]) -> None:
    """Writes tensors as :func:`write_tensors` does, whatever they come from."""
    for name, each in values.items():
        if each.dtype not in NAMES:
            raise WriteError(f"{path}: safetensors files hold no {each.dtype}, as {name} is")
    # The widest first, so that each begins at a multiple of its elements' size.
    order = sorted(values, key=lambda name: (-values[name].dtype.itemsize, name))
    header: dict[str, object] = {METADATA: dict(metadata)}
    start = 0
    for name in order:
        each = values[name]
        stop = start + each.shape.numel() * each.dtype.itemsize
        header[name] = {
            "dtype": NAMES[each.dtype],
            "shape": list(each.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)

    def parts() -> Iterator[bytes | memoryview]:
        yield len(encoded).to_bytes(8, "little") + encoded
        for name in order:
            yield from values[name].parts()

    write(path, parts())


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Returns the bytes of a tensor on any device; no copy is made unless it must be."""
    return _bytes(tensor.detach().cpu().contiguous())


def _bytes(tensor: Tensor) -> memoryview:
    """Returns the memory of a contiguous tensor on the CPU."""
    flat = tensor.resolve_conj().reshape(-1)
    # One number is contiguous whatever its stride, and a view as bytes asks for a stride of one.
    flat = flat.as_strided(flat.shape, (1,), flat.storage_offset())
    return flat.view(torch.uint8).numpy().data


@dataclass(frozen=True, repr=False)
class Stored(OneLine):
    """The place of a tensor in a file.

    Attributes:
        dtype: The dtype of its elements.
        shape: The shape of the tensor.
        start: The offset of its first byte in the file.
    """

    dtype: torch.dtype
    shape: torch.Size
    start: int


class _Place(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str
    shape: list[NonNegativeInt]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


_HEADER = TypeAdapter(dict[str, _Place | dict[str, str]])


def header_length(first: bytes, size: int) -> int:
    """Reads a header's length off the first 8 bytes of a file of ``size`` bytes.

    Raises:
        ValueError: If the file cannot hold so long a header, or it is longer than any may be.
    """
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > HEADER:
        raise ValueError("it has no header of the format")
    if 8 + length > size:
        raise ValueError(f"it ends within its header, after {size:,} bytes")
    return length


def parse_header(raw: bytes, size: int) -> tuple[dict[str, Stored], dict[str, str]]:
    """Checks a header against its file's size.

    Args:
        raw: The bytes of the header, which follow the first 8 of the file.
        size: The size of the whole file in bytes.

    Returns:
        The place of each tensor, and the metadata.

    Raises:
        ValueError: If it is none of the format's, or does not agree with the size.
    """
    header = _HEADER.validate_json(raw, strict=True)
    words = header.pop(METADATA, {})
    if not isinstance(words, dict):
        raise ValueError("its words are none")
    begin, filled = 8 + len(raw), 0
    tensors = {}
    for name, place in sorted(header.items(), key=_start):
        if not isinstance(place, _Place) or place.dtype not in DTYPES:
            raise ValueError(f"{name[:80]!r} is of no known type")
        start, stop = place.data_offsets
        dtype = DTYPES[place.dtype]
        # Values lie one after the other and fill the file: no two share bytes, none is outside.
        if start != filled or stop - start != prod(place.shape) * dtype.itemsize:
            raise ValueError(f"the values of {name[:80]!r} are not where they should be")
        # Of no elements, 0 × 10^18 × 10^18, the file needs no byte, but torch needs the strides.
        strides = prod(max(length, 1) for length in place.shape)
        if (
            max(place.shape, default=0) > size
            or len(place.shape) > MOST_DIMENSIONS
            or strides >= 2**63
        ):
            raise ValueError(f"{name[:80]!r} cannot have the shape {str(place.shape)[:80]}")
        tensors[name] = Stored(dtype, torch.Size(place.shape), begin + start)
        filled = stop
    if begin + filled != size:
        raise ValueError(f"{size:,} bytes, not {begin + filled:,}")
    return tensors, words


def _start(item: tuple[str, _Place | dict[str, str]]) -> tuple[int, int]:
    place = item[1]
    return place.data_offsets if isinstance(place, _Place) else (0, 0)


class TensorFile(Mapping[str, Tensor]):
    """An opened file of tensors, each of which is read when it is asked for.

    Attributes:
        path: The file.
        stored: The place of each tensor, by name.
        header: mmgen's own metadata; empty in files that have none.
    """

    def __init__(self, path: Path, file: Any, reader: Reader) -> None:
        self.path, self._file, self._reader = path, file, reader
        size = os.fstat(file.fileno()).st_size
        try:
            length = header_length(file.read(8), size)
            self.stored, words = parse_header(file.read(length), size)
        except (OSError, ValueError) as error:
            cause = " ".join(str(error).split())[:200]
            raise reader.wrong(path, f"is damaged, or no safetensors file ({cause})") from None
        ours = words.get("mmgen")
        self.header = {} if ours is None else reader.json_object(ours, path, finite=False)

    def __getitem__(self, name: str) -> Tensor:
        """Reads a tensor; it is on the CPU."""
        stored = self.stored[name]
        tensor = torch.empty(stored.shape, dtype=stored.dtype, device="cpu")
        self._fill(tensor, name)
        return tensor

    def blocks(self, name: str) -> Iterator[Tensor]:
        """Yields the numbers of a tensor, flat, in blocks of little memory."""
        stored, done = self.stored[name], 0
        while left := stored.shape.numel() - done:
            block = torch.empty(min(left, BLOCK), dtype=stored.dtype, device="cpu")
            self._fill(block, name, done * block.itemsize)
            yield block
            done += len(block)

    def __iter__(self) -> Iterator[str]:
        """Goes through the names."""
        return iter(self.stored)

    def __len__(self) -> int:
        """The number of tensors."""
        return len(self.stored)

    @torch.no_grad()
    def read_into(self, tensor: Tensor, name: str) -> None:
        """Reads a tensor into another of its shape, on any device.

        Raises:
            MmgenError: As the reader's, if the file ends before it does.
        """
        if (
            tensor.device.type == "cpu"
            and tensor.is_contiguous()
            and not tensor.is_conj()
            and tensor.dtype == self.stored[name].dtype
        ):
            self._fill(tensor.detach(), name)
        else:
            tensor.copy_(self[name])

    def read_module(
        self, module: nn.Module, prefix: str, names: Collection[str] | None = None
    ) -> None:
        """Reads the tensors of a module into its parameters and buffers.

        Args:
            module: Parameters and buffers, as its ``state_dict()`` names them.
            prefix: What their names begin with here.
            names: Which of them; all if left out.
        """
        own = module.state_dict(keep_vars=True)
        wanted = own if names is None else {name: own[name] for name in names}
        lie = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
        if all(id(tensor) in lie for tensor in own.values()):
            for name, tensor in wanted.items():
                self.read_into(tensor, prefix + name)
        else:  # a module may keep its weights in a way of its own
            read = {name: self[prefix + name] for name in wanted}
            module.load_state_dict(read, strict=names is None)

    def _fill(self, tensor: Tensor, name: str, skip: int = 0) -> None:
        content = _bytes(tensor)
        try:
            self._file.seek(self.stored[name].start + skip)
            read = self._file.readinto(content)
        except OSError as error:
            cause = f"cannot be read: {error.strerror or error}"
            raise self._reader.wrong(self.path, cause) from None
        if read != len(content):
            raise self._reader.wrong(self.path, f"is damaged: it ends within {name!r}")


@contextmanager
def open_tensors(path: Path, reader: Reader) -> Iterator[TensorFile]:
    """Opens a file of tensors; values are read when they are asked for.

    Raises:
        MmgenError: As the reader's, if the file cannot be read, or its header is damaged.
    """
    with reader.opened(path) as file:
        yield TensorFile(path, file, reader)
