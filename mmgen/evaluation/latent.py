"""What a trained model keeps in z: its principal axes, the dimensions in use, and what they tell.

References:
    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016,
    section 5.1 (active units).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.inference.sample import infer
from mmgen.latent.base import Latent
from mmgen.model import Model, log_likelihoods

ACTIVE = 0.01
"""A dimension of z is active if the variance of its posterior mean over the data is above this."""

ROWS = 100
"""Rows that are encoded at a time: no more than in training, whose memory there was."""

OTHERS = 31
"""With how many other rows' z each row is decoded, to compare."""

OTHERS_DECODED = 7
"""The same where each of them takes a decoding of its own."""


@dataclass(frozen=True, repr=False)
class Axes(OneLine):
    """The principal axes of a cloud of points.

    Attributes:
        centre: Its mean, ``(Z,)``.
        directions: Orthonormal, the one of most variance first, ``(n, Z)``.
        shares: The share of all variance along each, ``(n,)``; zeros if all points are one.
    """

    centre: Tensor
    directions: Tensor
    shares: Tensor

    def project(self, points: Tensor) -> Tensor:
        """Returns the coordinates of points ``(N, Z)`` along the axes: ``(N, n)``."""
        return (points - self.centre) @ self.directions.T


def principal_axes(points: Tensor, count: int = 2) -> Axes:
    """Finds the directions of most variance, by a singular value decomposition.

    Args:
        points: ``(N, Z)``.
        count: How many directions; at most as many as there are points and dimensions.

    Returns:
        The axes. The largest entry of each is positive, so that the same points always give the
        same picture.
    """
    centre = points.mean(0)
    _, singular, directions = torch.linalg.svd(points - centre, full_matrices=False)
    directions = directions[:count]
    largest = directions.abs().argmax(1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    variances = singular.square()
    shares = variances[:count] / variances.sum().clamp_min(torch.finfo(points.dtype).tiny)
    return Axes(centre, directions, shares)


@torch.no_grad()
def posterior_means(model: Model, x: Batch) -> list[Tensor]:
    """Returns the mean of q(z|x), ``(N, Z)``, one per layer of latents."""
    means = torch.cat([_posterior(model, part).mean for part in _parts(x)])
    return [*means.flatten(1, -2).unbind(1)] if means.dim() > 2 else [means]


def _posterior(model: Model, x: Batch) -> Latent:
    q = model.posterior(x.select(model.names))
    assert q is not None
    return q


def active_units(means: Tensor) -> Tensor:
    """Tells which dimensions are in use: Var_x(E_q(z_d|x)[z_d]) > 0.01, ``(Z,)``.

    Args:
        means: Posterior means of observations ``(N, Z)``.
    """
    return means.var(0, correction=0) > ACTIVE


@torch.no_grad()
def own_gains(model: Model, x: Batch) -> dict[str, float]:
    """Returns how much likelier each modality is from its own z than from another row's, in nats.

    E_i[log p(x_k,i|z_i)] − E_(i≠j)[log p(x_k,i|z_j)] with z_i ~ q(z|x_i), one a row, and up to 31
    other rows each. A decoder that does not look at z gives 0, and so does a z that knows nothing
    of the modality. Decoders that read x_C beside z read a row's own x_C throughout.

    Args:
        model: In eval mode.
        x: Observations ``(N, *shape)`` of all modalities.

    Returns:
        By modality that is generated; empty if there is no other row.
    """
    if x.rows < 2:
        return {}
    z = torch.cat([_posterior(model, part).rsample() for part in _parts(x)])
    if not model.decoder_given:
        return _gains(model, x, z)
    own = log_likelihoods(model, x, z)
    shifts = _shifts(len(z), OTHERS_DECODED)
    others = [log_likelihoods(model, x, z.roll(s, 0)) for s in shifts]
    return {
        n: float(value.mean() - torch.stack([other[n].mean() for other in others]).mean())
        for n, value in own.items()
    }


@torch.no_grad()
def given_gains(model: Model, x: Batch) -> dict[str, float]:
    """Returns how much likelier targets are from their own x_C than from another row's, in nats.

    As :func:`own_gains`, with z_i at the mean of the prior given x_C,i alone, for a model of one
    direction: 0 says that it does not matter what is given.

    Args:
        model: In eval mode.
        x: Observations ``(N, *shape)`` of all modalities.

    Returns:
        By target; empty if there is no other row, or the model has no direction.
    """
    if model.directions is None or x.rows < 2:
        return {}
    z = [_prior_mean(model, part.select(model.directions.given)) for part in _parts(x)]
    return _gains(model, x, torch.cat(z))


def _prior_mean(model: Model, given: Batch) -> Tensor:
    p = infer(model, given)
    assert p is not None
    return p.mean.expand(given.rows, *p.event_shape)


def _gains(model: Model, x: Batch, z: Tensor) -> dict[str, float]:
    gains = {}
    for name, p in model.decode(z, x.select(model.decoder_given)).items():
        own = p.log_prob(x[name]).mean()
        shifts = _shifts(len(z), OTHERS)  # one shifted copy of x at a time
        others = torch.stack([p.log_prob(x[name].roll(s, 0)).mean() for s in shifts])
        gains[name] = float(own - others.mean())
    return gains


def _shifts(count: int, most: int) -> range:
    """Returns by how much rows are shifted to meet up to ``most`` others, all different."""
    return range(1, count, -(-(count - 1) // most))


def _parts(x: Batch) -> Iterator[Batch]:
    for start in range(0, x.rows, ROWS):
        yield x.slice(start, start + ROWS)
