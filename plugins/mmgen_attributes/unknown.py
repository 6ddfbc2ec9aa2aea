"""Attributes of which some are unknown: what they are observed as, and their likelihood."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.distributions.constraints import Constraint, independent, is_dependent

UNKNOWN = 2
"""What is stored of an attribute that is unknown, where off and on are 0 and 1."""


class _Known(Constraint):
    """What a constraint allows, or the value that stands for unknown."""

    def __init__(self, known: Constraint, unknown: float) -> None:
        self.known, self.unknown = known, unknown
        self.is_discrete = known.is_discrete
        super().__init__()

    def check(self, value: Any) -> Any:
        """Tells of each value whether it is allowed."""
        return self.known.check(value) | (value == self.unknown)

    def __repr__(self) -> str:
        return f"{self.known}, or {self.unknown:g} for unknown"


class PartlyKnown(Independent):  # type: ignore[type-arg]
    """Independent values, of which those that are unknown are summed out: each has log 1.

    So log p(x | z) is that of what is known of x, and what is unknown moves no weight.

    Args:
        each: Of batch shape ``(B, A)``.
        unknown: What stands for an unknown value in observations; no value can be it.

    Examples:
        >>> from torch.distributions import Bernoulli
        >>> p = PartlyKnown(Bernoulli(torch.tensor([[0.8, 0.3]]), validate_args=False), 0.5)
        >>> p.log_prob(torch.tensor([[1.0, 0.5]])).exp()
        tensor([0.8000])
    """

    def __init__(self, each: Distribution, unknown: float) -> None:
        self.unknown = unknown
        super().__init__(each, 1, validate_args=False)

    @property
    def support(self) -> Any:
        """What values can be."""
        known = self.base_dist.support
        return independent(known if is_dependent(known) else _Known(known, self.unknown), 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-likelihood of what is known of values ``(..., A)``, in nats."""
        each = self.base_dist.log_prob(value)
        return torch.where(value == self.unknown, 0, each).sum(-1)
