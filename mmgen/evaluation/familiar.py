"""Whether a value that is given is like those that a run was trained on.

A model generates from anything, from a picture of noise as readily as from a digit. So each
modality has a score of its observations, their log density under one Gaussian that was fitted to
training rows, by probabilistic principal components: q directions with variances of their own, one
variance in all others. What scores below 99 % of held-out rows, or above all of them, is told.

The density is the data's, not the model's: it is there for every kind of modality and for every
model, whether that encodes the modality alone and decodes it or not, and it cannot be taken in by a
decoder that explains noise well. It sees what is unlike the rows pixel by pixel; a picture of
another sort with the same means and correlations passes.

References:
    M. E. Tipping, C. M. Bishop, "Probabilistic Principal Component Analysis", Journal of the Royal
    Statistical Society B 61(3), 1999, equations 3 to 8.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.data.split import Split
from mmgen.data.store import Dataset
from mmgen.errors import GenerationError, MmgenError, RunError, WriteError
from mmgen.evaluation.latent import Axes, principal_axes
from mmgen.files.reading import Reader, exists
from mmgen.files.tensors import open_tensors, write_tensors
from mmgen.formatting import number
from mmgen.given import observations
from mmgen.modality import Modality
from mmgen.run import Run
from mmgen.seeding import random_state
from mmgen.training import run_folder
from mmgen.training.plan import splits

FORMAT = 1

FILE = "familiar.safetensors"
"""In the run folder: the densities, and where held-out rows lie."""

FITTED = CALIBRATED = 2_000
"""Training rows that a density is fitted to, and held-out rows that it is calibrated by."""

FEWEST = 100
"""Of fewer held-out rows, nobody knows where one in a hundred lies."""

DIRECTIONS = 64
"""Principal axes with a variance of their own, at most."""

NUMBERS = 8_000_000
"""Rows times numbers that are decomposed: of large pictures fewer rows are fitted to."""

PARTS = ("centre", "directions", "variances")

RARE = 0.01
"""The share of held-out rows that are told of by mistake."""

FLOOR = 1e-3
"""The least variance, as a share of the mean one: what never varied may be off a little."""


@dataclass(frozen=True, eq=False, repr=False)
class Density(OneLine):
    """A Gaussian over observations, and where held-out rows lie in it.

    Attributes:
        centre: Its mean ``(D,)``.
        directions: Orthonormal, ``(q, D)``.
        variances: Along them ``(q,)``.
        rest: The variance along all other directions.
        low: The log density below which a share of :data:`RARE` of held-out rows is.
        high: The highest of them.
    """

    centre: Tensor
    directions: Tensor
    variances: Tensor
    rest: float
    low: float = -math.inf
    high: float = math.inf

    def score(self, x: Tensor) -> Tensor:
        """Returns the log density of observations ``(B, *shape)`` in nats, ``(B,)``."""
        away = x.flatten(1).to(self.centre) - self.centre
        along = away @ self.directions.T
        beside = (away.square().sum(1) - along.square().sum(1)).clamp_min(0)
        others = self.centre.numel() - len(self.variances)
        squares = (along.square() / self.variances).sum(1) + beside / self.rest
        logarithms = self.variances.log().sum() + others * math.log(self.rest)
        return -0.5 * (squares + logarithms + self.centre.numel() * math.log(2 * math.pi))

    def unlike(self, x: Tensor) -> Tensor:
        """Tells which observations ``(B, *shape)`` are unlike the rows, ``(B,)``."""
        score = self.score(x)
        return (score < self.low) | (score > self.high)


def fitted(x: Tensor) -> Density:
    """Fits a density to observations ``(N, *shape)``, N > 1: by maximum likelihood, but for floors.

    Args:
        x: The observations.
    """
    flat = x.flatten(1).double()
    N, D = flat.shape
    axes: Axes = principal_axes(flat, min(DIRECTIONS, D, N - 1))
    total = float(flat.var(0, correction=0).sum())
    floor = max(FLOOR * total / D, torch.finfo(torch.float32).tiny)
    others = D - len(axes.shares)
    rest = total * (1 - float(axes.shares.sum())) / others if others else floor
    variances = (total * axes.shares).clamp_min(floor)
    # In the precision that is kept, so that rows score the same before and after.
    parts = (axes.centre.float(), axes.directions.float(), variances.float())
    return Density(*parts, max(rest, floor))


def calibrated(density: Density, x: Tensor) -> Density:
    """Returns a density that knows where held-out observations ``(N, *shape)`` lie in it."""
    score = density.score(x).sort().values
    low, high = float(score[int(RARE * len(score))]), float(score[-1])
    slack = 1e-4 * (1 + abs(low) + abs(high))  # a sum of many numbers is rounded
    return replace(density, low=low - slack, high=high + slack)


def densities(
    modalities: Mapping[str, Modality], train: Split, calibration: Split
) -> dict[str, Density]:
    """Fits and calibrates a density of each modality.

    Args:
        modalities: By name.
        train: Rows to fit to, those that have the modality.
        calibration: Held-out rows; if fewer than :data:`FEWEST` have it, there is no density.
    """
    found = {}
    for name, modality in modalities.items():
        D = math.prod(modality.shape)
        fitting, held_out = train.having([name]), calibration.having([name])
        count = min(FITTED, max(2, NUMBERS // D), fitting.count)
        if held_out.count < FEWEST or count < 2:
            continue
        seen = [
            modality.observe(rows.spread(most, [name]).load([name])[name])
            for rows, most in ((fitting, count), (held_out, CALIBRATED))
        ]
        if all(bool(x.isfinite().all()) for x in seen):
            found[name] = calibrated(fitted(seen[0]), seen[1])
    return found


def familiar(run: Run, dataset: Dataset) -> dict[str, Density]:
    """Returns the densities that are kept in a run folder, or fits them and keeps them there.

    A folder that cannot be written costs the file alone. The caller's random state is left as it
    is.

    Args:
        run: The trained run.
        dataset: What it was trained on.
    """
    kept = read(run, run.modalities)
    filled = splits(dataset)
    calibration = next((n for n in ("validation", "test", "train") if n in filled), None)
    if kept is not None or "train" not in filled or calibration is None:
        return kept or {}
    with random_state(torch.device("cpu"), 0):
        found = densities(run.modalities, filled["train"], filled[calibration])
    tensors: dict[str, Tensor] = {}
    for name, density in found.items():
        for part in PARTS:
            tensors[f"{name}/{part}"] = getattr(density, part)
    numbers = {n: {"rest": d.rest, "low": d.low, "high": d.high} for n, d in found.items()}
    header = {"format": FORMAT, **_identity(run), "numbers": numbers}
    try:
        write_tensors(run.path / FILE, tensors, {"mmgen": json.dumps(header)})
    except WriteError:
        return found
    return read(run, run.modalities) or found  # the same numbers as the next time


class _Numbers(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    rest: Annotated[float, Field(gt=0)]
    low: float
    high: float


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    format: int
    data: str | None
    modalities: dict[str, dict[str, Any]]
    numbers: dict[str, _Numbers]


_FILES = Reader(RunError)


def read(run: Run, names: Iterable[str]) -> dict[str, Density] | None:
    """Reads the densities of some modalities; ``None`` if none are kept that are this run's.

    A damaged file counts as none: nothing but a warning depends on it.
    """
    file = run.path / FILE
    if not exists(file):
        return None
    try:
        with open_tensors(file, _FILES) as tensors:
            header = _Header.model_validate(tensors.header)
            if {**header.model_dump(include={"data", "modalities"})} != _identity(run):
                return None
            if header.format != FORMAT:
                return None
            found = {}
            for name in (n for n in names if n in header.numbers):
                centre, directions, variances = (tensors[f"{name}/{part}"] for part in PARTS)
                D, q = math.prod(run.modalities[name].shape), len(variances)
                if centre.shape != (D,) or directions.shape != (q, D):
                    return None
                numbers = header.numbers[name].model_dump()
                found[name] = Density(centre, directions, variances, **numbers)
            return found
    except (MmgenError, ValidationError, KeyError):
        return None


def unfamiliar(run: Run, given: Mapping[str, Any]) -> list[str]:
    """Says of each given value that is unlike the rows that a run was trained on that it is.

    Args:
        run: The trained run.
        given: One value for each name, as :meth:`mmgen.run.Run.generate` takes it. It has been
            taken: what cannot be read a second time is passed over.

    Returns:
        A sentence for each; none where nothing is kept of the run, see :func:`familiar`.
    """
    kept = read(run, given) or {}
    told = []
    for name, density in kept.items():
        with random_state(torch.device("cpu"), 0):
            try:
                x, _ = observations(
                    run.modalities, {name: given[name]}, torch.device("cpu"), torch.float32
                )
            except GenerationError:
                continue
        score = float(density.score(x[name])[0])
        if bool(density.unlike(x[name])[0]):
            told.append(
                f"{name}: is unlike what this run was trained on (log density "
                f"{number(score)} nats, of {1 - RARE:.0%} of held-out rows {number(density.low)} "
                f"to {number(density.high)}): what is generated from it may mean little"
            )
    return told


def _identity(run: Run) -> dict[str, Any]:
    """Returns what the densities of a run are of: another run in its folder has others."""
    data = run_folder.environment(run.path).get("dataset", {}).get("hash")
    return {"data": data, "modalities": {n: m.to_config() for n, m in run.modalities.items()}}
