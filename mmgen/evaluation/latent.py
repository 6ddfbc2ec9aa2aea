"""What a trained model keeps in z: its principal axes, the dimensions in use, and what they tell.

References:
    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016,
    section 5.1 (active units).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.models import Batch, Model
from mmgen.models.conditional import Conditional
from mmgen.models.cvae import CVAE
from mmgen.models.hierarchical import Hierarchical
from mmgen.models.jmvae import JMVAE
from mmgen.nets.posterior import gaussian
from mmgen.subsets import Subset

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
    """Returns the mean of q(z|x), or of each q(z_l|x) of a hierarchy: ``(N, Z)`` a layer."""
    if isinstance(model, Hierarchical):
        parts = [[q.mean for q in model.posterior(part)] for part in _parts(x)]
    elif isinstance(model, Conditional):  # whose infer() may hold more than z
        parts = [[model.posterior(part).mean] for part in _parts(x)]
    else:
        parts = [[model.infer(part, temperature=0.0)[0]] for part in _parts(x)]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def active_units(means: Tensor) -> Tensor:
    """Tells which dimensions are in use: Var_x(E_q(z_d|x)[z_d]) > 0.01, ``(Z,)``.

    Args:
        means: Posterior means of observations ``(N, Z)``.
    """
    return means.var(0, correction=0) > ACTIVE


@torch.no_grad()
def subset_divergences(model: Model, x: Batch) -> dict[Subset, float]:
    """Returns the mean KL(q(z|x) ‖ q(z|x_S)) in nats for each subset S with an encoder.

    Small values say that S alone leads to the z that all modalities together lead to. Empty if
    the model has no subset encoders. In closed form; by one z a row, drawn from torch's random
    state, where q(z|x_S) is a flow.

    Args:
        model: In eval mode.
        x: Observations ``(N, *shape)`` of all modalities.
    """
    if not isinstance(model, JMVAE) or not model.subsets:
        return {}
    total = torch.zeros(len(model.subsets), device=_like(x).device)
    for part in _parts(x):
        h = model.encoder.encode(part)
        q = gaussian(h[-1])
        total += model.divergences(q, q.sample(), h[:-1]).sum(-1)
    means = (total / len(_like(x))).tolist()
    return dict(zip(model.subsets, means, strict=True))


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
    if len(_like(x)) < 2:
        return {}
    if not isinstance(model, CVAE):
        return _gains(model, x, torch.cat([model.infer(part)[0] for part in _parts(x)]))
    z = torch.cat([model.posterior(part).rsample() for part in _parts(x)])
    own = model.log_likelihoods(x, model.read(z, x))
    shifts = _shifts(len(z), OTHERS_DECODED)
    others = [model.log_likelihoods(x, model.read(z.roll(s, 0), x)) for s in shifts]
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
    if model.given is None or len(_like(x)) < 2:
        return {}
    parts = [{n: part[n] for n in model.given} for part in _parts(x)]
    return _gains(model, x, torch.cat([model.infer(part, temperature=0.0)[0] for part in parts]))


def _gains(model: Model, x: Batch, z: Tensor) -> dict[str, float]:
    gains = {}
    for name, p in model.decode(z).items():
        own = p.log_prob(x[name]).mean()
        shifts = _shifts(len(z), OTHERS)  # one shifted copy of x at a time
        others = torch.stack([p.log_prob(x[name].roll(s, 0)).mean() for s in shifts])
        gains[name] = float(own - others.mean())
    return gains


def _shifts(count: int, most: int) -> range:
    """Returns by how much rows are shifted to meet up to ``most`` others, all different."""
    return range(1, count, -(-(count - 1) // most))


def _parts(x: Batch) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(_like(x)), ROWS):
        yield {name: values[start : start + ROWS] for name, values in x.items()}


def _like(x: Batch) -> Tensor:
    return next(iter(x.values()))
