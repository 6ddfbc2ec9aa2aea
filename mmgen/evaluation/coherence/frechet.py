"""The Fréchet distance of two sets of features, each of them taken for a Gaussian.

References:
    M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium", NeurIPS 2017, equation 6.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.brief import OneLine

Moments = tuple[Tensor, Tensor]
"""Mean ``(n,)`` and covariance ``(n, n)``."""

GROUPS = 10
"""Parts of the rows, each of which is left out once for the standard error."""


def moments(features: Tensor) -> Moments:
    """Returns mean and covariance of features ``(B, n)``."""
    return features.mean(0), torch.cov(features.T)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Returns the squared 2-Wasserstein distance of two Gaussians.

    Examples:
        >>> one, four = torch.eye(2, dtype=torch.float64), 4 * torch.eye(2, dtype=torch.float64)
        >>> zero = torch.zeros(2, dtype=torch.float64)
        >>> round(frechet_distance((zero, one), (zero + 3, four)), 6)  # 2·3² + 2·(2 − 1)²
        20.0
    """
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    between = (mean_a - mean_b).square().sum()
    return float(between + cov_a.trace() + cov_b.trace() - 2 * cross)


@dataclass(frozen=True, eq=False, repr=False)
class Sums(OneLine):
    """What mean and covariance are made of, for features that come block by block: it adds up.

    Attributes:
        count: How many rows, N.
        total: Their sum ``(n,)``.
        products: Σ f fᵀ ``(n, n)``.
    """

    count: int
    total: Tensor
    products: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Sums":
        """Returns those of features ``(B, n)``, in double precision on the CPU."""
        f = features.cpu().double()
        return cls(len(f), f.sum(0), f.T @ f)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.count + other.count, self.total + other.total, self.products + other.products
        )

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(
            self.count - other.count, self.total - other.total, self.products - other.products
        )

    @property
    def moments(self) -> Moments:
        """Mean and covariance; of fewer than two rows the covariance is 0."""
        mean = self.total / self.count
        scatter = self.products - self.count * torch.outer(mean, mean)
        return mean, scatter / max(1, self.count - 1)


def grouped(features: Tensor) -> list[Sums]:
    """Deals features ``(B, n)`` out to :data:`GROUPS` groups, row by row."""
    return [Sums.of(features[start::GROUPS]) for start in range(GROUPS)]


def frechet_with_error(a: Sequence[Sums], b: Sequence[Sums]) -> tuple[float, float]:
    """Returns the Fréchet distance of two sets of rows, and its standard error by jackknife.

    Each group is left out of both sets once: with θ₋ⱼ the distance without group j of G, the error
    is √((G − 1)/G Σⱼ (θ₋ⱼ − mean)²). NaN where a group is empty.

    Args:
        a: The groups of one set, as :func:`grouped` gives them.
        b: Those of the other.
    """
    all_a, all_b = _total(a), _total(b)
    value = frechet_distance(all_a.moments, all_b.moments)
    if not all(group.count for group in (*a, *b)):
        return value, math.nan
    without = torch.tensor(
        [
            frechet_distance((all_a - one).moments, (all_b - other).moments)
            for one, other in zip(a, b, strict=True)
        ],
        dtype=torch.float64,
        device="cpu",
    )
    return value, math.sqrt((len(a) - 1) * without.var(correction=0).item())


def _total(groups: Sequence[Sums]) -> Sums:
    first, *others = groups
    return sum(others, first)
