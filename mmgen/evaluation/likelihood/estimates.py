"""A likelihood estimate of many rows, and how much is drawn for it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.evaluation.directions import log_p
from mmgen.subsets import Subset

Estimator = Literal["single", "multiple", "importance"]

ENOUGH = 10
"""The effective sample size below which a few z decide a row's likelihood."""

MOST = 1_000_000
"""The most z of each distribution that are foretold to do."""


@dataclass(frozen=True, repr=False)
class SamplingBudget(OneLine):
    """How much is drawn.

    Attributes:
        samples: N of the Monte Carlo estimates (eq. 11); 10 in the paper, 0 leaves them out.
        importance: N of the importance-sampled estimates, of each distribution that z are drawn
            from; 0 leaves them out.
        iterations: T of iterative sampling, for every subset. Without it, subsets with an encoder
            use it, and the others iterate 50 times.
        temperature: Of what Monte Carlo draws z from where some modalities are missing, see
            :func:`mmgen.nets.posterior.draw`.
        chunk: The most latents decoded at a time. Bounds memory, changes no number.
        seed: Fixes all draws, and what stochastic observations show.
    """

    samples: int = 10
    importance: int = 100
    iterations: int | None = None
    temperature: float = 1.0
    chunk: int = 1000
    seed: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Estimate(OneLine):
    """One likelihood of many rows.

    Attributes:
        targets: T.
        given: S; empty for a joint or marginal likelihood.
        estimator: ``single`` or ``multiple`` (Monte Carlo, eq. 11), or ``importance`` (IWAE).
        z: What z was drawn from: ``"q(z|label)"``.
        samples: How many z per row, of all distributions together.
        values: The estimate of each row in nats, float64 on the CPU, ``(rows,)``.
        ess: The effective sample size (Σ w)² / Σ w² of each row, between 1 and ``samples``, for
            importance sampling. Of a ratio of two sums, the smaller one.
        ess_half: That of half of the z, by which it is told how it grows; NaN of a single z.
    """

    targets: Subset
    given: Subset
    estimator: Estimator
    z: str
    samples: int
    values: Tensor
    ess: Tensor | None = None
    ess_half: Tensor | None = None

    @property
    def quantity(self) -> str:
        """What is estimated: ``"log p(image | label)"``; ``"... | label, image)"`` if multiple."""
        own = self.targets if self.estimator == "multiple" else ()
        return log_p(self.targets, [*self.given, *own])

    @property
    def nats(self) -> float:
        """The mean over rows."""
        return self.values.mean().item()

    @property
    def few(self) -> Tensor:
        """Which rows have an effective sample size below :data:`ENOUGH`, ``(rows,)``."""
        ess = torch.full_like(self.values, math.inf) if self.ess is None else self.ess
        return ess < ENOUGH

    @property
    def times(self) -> float:
        """About how many times as many z would give the :attr:`few` rows :data:`ENOUGH` on average.

        The effective sample size grows as a power of the number of z: 1 where weights have a
        variance and there are enough z to see it, less where their tails are heavy. The power is
        read off that of half of the z, of all rows; both averages are geometric.

        Returns:
            1 where there are no such rows; infinite where it does not grow.
        """
        if self.ess is None or self.ess_half is None or not self.few.any():
            return 1.0
        growth = (self.ess / self.ess_half).log2().nan_to_num(1.0)  # a single z says nothing of it
        power = min(1.0, growth.mean().item())
        missing = math.log(ENOUGH) - self.ess[self.few].log().mean().item()
        grows = power * math.log(MOST) > missing
        return math.exp(missing / power) if grows else math.inf

    @property
    def standard_error(self) -> float:
        """The standard error of :attr:`nats` over rows, the noise of z included; NaN of one row."""
        count = len(self.values)
        return self.values.std().item() / math.sqrt(count) if count > 1 else math.nan


def rows_note(estimates: Iterable[Estimate], rows: int) -> tuple[str, ...]:
    """Says of how many rows estimates are that are not of all, since some lack modalities."""
    counts: dict[int, dict[str, None]] = {}
    for e in estimates:
        if len(e.values) < rows:
            counts.setdefault(len(e.values), {})[e.quantity] = None
    return tuple(
        f"of {count:,} of {rows:,} rows, which have all that it takes: {'; '.join(quantities)}"
        for count, quantities in counts.items()
    )


def notes_of(estimates: Iterable[Estimate], importance: int) -> tuple[str, ...]:
    """Says which estimates have rows with an effective sample size below :data:`ENOUGH`.

    Args:
        estimates: Of importance sampling, or others, which have none.
        importance: N of them; about how large it would have to be is told, see
            :attr:`Estimate.times`.
    """
    return tuple(_few(e, importance) for e in estimates if e.few.any())


def _few(e: Estimate, importance: int) -> str:
    assert e.ess is not None
    count, rows = int(e.few.sum()), len(e.values)
    where = (
        f"{e.quantity}: the effective sample size is below {ENOUGH} in {count:,} of {rows:,} rows "
        f"(least {e.ess.min():.1f})"
    )
    wanted = importance * e.times
    if wanted > MOST:
        return f"{where} and hardly grows with the number of z: a few of them decide"
    return f"{where}; about --importance {_rounded_up(wanted)} would do"


def _rounded_up(value: float, digits: int = 2) -> int:
    unit = int(10 ** max(0, math.floor(math.log10(value)) + 1 - digits))
    return math.ceil(value / unit - 1e-6) * unit  # 10.0000001 is 10
