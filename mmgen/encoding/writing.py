"""Writes codes as they come, whole or not at all: CSV, Parquet, NumPy's npz, safetensors."""

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from mmgen.encoding.codes import Codes
from mmgen.errors import ConfigError, listed
from mmgen.files.atomic import check_writable, write
from mmgen.files.holding import make
from mmgen.files.tensors import Values, tensor_bytes, write_values
from mmgen.tabular import parquet

BLOCK = 2**20
"""The bytes that are copied at a time."""


def check_format(path: Path) -> None:
    """Checks that codes can be written to a file, before the work.

    Raises:
        ConfigError: If its suffix is none of :data:`FORMATS`, or a library is missing.
        WriteError: If it cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out {path}: z are written as {listed(FORMATS)}")
    if parquet.is_parquet(path):
        parquet.check_installed(path)
    check_writable(path)


def write_codes(path: Path, codes: Iterator[Codes], event: torch.Size) -> int:
    """Writes codes, a row each, and returns how many; what is in memory does not grow with that.

    CSV and Parquet have columns ``row``, ``z1`` .., ``z1_deviation`` .. and scores; npz and
    safetensors arrays ``mean``, ``deviation`` ``(rows, *event)`` and scores ``(rows,)``.

    Args:
        path: The file; its folder is made.
        codes: In order.
        event: The shape of z.
    """
    make(path.parent)
    counted = _Counted(codes)
    FORMATS[path.suffix.lower()](path, counted, event)
    return counted.rows


class _Counted:
    def __init__(self, codes: Iterator[Codes]) -> None:
        self._codes, self.rows = codes, 0

    def __iter__(self) -> Iterator[Codes]:
        for each in self._codes:
            self.rows += len(each.mean)
            yield each


def _empty(event: torch.Size) -> Codes:
    return Codes(torch.zeros(0, *event), torch.zeros(0, *event), {})


def _write_csv(path: Path, codes: Iterable[Codes], event: torch.Size) -> None:
    def parts() -> Iterator[bytes]:
        row, head = 0, True
        for each in _or_empty(codes, event):
            columns = each.columns()
            if head:
                yield f"row,{','.join(columns)}\n".encode()
                head = False
            line = "%d," + ",".join(["%.7g"] * len(columns)) + "\n"
            values = torch.stack([*columns.values()], 1).tolist()
            yield "".join(line % (row + n, *numbers) for n, numbers in enumerate(values)).encode()
            row += len(values)

    write(path, parts())


def _write_parquet(path: Path, codes: Iterable[Codes], event: torch.Size) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def parts() -> Iterator[bytes]:
        sink, writer, row = parquet.Sink(), None, 0
        for each in _or_empty(codes, event):
            columns: dict[str, Any] = {"row": np.arange(row, row + len(each.mean))}
            columns |= {name: values.numpy() for name, values in each.columns().items()}
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(sink, table.schema)
            writer.write_table(table)
            row += len(each.mean)
            yield sink.taken()
        assert writer is not None
        writer.close()
        yield sink.taken()

    write(path, parts())


def _or_empty(codes: Iterable[Codes], event: torch.Size) -> Iterator[Codes]:
    """Yields the codes, or empty ones if there are none, so that a file has its columns."""
    none = True
    for each in codes:
        none = False
        yield each
    if none:
        yield _empty(event)


class _Spool:
    """Arrays that wait in files without a name until it is known how many rows there are."""

    def __init__(self, folder: Path, held: ExitStack) -> None:
        self._folder, self._held = folder, held
        self.files: dict[str, IO[bytes]] = {}
        self.like: dict[str, Tensor] = {}
        self.rows = 0

    def add(self, each: Codes) -> None:
        arrays = {"mean": each.mean, "deviation": each.deviation, **each.scores}
        for name, values in arrays.items():
            if name not in self.files:
                temporary = TemporaryFile(dir=self._folder)  # noqa: SIM115 - held until all is read
                self.files[name] = self._held.enter_context(temporary)
                self.like[name] = values[:0]
            self.files[name].write(tensor_bytes(values.contiguous()))
        self.rows += len(each.mean)

    def shape(self, name: str) -> torch.Size:
        return torch.Size((self.rows, *self.like[name].shape[1:]))

    def parts(self, name: str) -> Iterator[bytes]:
        file = self.files[name]
        file.seek(0)
        while part := file.read(BLOCK):
            yield part


def _spooled(path: Path, codes: Iterable[Codes], event: torch.Size, held: ExitStack) -> _Spool:
    spool = _Spool(path.absolute().parent, held)
    for each in _or_empty(codes, event):
        spool.add(each)
    return spool


def _write_safetensors(path: Path, codes: Iterable[Codes], event: torch.Size) -> None:
    with ExitStack() as held:
        spool = _spooled(path, codes, event, held)

        def values(name: str) -> Values:
            return Values(spool.like[name].dtype, spool.shape(name), lambda: spool.parts(name))

        write_values(path, {name: values(name) for name in spool.files}, {})


def _write_npz(path: Path, codes: Iterable[Codes], event: torch.Size) -> None:
    def parts(spool: _Spool) -> Iterator[bytes]:
        sink = parquet.Sink()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for name in spool.files:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    file.write(_npy_header(spool.like[name].numpy().dtype, spool.shape(name)))
                    for part in spool.parts(name):
                        file.write(part)
                        yield sink.taken()
        yield sink.taken()

    with ExitStack() as held:
        write(path, parts(_spooled(path, codes, event, held)))


def _npy_header(dtype: "np.dtype[Any]", shape: torch.Size) -> bytes:
    about: Mapping[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": tuple(shape),
    }
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, dict(about))
    return content.getvalue()


FORMATS: dict[str, Callable[[Path, Iterable[Codes], torch.Size], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
}
"""What writes codes, by the suffix of the file."""
