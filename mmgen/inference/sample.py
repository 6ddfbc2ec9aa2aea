"""Drawing z given anything: by the posterior, the conditional prior, or iterative sampling."""

import math
from collections.abc import Iterable
from numbers import Real

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.errors import GenerationError
from mmgen.inference.iterative import ITERATIONS, Start, iterate
from mmgen.latent.base import Latent, sample
from mmgen.model import Model


def infer(
    model: Model, given: Batch, *, fitted: bool = True, resampled: bool = True
) -> Latent | None:
    """Returns what z is drawn from given some modalities: of batch shape ``(B,)``, or ``()``.

    q(z | x_S) if S has an encoder, p(z) given nothing, p(z | x_C) of a conditional model given x_C,
    or what was fitted in their place; else ``None``: it takes iterative sampling.

    Args:
        model: In eval mode.
        given: Observations of S.
        fitted: Whether what was fitted counts: not where the model itself is measured.
        resampled: Whether draws of an encoder are moved to where a fitted prior has z, which takes
            many candidates for each.
    """
    known = model.directions.given if model.directions else ()
    if {*given} == {*known}:
        return model.sampling_prior(given) if fitted else model.prior(given)
    if not fitted:
        return model.posterior(given)
    return model.sampling_posterior(given, resampled=resampled)


@torch.no_grad()
def sample_latent(
    model: Model,
    given: Batch,
    samples: int,
    *,
    temperature: float = 1.0,
    iterations: int | None = None,
    start: Start = "zero",
    fitted: bool = True,
    resampled: bool = True,
) -> Tensor:
    """Draws z given any subset of modalities.

    Args:
        model: In eval mode.
        given: Observations ``(B, *shape)``; nothing, to draw from the prior, or what was fitted in
            its place.
        samples: How many z per row.
        temperature: See :func:`mmgen.latent.base.sample`: 0 takes the mean instead of a sample.
        iterations: T of iterative sampling. Without it, the subset's own encoder is used if there
            is one, and T = 50 if not.
        start: Where missing values start: ``"zero"``, or ``"prior"``.
        fitted: See :func:`infer`.
        resampled: See there.

    Returns:
        z ``(samples, B, *event)``, or ``(samples, *event)`` given nothing.

    Raises:
        GenerationError: If the temperature is below 0 or not finite, or the model has one direction
            and another is asked for.
    """
    check_temperature(temperature)
    encoded = iterations is None or not given
    q = infer(model, given, fitted=fitted, resampled=resampled) if encoded else None
    if q is not None:
        # A prior that is the same for all rows is drawn for each of them.
        shared = given and not q.batch_shape
        return sample(q, temperature, (samples, given.rows) if shared else (samples,))
    *_, z = iterate(
        model,
        given,
        samples,
        iterations=iterations or ITERATIONS,
        start=start,
        temperature=temperature,
    )
    return z


def check_temperature(temperature: float) -> None:
    """Checks that a temperature is a number from 0 on.

    Raises:
        GenerationError: If it is not.
    """
    if not isinstance(temperature, Real):
        raise GenerationError(f"temperature is a number, not {type(temperature).__name__}")
    if not 0 <= temperature < math.inf:
        raise GenerationError(f"a temperature of {temperature:g}: it is 0 or more")


def source(model: Model, given: Iterable[str], iterations: int | None = None) -> str:
    """Says what z is drawn from: ``"q(z | label)"``, or ``"T = 50 from label"``."""
    names = [n for n in model.names if n in {*given}]
    q = inferred(model, names) if iterations is None or not names else None
    return q.symbol if q else f"T = {iterations or ITERATIONS} from {', '.join(names)}"


@torch.no_grad()
def inferred(model: Model, given: Iterable[str]) -> Latent | None:
    """Returns :func:`infer` of one row of zeros: to ask whether it can, and its symbol."""
    return infer(model, model.blank(given))
