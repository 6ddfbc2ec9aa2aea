"""Measurements in units of their own: read, standardised, and written again."""

from collections.abc import Mapping, Sequence
from math import isfinite, log10
from typing import Annotated, Any

import torch
from pydantic import Field, FiniteFloat
from torch import Tensor

from mmgen.data.cells import number
from mmgen.errors import listed

LEAST_DEVIATION = 1e-30
"""A column that varies less is constant: float32 could not divide by its deviation."""

Deviation = Annotated[FiniteFloat, Field(gt=LEAST_DEVIATION)]
"""A standard deviation that can be divided by."""


def read_numbers(cell: str, names: Sequence[str]) -> Tensor:
    """Reads one number for each name, joined by commas, as float32 ``(C,)``.

    Raises:
        ValueError: If there are too few or too many, or one is not a finite number.

    Examples:
        >>> read_numbers("1.72, 64", ["height", "weight"])
        tensor([ 1.7200, 64.0000])
    """
    words = [word.strip() for word in cell.split(",")]
    if len(words) != len(names):
        raise ValueError(
            f"{cell!r} has {len(words)} of the {len(names)} numbers that are needed: "
            f"{listed(names)}, joined by commas"
        )
    read = [float("nan") if (value := number(word)) is None else value for word in words]
    values = torch.tensor(read, dtype=torch.float32)  # what is too large for it is infinite there
    for word, name, finite in zip(words, names, values.isfinite().tolist(), strict=True):
        if not finite:
            raise ValueError(f"{word!r} is no finite number, so it cannot be the {name}")
    return values


def unnamed(value: Any, names: Sequence[str]) -> Any:
    """Returns the values of a dictionary in the order of the names; all else as it is.

    Raises:
        ValueError: If the dictionary has other names.
    """
    if not isinstance(value, Mapping):
        return value
    if {*value} != {*names}:
        raise ValueError(f"it names {listed(map(str, value))}; needed are {listed(names)}")
    return [value[name] for name in names]


def measure(
    stored: Tensor, mean: Sequence[float] = (), deviation: Sequence[float] = ()
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and standard deviation of each column, to standardise by.

    A column that is constant, up to the rounding of float32, has the deviation 1: it is only
    shifted. Without any rows, the means are 0.

    Args:
        stored: ``(N, C)``, finite.
        mean: C means that are set already; empty to measure them.
        deviation: C standard deviations that are set already; empty to measure them.

    Returns:
        C means and C standard deviations, which are positive.
    """
    values, count = stored.double(), max(1, len(stored))  # float32 would lose sums of many rows
    middle = values.sum(0) / count
    spread = ((values - middle).square().sum(0) / count).sqrt()
    constant = spread <= (1e-6 * middle.abs()).clamp(min=LEAST_DEVIATION)
    measured = spread.where(~constant, 1)
    return tuple(mean or middle.tolist()), tuple(deviation or measured.tolist())


def standardise(stored: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """Subtracts the means of ``(B, C)`` and divides by the deviations, on its device.

    Args:
        stored: ``(B, C)``, in units of their own.
        mean: C means; empty stands for 0.
        deviation: C standard deviations; empty stands for 1.
    """
    x = stored.to(torch.get_default_dtype())
    # Copied beside the step, which waits for no device.
    shift, scale = (
        torch.tensor(values, dtype=x.dtype, device="cpu").to(x.device, non_blocking=True)
        for values in (mean or [0.0], deviation or [1.0])
    )
    return (x - shift) / scale


def in_own_units(x: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """Undoes :func:`standardise`: ``(n, C)`` of any precision, as float64 on the CPU."""
    shift, scale = (
        torch.tensor(values, dtype=torch.float64, device="cpu")
        for values in (mean or [0.0], deviation or [1.0])
    )
    return x.detach().to("cpu", torch.float64) * scale + shift


def rounded(value: float, deviation: float) -> str:
    """Rounds a number to about a tenth of the standard deviation of such numbers.

    Examples:
        >>> rounded(1.7234, 0.1), rounded(64.27, 12.5), rounded(1234567.0, 2000.0)
        ('1.72', '64', '1234600')
    """
    if not isfinite(value):
        return str(value)
    return f"{round(value, 1 - round(log10(deviation))) + 0.0:.12g}"  # + 0.0: not -0


def describe(
    x: Tensor, names: Sequence[str], mean: Sequence[float], deviation: Sequence[float]
) -> list[str]:
    """Describes standardised rows in their own units: ``"height 1.72, weight 64"``.

    Args:
        x: ``(n, C)``.
        names: The names of the C columns.
        mean: C means; empty stands for 0.
        deviation: C standard deviations; empty stands for 1.
    """
    means, deviations = mean or [0.0] * len(names), deviation or [1.0] * len(names)
    columns = list(zip(names, means, deviations, strict=True))
    return [
        ", ".join(
            f"{name} {rounded(value * scale + middle, scale)}"
            for value, (name, middle, scale) in zip(row, columns, strict=True)
        )
        for row in x.tolist()
    ]


def column_score(cells: Sequence[str]) -> float:
    """Returns 0.8 for a column of measured numbers, 0.3 for few different whole ones, else 0.

    One cell in ten may be wrong. Few whole numbers are more likely classes or switches.
    """
    values = [value for cell in cells if (value := number(cell)) is not None]
    if len(values) <= 0.9 * len(cells):
        return 0.0
    counted = len(set(values)) <= 20 and all(value.is_integer() for value in values)
    return 0.3 if counted else 0.8
