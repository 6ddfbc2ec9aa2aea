"""Checks that a likelihood becomes confident of one observation when it is fitted to it alone."""

from unittest import SkipTest

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from mmgen.modality import Modality
from mmgen.testing.modality.likelihood import base_of
from mmgen.testing.modality.made import LATENT, latent, observed
from mmgen.testing.tools import require, seeded

RATES = (0.01, 0.1, 1.0)
"""Adam's learning rates, each from fresh weights: values may be far from where nets start."""

STEPS = 100
"""The most steps for each learning rate."""

EVERY = 5
"""The number of steps between two measurements of the fit."""

CLOSE = 0.2
"""The most distance of the mean from bits and classes: a sigmoid taken for a logit has 0.27."""

CLOSER = 0.1
"""The most distance from grey values, from which even a fair guess is not far."""

NOISE = 0.5
"""The most nats by which a value may be less probable than what the likelihood draws."""


@seeded
def check_confidence(modality: Modality) -> None:
    """Fitted to one observation alone, the likelihood becomes sure of it."""
    x, z = observed(modality, 1), latent(1)
    nearest, family = float("inf"), ""
    for rate in RATES:
        decoder = modality.decoder(LATENT).eval()
        parameters = [each for each in decoder.parameters() if each.requires_grad]
        if not parameters:
            raise SkipTest("the decoder has no parameters")
        distance, family = _fit(decoder, parameters, x, z, rate)
        if distance == 0:
            return
        nearest = min(nearest, distance)
    require(
        False,
        f"fitted to one observation alone, the mean of {family} stays {nearest:.2g} from it; are "
        "probabilities handed over as logits, or is a net's output squashed? Give the output of "
        "the last linear layer to logits=...; keep observations where the mean can be",
    )


def _fit(
    decoder: nn.Module, parameters: list[nn.Parameter], x: Tensor, z: Tensor, rate: float
) -> tuple[float, str]:
    """Fits the decoder to x; returns the least distance that was seen, 0 if it is close."""
    optimiser = torch.optim.Adam(parameters, lr=rate)
    nearest, family = float("inf"), ""
    with torch.enable_grad():
        for step in range(STEPS + 1):
            try:
                p = decoder(z)
                log_p = p.log_prob(x).mean()
            except ValueError:  # validated parameters, after steps that were too wide
                if step == 0:
                    raise
                break
            family = type(base_of(p)).__name__.lstrip("_")
            if not log_p.isfinite() or not log_p.requires_grad:
                break
            if step % EVERY == 0:
                distance = _distance(p, x)
                if distance <= _close(p) or _within_noise(p, x, float(log_p.detach())):
                    return 0.0, family
                nearest = min(nearest, distance)
            optimiser.zero_grad()
            (-log_p).backward()
            optimiser.step()
    return nearest, family


def _distance(p: Distribution, x: Tensor) -> float:
    """Returns how far the mean is from x, on average over its values; nan if there is no mean."""
    apart = (p.mean - x).abs().detach()
    if _is_share(p):
        # Of n classes or shares, what is missing in one is too much in the others.
        whole = getattr(base_of(p).support, "event_dim", 0) > 0
        return float(apart.sum(-1).mean()) / 2 if whole else float(apart.mean())
    return float((apart / (1 + x.abs())).mean())


def _close(p: Distribution) -> float:
    return CLOSER if _is_share(p) and not base_of(p).support.is_discrete else CLOSE  # type: ignore[union-attr]


def _within_noise(p: Distribution, x: Tensor, log_p: float) -> bool:
    """Returns whether x is about as probable as what the likelihood draws: noise explains it.

    It explains nothing where values are bounded: a coin that stays fair is not sure of anything.
    """
    if _is_share(p):
        return False
    with torch.no_grad():
        drawn = p.log_prob(p.sample(torch.Size([32]))).mean()
    return float(drawn) - log_p <= NOISE * x.numel()


def _is_share(p: Distribution) -> bool:
    """Returns whether all values are in [0, 1]: bits, classes, shares, grey values."""
    support = base_of(p).support
    if isinstance(support, constraints.interval):
        return bool(torch.as_tensor(support.upper_bound - support.lower_bound).max() <= 1)
    unit = (constraints.boolean, constraints.one_hot, constraints.simplex)
    return isinstance(support, tuple(type(each) for each in unit))
