"""A likelihood estimate of many rows, and how much is drawn for it."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mmgen.brief import OneLine
from mmgen.evaluation.directions import log_p
from mmgen.subsets import Subset

Estimator = Literal["single", "multiple", "importance"]


@dataclass(frozen=True, repr=False)
class SamplingBudget(OneLine):
    """How much is drawn.

    Attributes:
        samples: N of the Monte Carlo estimates (eq. 11); 10 in the paper, 0 leaves them out.
        importance: N of the importance-sampled estimates; 0 leaves them out.
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
        samples: How many z per row.
        values: The estimate of each row in nats, float64 on the CPU, ``(rows,)``.
        ess: The effective sample size of each row, between 1 and ``samples``, for importance
            sampling. Of a difference of two estimates, the smaller one.
    """

    targets: Subset
    given: Subset
    estimator: Estimator
    z: str
    samples: int
    values: Tensor
    ess: Tensor | None = None

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
    def standard_error(self) -> float:
        """The standard error of :attr:`nats` over rows, the noise of z included; NaN of one row."""
        count = len(self.values)
        return self.values.std().item() / math.sqrt(count) if count > 1 else math.nan
