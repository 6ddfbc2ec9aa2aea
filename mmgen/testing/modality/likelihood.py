"""Checks of a modality's likelihood p(x | z) and of the observations that it is for."""

from itertools import product
from math import prod
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from mmgen.modality import Modality
from mmgen.testing.modality.made import LATENT, latent, observed
from mmgen.testing.tools import require, seeded

MOST_EVENTS = 2**12
"""The most observations whose likelihoods are added up."""

POINTS = 100_000
"""The values that are drawn to integrate a density, and the whole numbers that are added up."""


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
    base, support = base_of(p), _support(p)
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
    p = modality.decoder(LATENT).double()(latent(3).double() / 5)
    if base_of(p).has_enumerate_support:
        total = _sum(p)
    elif prod(p.event_shape) == 1:
        total = _count(p) if _is_whole(p) else _integral(p)
    else:
        raise SkipTest("a density of many values cannot be integrated on a grid")
    require(
        ((total - 1).abs() < 0.01).all(),
        f"p(x | z) adds up to {[round(each, 4) for each in total.tolist()]} over all x, not to 1; "
        "correct log_prob",
    )


def base_of(p: Distribution) -> Distribution:
    """Returns the distribution inside of ``Independent``."""
    while isinstance(p, Independent):
        p = p.base_dist
    return p


def _support(p: Distribution) -> Any:
    return p.support


def _sum(p: Distribution) -> Tensor:
    base = base_of(p)
    values = base.enumerate_support(expand=False).reshape(-1, *base.event_shape)
    count = prod(p.event_shape) // prod(base.event_shape)
    if len(values) ** count > MOST_EVENTS:
        raise SkipTest(f"{len(values)}^{count} possible observations are too many to add up")
    events = torch.stack([torch.stack(event) for event in product(values, repeat=count)])
    return p.log_prob(events.reshape(-1, 1, *p.event_shape)).exp().sum(0)


def _is_whole(p: Distribution) -> bool:
    drawn = p.sample(torch.Size([1000]))
    return bool((drawn == drawn.round()).all())


def _count(p: Distribution) -> Tensor:
    """Adds up a density of one whole number, from 0 on."""
    if (p.sample(torch.Size([1000])) > POINTS / 10).any():
        raise SkipTest("its whole numbers are too large to add up")
    numbers = torch.arange(POINTS, dtype=torch.float64).reshape(-1, 1, *p.event_shape)
    numbers = numbers.expand(-1, *p.batch_shape, *p.event_shape)
    inside = _support(p).check(numbers)
    density = p.log_prob(torch.where(inside.reshape(numbers.shape), numbers, p.sample())).exp()
    total: Tensor = torch.where(inside, density, 0).sum(0)
    return total


def _integral(p: Distribution) -> Tensor:
    """Integrates a density of one value between what it draws, over the share that lies there.

    Cells follow the draws, so that heavy tails, poles at an end and circles do no harm.
    """
    drawn = p.sample(torch.Size([POINTS])).reshape(POINTS, -1).sort(0).values
    edges = drawn[POINTS // 100 : -POINTS // 100 : POINTS // 1000]
    low, width = edges[:-1], edges[1:] - edges[:-1]
    places = (torch.arange(100, dtype=low.dtype).reshape(-1, 1, 1) + 0.5) / 100
    events = (low + places * width).reshape(-1, *p.batch_shape, *p.event_shape)
    inside = _support(p).check(events)
    # A density may not be asked outside its support: those places are moved, and count as 0.
    x = torch.where(inside.reshape(events.shape), events, p.sample())
    density = torch.where(inside, p.log_prob(x).exp(), 0).reshape(*places.shape[:1], *width.shape)
    total: Tensor = (density.mean(0) * width).sum(0) / (len(width) / 1000)
    return total
