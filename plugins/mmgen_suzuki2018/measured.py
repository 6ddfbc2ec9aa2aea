"""What was measured for a reproduction, read back from the files of its folder."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import AfterValidator, BaseModel, Field
from torch import Tensor

from mmgen.errors import MmgenError, RunError
from mmgen.files.reading import Reader
from mmgen.files.tensors import open_tensors
from mmgen.training.records import Record

FILES = Reader(RunError, "remove it, to measure again")

Finite = Annotated[float, Field(allow_inf_nan=False)]
M = TypeVar("M", bound=BaseModel)


def _spelt(symbol: str) -> str:
    """Writes ``q(z|x)``, as measurements of before have it, like those of today: ``q(z | x)``."""
    return re.sub(r" ?\| ?", " | ", symbol)


Symbol = Annotated[str, AfterValidator(_spelt)]


class Likelihood(Record):
    """One estimate that ``mmgen evaluate`` wrote; what does not apply to it is ``None``."""

    targets: list[str]
    given: list[str]
    estimator: str
    mean_of_logs: Finite | None
    standard_error: Finite | None
    z_from: Symbol
    rows: Annotated[int, Field(gt=0)]


class _Likelihoods(Record):
    likelihoods: list[Likelihood]


class Recognised(Record):
    """One measurement that ``mmgen coherence`` wrote."""

    z: str
    value: Finite
    ceiling: Finite


class _Coherence(Record):
    rows: Annotated[list[Recognised], Field(min_length=1)]


class PointLine(BaseModel):
    """A line of ``figure-4.csv``."""

    model: str
    target: str
    given: str
    iteration: Annotated[int, Field(ge=0)]
    nats: Finite
    standard_error: Finite


class LatentLine(BaseModel):
    """A line of ``figure-5.csv``."""

    model: str
    given: str
    number: Annotated[int, Field(ge=0, alias="class")]
    z1: Finite
    z2: Finite


def likelihoods(path: Path) -> list[Likelihood]:
    """Reads ``likelihoods.json``.

    Raises:
        RunError: If it is damaged, as all functions here.
    """
    return FILES.check(_Likelihoods, FILES.json(path), path).likelihoods


def recognised(path: Path) -> list[Recognised]:
    """Reads ``coherence.json``: at least one measurement."""
    return FILES.check(_Coherence, FILES.json(path), path).rows


def lines(path: Path, model: type[M]) -> list[M]:
    """Reads a figure's data, a model a line."""
    try:
        rows = [*csv.DictReader(io.StringIO(FILES.text(path)), strict=True)]
    except csv.Error as error:
        raise FILES.wrong(path, f"is no CSV file: {error}") from None
    return [FILES.check(model, row, f"{path}, row {i}") for i, row in enumerate(rows, 1)]


def latents_of(
    path: Path, models: Sequence[str], givens: Sequence[str], classes: int
) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
    """Reads ``figure-5.csv``.

    Returns:
        By model and what is given, z ``(rows, 2)``; and the class of each row ``(rows,)``.
    """
    rows = lines(path, LatentLine)

    def of(model: str, given: str) -> list[LatentLine]:
        return [row for row in rows if (row.model, row.given) == (model, given)]

    numbers = [row.number for row in of(models[0], givens[0])]
    found = {m: {g: of(m, g) for g in givens} for m in models}
    same = all([r.number for r in f] == numbers for each in found.values() for f in each.values())
    if not same or not numbers or max(numbers) >= classes:
        raise FILES.wrong(path, "is not whole: every model needs the same rows")
    spaces = {
        m: {g: torch.tensor([(r.z1, r.z2) for r in f]) for g, f in each.items()}
        for m, each in found.items()
    }
    return spaces, torch.tensor(numbers)


def pictures_of(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Reads ``figure-3.safetensors``: bytes of these shapes, by model, as numbers in [0, 1]."""
    with open_tensors(path, FILES) as tensors:
        for model, shape in shapes.items():
            stored = tensors.stored.get(model)
            if stored is None or (stored.dtype, stored.shape) != (torch.uint8, torch.Size(shape)):
                raise FILES.wrong(path, f"holds no pictures of {model} of the shape {shape}")
        return {model: tensors[model].float() / 255 for model in shapes}


def not_measured(row: str, quantity: str) -> MmgenError:
    """Returns the error for a number that is in no file."""
    return RunError(f"{row}: {quantity} is in no likelihoods.json; {FILES.remedy}")


def same_text(path: Path, text: str) -> bool:
    """Tells whether a file holds a text; if it cannot be read, it does not."""
    try:
        return FILES.text(path) == text
    except RunError:
        return False


def manifest(path: Path) -> dict[str, Any]:
    """Reads ``reproduction.json``."""
    return Reader(RunError, "choose another --out").json(path)
