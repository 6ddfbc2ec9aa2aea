"""Files of the safetensors format, written and read one tensor at a time.

The safetensors library writes only tensors that lie on the CPU, contiguous and apart, all at once;
and it reads through a memory map, whose pages are resident in the process until the file is closed.
Here no more than one tensor's copy exists beside what is stored: none, if it can be written from
where it lies or read to where it belongs.

The format: 8 bytes with the header's length, little-endian; the header, JSON padded to a multiple
of 8 bytes, ``{"__metadata__": {...}, name: {"dtype", "shape", "data_offsets"}, ...}``; the values.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from mmgen.errors import WriteError
from mmgen.files import write

METADATA = "__metadata__"

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors to a file, whole or not at all; see :func:`mmgen.files.write`.

    Args:
        path: The file.
        tensors: By name: on any device, of any strides; several may share memory.
        metadata: Words about them.

    Raises:
        WriteError: If the file cannot be written, or the format has no name for a tensor's dtype.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise WriteError(f"{path}: safetensors files hold no {tensor.dtype}, as {name} is")
    # The widest first, so that each begins at a multiple of its elements' size.
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, object] = {METADATA: dict(metadata)}
    start = 0
    for name in order:
        tensor = tensors[name]
        stop = start + tensor.numel() * tensor.itemsize
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)

    def parts() -> Iterator[bytes | memoryview]:
        yield len(encoded).to_bytes(8, "little") + encoded
        for name in order:
            yield _bytes(tensors[name].detach().cpu().contiguous())  # no copy unless it must be

    write(path, parts())


def _bytes(tensor: Tensor) -> memoryview:
    """Returns the memory of a contiguous tensor on the CPU."""
    return tensor.resolve_conj().reshape(-1).view(torch.uint8).numpy().data


@dataclass(frozen=True)
class Stored:
    """Where a tensor is in a file.

    Attributes:
        dtype: Of its elements.
        shape: Of it.
        start: Its first byte, from the file's beginning.
    """

    dtype: torch.dtype
    shape: torch.Size
    start: int


class TensorFile:
    """An opened file of tensors, see :func:`open_tensors`.

    Attributes:
        metadata: Words about them.
        tensors: Where each is, by name.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        self.metadata: dict[str, str] = header.pop(METADATA, None) or {}
        self.tensors = {
            name: Stored(
                DTYPES[entry["dtype"]],
                torch.Size(entry["shape"]),
                8 + length + entry["data_offsets"][0],
            )
            for name, entry in header.items()
        }

    def read(self, name: str, device: torch.device | str = "cpu") -> Tensor:
        """Reads a tensor.

        Raises:
            ValueError: If the file ends before it does.
        """
        stored = self.tensors[name]
        tensor = torch.empty(stored.shape, dtype=stored.dtype, device="cpu")
        self._fill(tensor, name)
        return tensor.to(device)

    @torch.no_grad()
    def read_into(self, tensor: Tensor, name: str) -> None:
        """Reads a tensor to where another of its shape lies, on any device.

        Raises:
            ValueError: If the file ends before it does.
        """
        if (
            tensor.device.type == "cpu"
            and tensor.is_contiguous()
            and not tensor.is_conj()
            and tensor.dtype == self.tensors[name].dtype
        ):
            self._fill(tensor.detach(), name)
        else:
            tensor.copy_(self.read(name))

    def _fill(self, tensor: Tensor, name: str) -> None:
        self.file.seek(self.tensors[name].start)
        content = _bytes(tensor)
        if self.file.readinto(content) != len(content):  # type: ignore[attr-defined]
            raise ValueError(f"the file ends within {name}")


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Opens a file of tensors; values are read when they are asked for.

    Raises:
        OSError: If it cannot be read.
        SafetensorError: If its header is damaged, or the file is not as long as the header says.
        KeyError: If an element's type is none of :data:`DTYPES`.
    """
    with safe_open(path, framework="pt"):
        pass  # the library checks the header, and that the values fill the file
    with path.open("rb") as file:
        yield TensorFile(file)
