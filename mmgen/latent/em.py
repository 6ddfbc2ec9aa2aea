"""Mixtures of Gaussians with full covariances, fitted to points by expectation maximisation.

References:
    A. P. Dempster, N. M. Laird, D. B. Rubin, "Maximum Likelihood from Incomplete Data via the EM
    Algorithm", JRSS B 39(1), 1977; D. Arthur, S. Vassilvitskii, "k-means++: The Advantages of
    Careful Seeding", SODA 2007.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from mmgen.latent.correlated import FullGaussian
from mmgen.latent.mixture import Mixture

FLOOR = 1e-3
"""Added to the variance of every component in every direction: one point alone has none."""

ITERATIONS, GAIN = 200, 1e-3
"""The most iterations, and the gain of the mean log density in nats below which they end."""

LEAST = 20
"""Points that there must be for each component."""

HELD_OUT = 10
"""One point in so many judges how many components there are to be."""


@torch.no_grad()
def best_mixture(
    points: Tensor, counts: Iterable[int], symbol: str = "q(z)", *, held_out: int | None = None
) -> Mixture:
    """Fits mixtures of several numbers of components; returns the one likeliest on held-out points.

    Args:
        points: ``(N, Z)``, in random order: one in :data:`HELD_OUT` is held out.
        counts: How many components are tried; those with fewer than :data:`LEAST` points for each
            are left out, but for the smallest.
        symbol: Of the result.
        held_out: How many of the first points are held out; of none, the fewest components are.
    """
    first, *others = sorted(counts)
    judging, fitted = points.tensor_split(
        [len(points) // HELD_OUT if held_out is None else held_out]
    )
    tried = [first, *(count for count in others if len(judging) and count * LEAST <= len(fitted))]
    if len(tried) == 1:  # nothing is compared here, but perhaps by the caller
        alone = held_out is None or not len(fitted)
        return fit_mixture(points if alone else fitted, first, symbol)
    mixtures = [fit_mixture(fitted, count, symbol) for count in tried]
    return max(mixtures, key=lambda q: float(_densities(q, judging).logsumexp(-1).mean()))


@torch.no_grad()
def fit_mixture(points: Tensor, count: int, symbol: str = "q(z)") -> Mixture:
    """Fits one mixture, of batch shape ``()``; torch's random state says where it starts.

    Args:
        points: ``(N, Z)``.
        count: C, how many components; at most N.
        symbol: Of the result.
    """
    nearest = torch.cdist(points, _spread(points, count)).argmin(1)
    shares = torch.zeros(len(points), count, dtype=points.dtype, device=points.device)
    shares[torch.arange(len(points), device=points.device), nearest] = 1
    before = -torch.inf
    for _ in range(ITERATIONS):
        mixture = _likeliest(points, shares, symbol)
        log_p = _densities(mixture, points)
        total = log_p.logsumexp(1)
        now = float(total.mean())
        if now - before < GAIN:
            break
        before, shares = now, (log_p - total.unsqueeze(1)).exp()
    return mixture


def _spread(points: Tensor, count: int) -> Tensor:
    """Chooses points ``(C, Z)`` far from each other: with chances by the squared distance."""
    chosen = [points[torch.randint(len(points), (), device=points.device)]]
    squared = points.new_full((len(points),), torch.inf)
    for _ in range(count - 1):
        squared = torch.minimum(squared, (points - chosen[-1]).square().sum(1))
        # Where all points are chosen already, any other will do.
        chances = squared if bool(squared.sum() > 0) else torch.ones_like(squared)
        chosen.append(points[torch.multinomial(chances, 1)[0]])
    return torch.stack(chosen)


def _likeliest(points: Tensor, shares: Tensor, symbol: str) -> Mixture:
    """Returns the mixture of which points ``(N, Z)`` belong to components by shares ``(N, C)``."""
    sizes = shares.sum(0).clamp_min(torch.finfo(points.dtype).eps)
    means = shares.T @ points / sizes.unsqueeze(1)
    floor = FLOOR * torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    covariances = []
    for mean, share, size in zip(means, shares.T, sizes, strict=True):
        x = points - mean
        covariances.append((share.unsqueeze(1) * x).T @ x / size + floor)
    components = FullGaussian.of_covariance(means, torch.stack(covariances), symbol)
    return Mixture(components, symbol, log_weights=(sizes / sizes.sum()).log())


def _densities(mixture: Mixture, points: Tensor) -> Tensor:
    """Returns log w_c q_c(z) ``(N, C)``, one component after the other: it takes memory for one."""
    assert mixture.log_weights is not None
    each = zip(range(len(mixture.log_weights)), mixture.log_weights, strict=True)
    return torch.stack([mixture.components[c].log_prob(points) + w for c, w in each], 1)
