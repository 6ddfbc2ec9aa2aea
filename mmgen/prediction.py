"""What a value most probably is, and how sure that is: what a modality says of its own values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmgen.brief import OneLine

if TYPE_CHECKING:
    from torch import Tensor

Value = str | float | bool
"""A class's name, a measurement in its own unit, whether an attribute is on."""


@dataclass(frozen=True, repr=False)
class Told(OneLine):
    """One column of a table: what it most probably holds in each of n rows.

    Attributes:
        values: The most probable values, n of them; of measurements the means.
        confidence: The probability of each, where values are of a few.
        deviation: The standard deviation around each, where they are measurements.
    """

    values: Sequence[Value]
    confidence: Sequence[float] | None = None
    deviation: Sequence[float] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(OneLine):
    """What a modality most probably is in each of n rows, given what they have.

    Attributes:
        columns: In the modality's own words, by the names of its columns (``"height"``); of a kind
            that has one column, by the modality's name.
        mean: E[x | what a row has], as nets see values: ``(n, *shape)``. Of pictures it is this
            that one looks at.
        deviation: The standard deviation of each number of x, ``(n, *shape)``.
    """

    columns: Mapping[str, Told]
    mean: "Tensor"
    deviation: "Tensor"

    @property
    def values(self) -> Sequence[Value]:
        """The most probable values of the only column."""
        return self._only.values

    @property
    def confidence(self) -> Sequence[float] | None:
        """The probability of each value of the only column."""
        return self._only.confidence

    @property
    def _only(self) -> Told:
        if len(self.columns) != 1:
            raise AttributeError(f"it has several columns: .columns[...] of {[*self.columns]}")
        return next(iter(self.columns.values()))
