"""The source ``anndata``: AnnData (``.h5ad``) and MuData (``.h5mu``) files of single cells.

Matrices are read some rows at a time, dense or CSR; of all else, what is asked for. Both are HDF5,
in which nothing is pickled; links to other files are not followed.

References:
    I. Virshup et al., "anndata: Annotated data", Journal of Open Source Software 9(101), 2024; the
    format: https://anndata.readthedocs.io/en/stable/fileformat-prose.html
    D. Bredikhin, I. Kats, O. Stegle, "MUON: multimodal omics analysis framework", Genome Biology
    23, 2022.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from mmgen.brief import OneLine
from mmgen.data.cells import as_name
from mmgen.errors import DataError, MmgenError, listed, nearest
from mmgen.files.reading import open_regular
from mmgen.hooks import hookimpl
from mmgen.source import Content, Source

if TYPE_CHECKING:
    import h5py
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mmgen.batch import Batch

T = TypeVar("T")

BYTES = 2**24
"""About how many bytes of a matrix are read at a time."""

NEAR = 8
"""How many rows may lie between two that are read at once, at most."""

MOST_BYTES = 2**31
"""The most bytes of anything that is read whole, or unpacked at once: annotations, chunks."""

MOST_VARIABLES = 10_000

MOST_CLASSES = 100
"""The most categories of a column that is a label without being asked for."""

SPLITS = ("train", "validation", "test")

Share = Annotated[float, Field(ge=0, lt=1)]


class AnnData(Source):
    """Read AnnData or MuData: counts or measurements, labels and vectors of single cells."""

    kind: ClassVar[str] = "anndata"
    api_version: ClassVar[int] = 1
    file: Path = Field(description="A file .h5ad, or .h5mu, each modality of which is one.")
    layer: str | None = Field(None, description="The layer to read instead of X.")
    matrix: Literal["auto", "counts", "vector"] = Field(
        "auto", description="What a matrix is; by itself, counts if its numbers are whole."
    )
    variables: str | None = Field(
        None, description="A column of var that says which take part, such as highly_variable."
    )
    labels: tuple[str, ...] = Field(
        (),
        description=f"Columns of obs that are labels; if left out, those of 2 to {MOST_CLASSES} "
        "categories.",
    )
    obsm: tuple[str, ...] = Field((), description="Arrays of obsm that are vectors.")
    validation: Share = Field(
        0.1, description="Share of the rows to hold out for validation, from 0 to 1."
    )
    test: Share = Field(0.1, description="Share of the rows to hold out for tests, from 0 to 1.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Fixes all that is random: same seed, same numbers."
    )
    split_column: str | None = Field(
        None, description="The column of obs that says of each row: train, validation or test."
    )
    complete: bool = Field(False, description="Leave out rows that lack a label or a modality.")

    @model_validator(mode="after")
    def _some_to_train(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("--validation and --test are shares of the rows, less than 1 together")
        return self

    def read(self) -> Content:
        """Returns matrices, labels and vectors, read when they are asked for."""
        import numpy as np

        with _opened(self.file) as file:
            obs = _whole(file, "obs")
            parts = {**self._matrices(file, obs.index), **self._vectors(file, len(obs))}
            for name, part in self._labels(obs).items():
                parts[f"{name}-label" if name in parts else name] = part
            split_of = self._split_of_each(obs)
        if len(parts) < 2:
            raise DataError(
                f"{self.file}: only {listed(parts)} to learn from, but a joint model needs at "
                f"least two modalities; name --labels of {listed(obs.columns)}, or --obsm"
            )
        lacking = [name for name, part in parts.items() if (part.rows < 0).any()]
        absent = np.stack([part.rows < 0 for part in parts.values()])
        if self.complete:
            unused, why = absent.any(0), f"lack {listed(lacking)}"
        else:
            unused, why = absent.all(0), "have nothing"
        split_of[unused] = -1
        lost = int(unused.sum())
        splits = {split: (split_of == n).nonzero()[0] for n, split in enumerate(SPLITS)}
        if not len(splits["train"]):
            raise DataError(
                f"{self.file}: no row to train on" + f", without {lost:,} that {why}" * bool(lost)
            )
        for name in lacking:
            if (parts[name].rows[splits["train"]] < 0).all():
                raise DataError(f"{self.file}: no row to train on has {name}")
        left_out = f", without {lost:,} that {why}" if lost else ""
        return Content(
            about=f"The rows of {self.file.name}{left_out}.",
            modalities={name: part.configuration for name, part in parts.items()},
            splits={n: self._chunks(parts, rows) for n, rows in splits.items() if len(rows)},
            rows=len(obs) - lost,
        )

    def _chunks(self, parts: "Mapping[str, _Part]", rows: "NDArray[np.intp]") -> "Iterator[Batch]":
        import torch

        from mmgen.batch import Batch

        at_once = max(1, BYTES // sum(part.bytes for part in parts.values()))
        with _opened(self.file) as file:
            for start in range(0, len(rows), at_once):
                chosen, tensors, present = rows[start : start + at_once], {}, {}
                for name, part in parts.items():
                    places = part.rows[chosen]
                    present[name] = torch.from_numpy(places >= 0)
                    # What is absent is stored as zeros, whatever is handed over for it.
                    places[places < 0] = part.rows.max()
                    tensors[name] = _safe(file, part.take, file, places)
                yield Batch(tensors, present)

    def _matrices(self, file: "h5py.File", names: Any) -> "dict[str, _Part]":
        """Returns the matrix of the file, or of each of its modalities."""
        import numpy as np

        if "mod" not in file:
            path = "X" if self.layer is None else f"layers/{self.layer}"
            part = self._matrix(file, path, _whole(file, "var"), np.arange(len(names)))
            return {part.configuration["kind"]: part}
        found = {}
        _check(file["mod"])
        for name in file["mod"]:
            inside = f"mod/{name}"
            own = _whole(file, f"{inside}/obs").index
            if not own.is_unique:
                raise DataError(f"{file.filename}: {inside}: names of rows occur twice")
            path = f"{inside}/X" if self.layer is None else f"{inside}/layers/{self.layer}"
            part = self._matrix(file, path, _whole(file, f"{inside}/var"), own.get_indexer(names))
            found[_word(name)] = part
        return found

    def _matrix(self, file: "h5py.File", path: str, var: Any, rows: "NDArray[np.intp]") -> "_Part":
        import numpy as np

        columns = np.arange(len(var))
        if self.variables is not None:
            if self.variables not in var:
                near = nearest(self.variables, var.columns)
                known = f"there are {listed(var.columns)}"
                raise DataError(
                    f"{file.filename}: var has no column {self.variables!r}{near}; {known}"
                )
            columns = var[self.variables].fillna(False).astype(bool).to_numpy().nonzero()[0]
        named = [as_name(str(name)) for name in var.index[columns]]
        return _measured(file, path, rows, columns, named, self.matrix)

    def _vectors(self, file: "h5py.File", count: int) -> "dict[str, _Part]":
        import numpy as np

        found = {}
        for key in self.obsm:
            path = f"obsm/{key}"
            width = _element(file, path).shape[-1]
            named = [f"{as_name(key)} {number}" for number in range(width)]
            part = _measured(file, path, np.arange(count), np.arange(width), named, "vector")
            found[_word(key)] = part
        return found

    def _labels(self, obs: Any) -> "dict[str, _Part]":
        """Returns the columns of obs that are labels; a code of -1 is a label that is missing."""
        import numpy as np
        import torch

        found = {}
        for name in self.labels or obs.columns:
            if name not in obs:
                near = nearest(name, obs.columns)
                raise DataError(f"{self.file}: obs has no column {name!r}{near}")
            column, asked = obs[name], name in self.labels
            if not asked and (column.dtype != "category" or name == self.split_column):
                continue
            column = column.astype("category")
            classes = [as_name(str(each)) for each in column.cat.categories]
            codes = column.cat.codes.to_numpy()
            usable = len({*classes} - {""}) == len(classes) >= 2
            few = len(classes) <= min(MOST_CLASSES, (codes >= 0).sum() / 2)
            if asked and not usable:
                raise DataError(f"{self.file}: {name!r} has no two classes with names of their own")
            if asked or (usable and few):
                settings = {"kind": "label", "classes": classes}
                rows = np.where(codes >= 0, np.arange(len(codes)), -1)
                kept = codes.astype(np.uint8 if len(classes) < 2**8 else np.int32)
                take = partial(_codes, torch.from_numpy(kept))
                found[_word(name)] = _Part(settings, rows, kept.itemsize, take)
        return found

    def _split_of_each(self, obs: Any) -> "NDArray[np.int8]":
        """Returns the number of each row's split."""
        import numpy as np
        import torch

        from mmgen.data.tables.tree import SPLIT_WORDS
        from mmgen.seeding import generator

        of = np.zeros(len(obs), np.int8)
        if self.split_column is None:
            order = torch.randperm(len(of), generator=generator(self.seed, "splits")).numpy()
            validation, test = (round(len(of) * share) for share in (self.validation, self.test))
            train = max(1, len(of) - validation - test)
            of[order[train : train + validation]] = 1
            of[order[train + validation :]] = 2
            return of
        if self.split_column not in obs:
            near = nearest(self.split_column, obs.columns)
            raise DataError(f"{self.file}: obs has no column {self.split_column!r}{near}")
        words = obs[self.split_column].astype(str).str.lower()
        if unknown := {*words} - {*SPLIT_WORDS}:
            raise DataError(
                f"{self.file}: {self.split_column!r} must be train, validation or test, not "
                f"{min(unknown)!r}"
            )
        of[:] = [SPLITS.index(SPLIT_WORDS[word]) for word in words]
        return of


@dataclass(frozen=True, eq=False, repr=False)
class _Part(OneLine):
    """A modality: what it is, and where its values are.

    Attributes:
        configuration: Its kind and settings.
        rows: Where the value of each row is, or -1.
        bytes: What a row takes while it is read.
        take: Reads the stored values of rows of a file, which are somewhere.
    """

    configuration: Mapping[str, Any]
    rows: "NDArray[np.intp]"
    bytes: int
    take: "Callable[[h5py.File, NDArray[np.intp]], Tensor]"


def _measured(
    file: "h5py.File",
    path: str,
    rows: "NDArray[np.intp]",
    columns: "NDArray[np.intp]",
    names: list[str],
    matrix: str,
) -> _Part:
    """Returns a matrix as counts or a vector, after a look at all of its numbers."""
    from mmgen_counts import LARGEST, Counts

    where = f"{file.filename}: {path}"
    if not 0 < len(names) <= MOST_VARIABLES or len({*names} - {""}) < len(names):
        raise DataError(
            f"{where}: {len(names):,} variables take part, where it must be 1 to "
            f"{MOST_VARIABLES:,}, each with a name of its own: see --variables, and "
            "adata.var_names_make_unique()"
        )
    element = _element(file, path)
    read, shape = _reader(where, element)
    if len(shape) != 2 or shape[0] < 1 + rows.max() or shape[1] < 1 + columns.max():
        raise DataError(f"{where}: is {shape}, which are not its rows and variables")
    most, whole, at_once = 0.0, True, max(1, BYTES // (8 * shape[1]))
    for start in range(0, shape[0], at_once):
        block = _safe(file, read, start, min(start + at_once, shape[0]))[:, columns]
        if not (abs(block) <= 1e38).all():  # float32 must hold it, and nothing missing
            raise DataError(f"{where}: not all of its numbers are finite")
        most, least = max(most, float(block.max())), float(block.min())
        whole = whole and least >= 0 and bool((block == block.round()).all())
    if matrix == "counts" and not (whole and most <= LARGEST):
        raise DataError(
            f"{where}: counts are whole, from 0 to {LARGEST:,}, and these are not; name another "
            "--layer, or say --matrix vector"
        )
    if matrix == "vector" or not (whole and most <= LARGEST):
        settings = {"kind": "vector", "names": names}
    else:
        fits = Counts.infer_settings({"any": [str(most)]})
        settings = {"kind": "counts", **fits, "names": names}
    return _Part(settings, rows, 8 * shape[1], partial(_taken, path, columns, settings))


def _codes(codes: "Tensor", file: "h5py.File", rows: "NDArray[np.intp]") -> "Tensor":  # noqa: ARG001
    """Returns the class numbers of rows."""
    return codes[rows]


def _taken(
    path: str,
    columns: "NDArray[np.intp]",
    configuration: Mapping[str, Any],
    file: "h5py.File",
    rows: "NDArray[np.intp]",
) -> "Tensor":
    """Returns the stored values of rows of a matrix."""
    import numpy as np
    import torch

    from mmgen_counts import Counts

    read, _ = _reader(path, _element(file, path))
    order = np.argsort(rows)
    values = np.empty((len(rows), len(columns)), np.float64)
    # What lies close together is read at once.
    for run in np.split(order, (np.diff(rows[order]) > NEAR).nonzero()[0] + 1):
        first = rows[run[0]]
        values[run] = read(first, rows[run[-1]] + 1)[rows[run] - first][:, columns]
    settings = dict(configuration)
    if settings.pop("kind") == "counts":
        return Counts(**settings).stored(values)
    return torch.from_numpy(values.astype(np.float32))


Reading = Callable[[int, int], Any]
"""Returns rows from one to before another as a dense array."""


def _reader(where: str, element: Any) -> tuple[Reading, tuple[int, ...]]:
    """Returns a function that reads rows of a matrix, dense or CSR, and the matrix' shape."""
    import h5py
    import numpy as np

    if isinstance(element, h5py.Dataset):
        if element.dtype.kind not in "buif":
            raise DataError(f"{where}: holds no numbers")
        return lambda start, stop: element[start:stop].astype(np.float64), element.shape
    encoding = element.attrs.get("encoding-type", element.attrs.get("h5sparse_format"))
    if encoding not in ("csr_matrix", "csr"):
        raise DataError(
            f"{where}: is stored as {encoding}, of which rows cannot be read; make it "
            "scipy.sparse.csr_matrix(adata.X), or dense"
        )
    shape = tuple(int(n) for n in element.attrs.get("shape", element.attrs.get("h5sparse_shape")))
    numbers, places, starts = (_checked(element, name) for name in ("data", "indices", "indptr"))
    until = starts[:]
    if len(until) != shape[0] + 1 or (np.diff(until) < 0).any() or until[0]:
        raise DataError(f"{where}: its rows are damaged")

    def read(start: int, stop: int) -> Any:
        first, last = until[start], until[stop]
        if last - first > (stop - start) * shape[1]:
            raise ValueError("more numbers than a row has variables")
        dense = np.zeros((stop - start, shape[1]))
        row = np.repeat(np.arange(stop - start), np.diff(until[start : stop + 1]))
        place = places[first:last]
        if len(place) and not 0 <= place.min() <= place.max() < shape[1]:
            raise ValueError("numbers of variables that there are not")
        np.add.at(dense, (row, place), numbers[first:last])
        return dense

    return read, shape


@contextmanager
def _opened(path: Path) -> "Iterator[h5py.File]":
    try:
        import anndata  # noqa: F401
        import h5py
    except ImportError:
        raise MmgenError(
            'reading AnnData needs anndata and h5py: pip install "mmgen-vae[anndata]"'
        ) from None
    try:
        os.close(open_regular(path))  # a pipe would be waited for
        file = h5py.File(path, "r")
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as HDF5: {error}") from None
    with file:
        if "obs" not in file:
            raise DataError(f"{path}: is no AnnData or MuData: it has no obs")
        yield file


def _safe(file: "h5py.File", call: Callable[..., T], *words: Any) -> T:
    """Calls what reads a file.

    Raises:
        DataError: Whatever it raises: damaged files make it raise what it meets.
    """
    try:
        return call(*words)
    except MmgenError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{file.filename}: is damaged: {cause}") from None


def _element(file: "h5py.File", path: str) -> Any:
    """Returns what is at a path, after a look at what it holds.

    Raises:
        DataError: If nothing is there, or it lies in another file.
    """
    parent, _, name = path.rpartition("/")
    within = _element(file, parent) if parent else file
    known: list[str] = _safe(file, list, within)
    if name not in known:
        raise DataError(f"{file.filename}: has no {path}{nearest(name, known)}: {listed(known)}")
    return _safe(file, _checked, within, name)


def _whole(file: "h5py.File", path: str) -> Any:
    """Returns annotations as a table, read whole."""
    from anndata.io import read_elem

    element = _element(file, path)
    _safe(file, _check, element)
    return _safe(file, read_elem, element)


def _checked(group: Any, name: str) -> Any:
    """Returns a member of a group that lies in the group's file, and unpacks to no giant."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link, which is not followed")
    element = group[name]
    if isinstance(element, h5py.Dataset):
        if element.is_virtual or element.external:
            raise ValueError(f"{name} lies in other files, which are not opened")
        if prod(element.chunks or (1,)) * element.dtype.itemsize > MOST_BYTES:
            raise ValueError(f"{name} is packed in too large pieces")
    return element


def _check(element: Any, depth: int = 3) -> None:
    """Checks all that annotations hold, before they are read whole."""
    import h5py

    if isinstance(element, h5py.Dataset):
        if element.size is not None and element.size * element.dtype.itemsize > MOST_BYTES:
            raise ValueError(f"{element.name} has more than {MOST_BYTES:,} bytes")
        return
    for name in element if depth else ():
        _check(_checked(element, name), depth - 1)


def _word(name: str) -> str:
    """Returns a name as a modality can have it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or "part"


@hookimpl
def mmgen_sources() -> list[type[Source]]:
    """Provides ``anndata``."""
    return [AnnData]
