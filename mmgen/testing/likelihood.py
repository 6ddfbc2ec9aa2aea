"""Checks of a modality's likelihood p(x | z) and of the observations that it is for."""

from itertools import product
from math import pi, prod
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from mmgen.modality import Modality
from mmgen.testing.tools import LATENT, latent, observed, require, seeded

MOST_EVENTS = 2**12
"""How many observations are added up at most."""

POINTS = 100_000
"""At how many places a density is integrated."""


@seeded
def check_shapes(modality: Modality) -> None:
    """Shapes are as promised for batches of 1, 2 and 7, in the default dtype."""
    encoder, decoder = modality.encoder().eval(), modality.decoder(LATENT).eval()
    features = {_check_shapes(modality, encoder, decoder, rows) for rows in (1, 2, 7)}
    require(len(features) == 1, f"the encoder's features vary with the batch size: {features}")


def _check_shapes(
    modality: Modality, encoder: torch.nn.Module, decoder: torch.nn.Module, rows: int
) -> int:
    shape, x = tuple(modality.shape), observed(modality, rows)
    promised = (rows, *shape)
    require(
        x.shape == promised and x.dtype == torch.get_default_dtype(),
        f"observe() gave {x.dtype} {tuple(x.shape)}, but shape promises "
        f"{torch.get_default_dtype()} {promised}; make the two agree",
    )
    h = encoder(x)
    require(
        h.dim() == 2 and len(h) == rows,
        f"the encoder gave {tuple(h.shape)} for {rows} rows; give (B, features), flattened",
    )
    p = decoder(latent(rows))
    require(
        isinstance(p, Distribution),
        f"the decoder gave a {type(p).__name__}; give a torch Distribution, as blocks.Likelihood",
    )
    require(
        p.batch_shape == (rows,) and p.event_shape == shape,
        f"the likelihood has batch shape {tuple(p.batch_shape)} and event shape "
        f"{tuple(p.event_shape)}, not ({rows},) and {shape}; see torch.distributions.Independent",
    )
    for what, value in (("mean", p.mean), ("sample()", p.sample())):
        require(
            value.shape == promised,
            f"the likelihood's {what} is {tuple(value.shape)}, not {promised}; give it that shape",
        )
    got = tuple(p.log_prob(x).shape)
    require(got == (rows,), f"log_prob gave {got} for {rows} rows; add up the event's dimensions")
    return int(h.shape[1])


@seeded
def check_finite(modality: Modality) -> None:
    """Observations, features, means, samples and log-likelihoods are finite, for wide z too."""
    x, p = observed(modality, 7), modality.decoder(LATENT)(latent(7))
    values = {
        "observe()": x,
        "the encoder": modality.encoder()(x),
        "the likelihood's mean": p.mean,
        "the likelihood's sample()": p.sample(),
        "log_prob of an observation": p.log_prob(x),
        "log_prob of a sample": p.log_prob(p.sample()),
    }
    for what, value in values.items():
        bad = value[~value.isfinite()]
        require(
            not len(bad),
            f"{what} gave {bad[:1].tolist()}; guard logarithms, divisions and variances near zero",
        )


@seeded
def check_support(modality: Modality) -> None:
    """The likelihood's parameters are possible; its support holds observations and samples."""
    # In float64, because the constraints' own tolerances are narrow.
    x, p = observed(modality, 7).double(), modality.decoder(LATENT).double()(latent(7).double())
    base, support = _base(p), _support(p)
    for name, constraint in base.arg_constraints.items():
        if constraints.is_dependent(constraint):
            continue
        require(
            constraint.check(getattr(base, name)).all(),
            f"{type(base).__name__} got {name} outside {constraint}; if they are logits, "
            "say so: logits=...",
        )
    for what, value in (("observe()", x), ("the likelihood's sample()", p.sample())):
        require(
            support.check(value).all(),
            f"{what} leaves the likelihood's support, {support}; scale the observations, or "
            "choose another likelihood, so that the two fit",
        )


@seeded
def check_normalised(modality: Modality) -> None:
    """The likelihoods of all observations add up to one, where they can be listed."""
    p = modality.decoder(LATENT).double()(latent(3).double())
    if _base(p).has_enumerate_support:
        total = _sum(p)
    elif prod(p.event_shape) == 1:
        total = _integral(p)
    else:
        raise SkipTest("a density of many values cannot be integrated on a grid")
    require(
        ((total - 1).abs() < 0.01).all(),
        f"p(x | z) adds up to {[round(each, 4) for each in total.tolist()]} over all x, not to 1; "
        "correct log_prob",
    )


def _base(p: Distribution) -> Distribution:
    while isinstance(p, Independent):
        p = p.base_dist
    return p


def _support(p: Distribution) -> Any:
    return p.support


def _sum(p: Distribution) -> Tensor:
    base = _base(p)
    values = base.enumerate_support(expand=False).reshape(-1, *base.event_shape)
    count = prod(p.event_shape) // prod(base.event_shape)
    if len(values) ** count > MOST_EVENTS:
        raise SkipTest(f"{len(values)}^{count} possible observations are too many to add up")
    events = torch.stack([torch.stack(event) for event in product(values, repeat=count)])
    return p.log_prob(events.reshape(-1, 1, *p.event_shape)).exp().sum(0)


def _integral(p: Distribution) -> Tensor:
    """Integrates a density of one value: x = centre + scale · tan θ reaches heavy tails too."""
    low, centre, high = p.sample(torch.Size([1000])).flatten().sort().values[[750, 1500, 2250]]
    theta = ((torch.arange(POINTS, dtype=low.dtype) + 0.5) / POINTS - 0.5) * pi
    events = (centre + (high - low) * theta.tan()).reshape(-1, 1, *p.event_shape)
    events = events.expand(-1, *p.batch_shape, *p.event_shape)
    inside = _support(p).check(events)
    # A density may not be asked outside its support: those places are moved, and count as 0.
    x = torch.where(inside.reshape(events.shape), events, p.sample())
    density = torch.where(inside, p.log_prob(x).exp(), 0)
    total: Tensor = (
        (density * ((high - low) / theta.cos().square()).unsqueeze(1)).sum(0) * pi / POINTS
    )
    return total
