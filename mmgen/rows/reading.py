"""Rows as people have them: columns of values some of which are absent, a frame, a split.

Each row becomes observations of what it has, and masks of what it has not. Values are read as
:mod:`mmgen.given` reads them; ``None`` and NaN say that a row has none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine, cut
from mmgen.data.split import Split
from mmgen.errors import GenerationError, listed, nearest
from mmgen.modality import Modality
from mmgen.rows.noise import shared_noise
from mmgen.seeding import generator

CHUNK = 1000
"""Rows that are read and encoded at a time."""

Column = Callable[[int, int], tuple[Tensor, Tensor | None]]
"""Observations ``(n, *shape)`` of the rows from one to another, and which of them there are."""


@dataclass(frozen=True, repr=False)
class Observer(OneLine):
    """Turns stored values of a modality into observations on the device.

    What that draws, as of pictures that are binarised, is the same for every row.

    Attributes:
        name: The modality's name.
        modality: The modality.
        like: A tensor of the nets' device and dtype.
        seed: Of what is drawn.
    """

    name: str
    modality: Modality
    like: Tensor
    seed: int = 0

    def __call__(self, stored: Tensor) -> Tensor:
        """Observes ``(B, ...)``: ``(B, *shape)``."""
        seed = generator("observed", self.name, self.seed).initial_seed()
        with shared_noise(self.like.device, len(stored), 1, seed):
            return self.modality.observe(stored.to(self.like.device)).to(self.like.dtype)


@dataclass(frozen=True, repr=False)
class Rows(OneLine):
    """Rows that are read when they are asked for.

    Attributes:
        count: How many.
        columns: By modality.
    """

    count: int
    columns: Mapping[str, Column]

    def slice(self, start: int, stop: int) -> Batch:
        """Reads rows ``start`` to ``stop``, at most to the last: zeros where a row has no value.

        Raises:
            GenerationError: If a value is not what its kind takes. The message names the row.
        """
        stop = min(stop, self.count)
        read = {n: column(start, stop) for n, column in self.columns.items()}
        masks = {n: mask for n, (_, mask) in read.items() if mask is not None}
        return Batch({n: x for n, (x, _) in read.items()}, masks or None)

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[int, Batch]]:
        """Yields the number of the first row, and the rows, ``size`` at a time."""
        for start in range(0, self.count, size):
            yield start, self.slice(start, start + size)


def read(modalities: Mapping[str, Modality], rows: Any, like: Tensor, seed: int = 0) -> Rows:
    """Reads rows of some of the modalities.

    Args:
        modalities: By name.
        rows: A mapping of columns (lists of raw values, arrays, tensors of stored values or of
            observations), a frame of pandas or polars, or a split of a data set. A column is called
            as a modality, or as one of its own columns (``"height"`` of a ``vector``).
        like: A tensor of the nets' device and dtype.
        seed: Of what is drawn when values are observed; the same for every row.

    Raises:
        GenerationError: If it is none of these, or a column is of no modality or of other length.
    """
    observers = {n: Observer(n, m, like, seed) for n, m in modalities.items()}
    if isinstance(rows, Split):
        names = [n for n in modalities if n in rows.names]
        if not names:
            raise GenerationError(f"the split has {listed(rows.names)}, not {listed(modalities)}")
        return Rows(rows.count, {n: _of_split(observers[n], rows) for n in names})
    if not isinstance(rows, Mapping):
        if not (hasattr(rows, "columns") and hasattr(rows, "__getitem__")):
            raise GenerationError(
                "rows are a mapping of columns, such as {'label': ['7', None]}, a frame, or a "
                f"split of a data set, not {type(rows).__name__}"
            )
        rows = {name: rows[name] for name in rows.columns}
    columns, counts = _columns(modalities, {name: _listed(name, rows[name]) for name in rows})
    if len({*counts.values()}) > 1:
        told = listed(f"{name} has {count:,}" for name, count in counts.items())
        raise GenerationError(f"rows: {told}; give as many of each, None where there is none")
    made = {n: _of_values(observers[n], values) for n, values in columns.items()}
    return Rows(next(iter(counts.values()), 0), made)


def _listed(name: Any, values: Any) -> Sequence[Any] | Tensor | np.ndarray:
    """Returns a column as something with a length and numbered values."""
    if isinstance(values, list | tuple) or (
        isinstance(values, Tensor | np.ndarray) and values.ndim != 0
    ):
        return values
    for method in ("to_list", "tolist"):  # of a series of polars, or of pandas
        if hasattr(values, method) and hasattr(values, "__len__") and hasattr(values, "name"):
            return list(getattr(values, method)())
    raise GenerationError(f"{name}: rows are a list with a value for each, not {cut(repr(values))}")


def _columns(
    modalities: Mapping[str, Modality], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Assigns columns to modalities: those called as one, and those called as its own columns."""
    found = {name: values for name, values in given.items() if name in modalities}
    others = {name: values for name, values in given.items() if name not in found}
    own = {c: n for n, m in modalities.items() if n not in found for c in m.column_names()}
    if unknown := [name for name in others if name not in own]:
        known = [*modalities, *own]
        raise GenerationError(
            f"rows: there is no modality {unknown[0]!r}{nearest(str(unknown[0]), known)}; there "
            f"are {listed(modalities)}"
        )
    counts = {name: len(values) for name, values in given.items()}
    for name in dict.fromkeys(own[column] for column in others):
        needed = modalities[name].column_names()
        if absent := [column for column in needed if column not in others]:
            raise GenerationError(f"rows: of {name}, the column {listed(absent)} is missing")
        if len({counts[column] for column in needed}) > 1:
            return {}, counts
        each = zip(*(others[column] for column in needed), strict=True)
        found[name] = [
            None if any(map(is_absent, cells)) else dict(zip(needed, cells, strict=True))
            for cells in each
        ]
    return {n: found[n] for n in modalities if n in found}, counts


def _of_split(observer: Observer, split: Split) -> Column:
    def column(start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        rows = torch.arange(start, stop, device="cpu")
        read = split.take(rows, [observer.name])
        mask = (read.present or {}).get(observer.name)
        x = observer(read[observer.name])
        return x, None if mask is None else mask.to(x.device)

    return column


def _of_values(observer: Observer, values: Sequence[Any] | Tensor | np.ndarray) -> Column:
    def column(start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        part = values[start:stop]
        if isinstance(part, Tensor) and part.is_floating_point():
            return _observations(observer, part.detach().to(observer.like))
        return raw(observer, part, start)

    return column


def _observations(observer: Observer, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Takes observations; a row with a number that is NaN is absent."""
    name, shape = observer.name, observer.modality.shape
    if x.shape[1:] != shape:
        wanted = f"(rows, {', '.join(map(str, shape))})"
        raise GenerationError(f"{name}: observations have the shape {wanted}, not {tuple(x.shape)}")
    if x.isinf().any():
        raise GenerationError(f"{name}: an observation holds numbers that are not finite")
    known = ~x.isnan().flatten(1).any(1)
    if known.all():
        return x, None
    x = x.clone()
    x[~known] = 0
    return x, known


def raw(observer: Observer, values: Any, start: int = 0) -> tuple[Tensor, Tensor | None]:
    """Reads values one by one, as what is given to ``generate``; some may be observations.

    Args:
        observer: Of their modality.
        values: One for each row, or none.
        start: The number of the first row, for messages.

    Returns:
        Observations ``(n, *shape)``, zeros where there is none; and a mask ``(n,)`` of those that
        there are, or ``None`` for all.

    Raises:
        GenerationError: If a value is not what its kind takes. The message names the row.
    """
    modality, like = observer.modality, observer.like
    x = like.new_zeros(len(values), *modality.shape)
    known = torch.ones(len(values), dtype=torch.bool, device="cpu")
    stored: list[Tensor] = []
    at: list[int] = []
    for number, value in enumerate(values):
        if is_absent(value):
            known[number] = False
            continue
        try:
            if isinstance(value, Tensor) and value.is_floating_point():
                x[number] = value.detach().to(like)
            else:
                stored.append(modality.accept(value))
                at.append(number)
        except Exception as error:  # whatever a value or a plugin raises, this value was wrong
            said = cut(" ".join(str(error).split())) or type(error).__name__
            raise GenerationError(f"{observer.name}, row {start + number:,}: {said}") from None
    if stored:
        observed = observer(torch.stack(stored))
        numbers = torch.tensor(at, device=like.device)
        x = observed if len(at) == len(values) else x.index_copy(0, numbers, observed)
    return x, None if known.all() else known.to(like.device)


def is_absent(value: Any) -> bool:
    """Tells whether a value says that there is none: ``None``, NaN, pandas' NA.

    Examples:
        >>> is_absent(None), is_absent(float("nan")), is_absent(0), is_absent("")
        (True, True, False, False)
    """
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" and bool(np.isnan(value).any())
    return isinstance(value, Tensor) and bool(value.isnan().any())
