"""What follows of rows: q(z | x_S), what they most probably lack, samples of it, log p(x_S).

Rows are grouped by S, what each has, and each group goes through what the model has for S: its own
encoder, the prior given nothing, or iterative sampling, as :func:`mmgen.inference.sample.infer`
says. Whatever is an expectation over z is taken over draws that all rows share
(:mod:`mmgen.rows.noise`), so that it depends on the row alone.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.errors import GenerationError, listed
from mmgen.inference.importance import proposers
from mmgen.inference.iterative import ITERATIONS, iterate
from mmgen.inference.sample import infer, inferred, sample_latent
from mmgen.latent.base import Latent
from mmgen.model import Model, log_likelihoods
from mmgen.rows.gathered import Drawn, Part
from mmgen.rows.noise import shared_noise
from mmgen.subsets import Subset, ordered

SAMPLES = 16
"""Draws of z over which predictions are averaged: half of them mirror the others."""

FEW, OF_FEW = 1024, 512
"""Where x_S can be no more than so many things, so many draws. A class leaves z to be in many
places, and rows with the same x_S share what is computed. Of MNIST's digit from five attributes,
and the other way round, 16 draws had calibration errors of 7.6 and 5.6 %, 128 of 5.1 and 4.2 %."""

CHAINS = 32
"""Chains of iterative sampling from which q(z | x_S) is known where S has no encoder."""

DECODED = {"cpu": 2_000, "cuda": 20_000}
"""The most z that are decoded at a time."""


def groups(x: Batch, rows: int) -> Iterator[tuple[Tensor, Batch]]:
    """Yields rows that have the same modalities: their numbers ``(n,)``, and what they have.

    Args:
        x: Observations ``(rows, *shape)``, with masks where some are absent.
        rows: How many, even if ``x`` holds no modality.
    """
    everywhere = torch.ones(rows, dtype=torch.bool, device="cpu")
    masks = x.present or {}
    if not masks:
        yield everywhere.nonzero().squeeze(1).to(_device(x)), Batch(x.tensors)
        return
    named = torch.stack([masks[n].cpu() if n in masks else everywhere for n in x], 1)
    for has in named.unique(dim=0) if rows else ():
        numbers = (named == has).all(1).nonzero().squeeze(1).to(_device(x))
        had = [n for n, there in zip(x, has.tolist(), strict=True) if there]
        yield numbers, Batch({n: x[n][numbers] for n in had})


def _device(x: Batch) -> torch.device:
    return next((value.device for value in x.values()), torch.device("cpu"))


def usable(model: Model, S: Iterable[str]) -> Subset:
    """Returns what of S the model can infer z from: all, or what its one direction reads.

    Raises:
        GenerationError: If the model has one direction, and S lacks what that begins with.
    """
    S = ordered(model.names, S)
    if model.directions is None:
        return S
    C, T = model.directions.given, model.directions.targets
    if not {*C} <= {*S}:
        raise GenerationError(
            f"a model of one direction generates {model.direction()}, and a row has "
            f"{listed(S) if S else 'nothing'}: it lacks {listed(n for n in C if n not in S)}"
        )
    return S if {*T} <= {*S} else ordered(model.names, C)


@torch.no_grad()
def encode(
    model: Model, x: Batch, rows: int, *, iterations: int | None = None, seed: int = 0
) -> list[Part]:
    """Returns q(z | x_S) of rows, by groups of the same S.

    Args:
        model: In eval mode.
        x: Observations ``(rows, *shape)``, with masks where some are absent.
        rows: How many.
        iterations: T of iterative sampling; without it, an encoder is used where S has one, and
            T = 50 if not.
        seed: Of iterative sampling.
    """
    parts: list[Part] = []
    for numbers, had in groups(x, rows):
        given = had.select(usable(model, had))
        q = infer(model, given, fitted=False) if iterations is None or not given else None
        if q is None:
            T = iterations or ITERATIONS
            with shared_noise(model.like.device, len(numbers), CHAINS, seed):
                *_, z = iterate(model, given, CHAINS, iterations=T)
            q = Drawn(z, f"T = {T} from {listed(given)}")
        parts.append((numbers, q))
    return parts


@torch.no_grad()
def moments(
    model: Model,
    given: Batch,
    rows: int,
    targets: Sequence[str],
    *,
    samples: int | None = None,
    iterations: int | None = None,
    seed: int = 0,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns mean and standard deviation of p(x_k | x_S) for each target, z integrated out.

    E[x] is the mean of E[x | z] over draws of z, and Var[x] that of Var[x | z] and the variance of
    E[x | z]. Of classes and switches the mean is their probabilities.

    Args:
        model: In eval mode.
        given: Observations ``(rows, *shape)`` of S.
        rows: How many.
        targets: Which modalities.
        samples: How many z, the same noise for every row; 0 takes the mean of z;
            :data:`SAMPLES` or :data:`OF_FEW` if left out.
        iterations: See :func:`encode`.
        seed: Of the noise.

    Returns:
        ``(rows, *shape)`` each, by target.
    """
    x = given.select(usable(model, given))
    few = _possible(model, x) <= FEW and iterations is None and inferred(model, x) is not None
    if samples is None:
        samples = OF_FEW if few else SAMPLES
    if not few:
        return _moments(model, x, rows, targets, samples, iterations, seed)
    numbers, first = _distinct(x, rows)
    some = Batch({n: value[first] for n, value in x.items()})
    each = _moments(model, some, len(first), targets, samples, iterations, seed)
    return {n: (mean[numbers], deviation[numbers]) for n, (mean, deviation) in each.items()}


def _moments(
    model: Model,
    x: Batch,
    rows: int,
    targets: Sequence[str],
    samples: int,
    iterations: int | None,
    seed: int,
) -> dict[str, tuple[Tensor, Tensor]]:
    found: dict[str, list[tuple[Tensor, Tensor]]] = {n: [] for n in targets}
    count, temperature = (samples, 1.0) if samples else (1, 0.0)
    for start, stop in _pieces(model, rows, count):
        part = x.slice(start, stop)
        with shared_noise(model.like.device, stop - start, count, seed):
            # An expectation over 16 z, or 512, would take 32 candidates for each of them.
            z = _draw(model, part, stop - start, count, temperature, iterations, resampled=False)
            for n, p in model.decode(z, part, targets).items():
                mean = p.mean
                try:
                    variance = p.variance
                except NotImplementedError:  # of a family that does not know it
                    variance = (p.sample() - mean).square()
                total = variance.mean(0) + mean.var(0, correction=0)
                found[n].append((mean.mean(0), total.sqrt()))
    empty = {n: model.like.new_zeros(0, *model.modalities[n].shape) for n in targets}
    return {
        n: (torch.cat([m for m, _ in each]), torch.cat([d for _, d in each]))
        if each
        else (empty[n], empty[n])
        for n, each in found.items()
    }


def _possible(model: Model, S: Iterable[str]) -> float:
    """Counts what x_S can be, of modalities that say what they can be."""
    possible = 1.0
    for n in S:
        modality = model.modalities[n]
        switches, choices = len(modality.switches()), len(modality.choices())
        possible *= 2.0**switches if switches else choices or math.inf
    return possible


def _distinct(x: Batch, rows: int) -> tuple[Tensor, Tensor]:
    """Returns which of the different x_S each row has, and the number of a row of each."""
    if not x:
        return torch.zeros(rows, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    flat = torch.cat([value.flatten(1) for value in x.values()], 1)
    different, numbers = flat.unique(dim=0, return_inverse=True)
    order = torch.arange(rows, device=flat.device)
    first = order.new_full((len(different),), rows).scatter_reduce(0, numbers, order, "amin")
    return numbers, first


@torch.no_grad()
def moments_of_rows(
    model: Model, x: Batch, rows: int, targets: Sequence[str], **how: Any
) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns :func:`moments` of rows whose S differ.

    Args:
        model: In eval mode.
        x: Observations ``(rows, *shape)`` of what is given, with masks where some are absent.
        rows: How many.
        targets: Which modalities.
        **how: Other arguments of :func:`moments`.
    """
    like, shapes = model.like, {n: (rows, *model.modalities[n].shape) for n in targets}
    found = {n: (like.new_empty(shape), like.new_empty(shape)) for n, shape in shapes.items()}
    for numbers, had in groups(x, rows):
        for n, values in moments(model, had, len(numbers), targets, **how).items():
            for out, value in zip(found[n], values, strict=True):
                out.index_copy_(0, numbers.to(like.device), value.to(out))
    return found


@torch.no_grad()
def draw(
    model: Model,
    given: Batch,
    rows: int,
    targets: Sequence[str],
    samples: int,
    *,
    iterations: int | None = None,
) -> dict[str, Tensor]:
    """Draws values of the targets, each with noise of its own: ``(samples, rows, *shape)``.

    Noise is of torch's random state.
    """
    x = given.select(usable(model, given))
    z = _draw(model, x, rows, samples, 1.0, iterations)
    return {n: p.sample() for n, p in model.decode(z, x, targets).items()}


def _draw(
    model: Model,
    x: Batch,
    rows: int,
    samples: int,
    temperature: float,
    iterations: int | None,
    *,
    resampled: bool = True,
) -> Tensor:
    """Draws z ``(samples, rows, *event)``, given nothing too."""
    z = sample_latent(
        model,
        x,
        samples if x else samples * rows,
        temperature=temperature,
        iterations=iterations,
        resampled=resampled,
    )
    return z if x else z.unflatten(0, (samples, rows))


def _pieces(model: Model, rows: int, samples: int) -> Iterator[tuple[int, int]]:
    """Cuts rows so that no more z than :data:`DECODED` are decoded at a time."""
    size = max(1, DECODED.get(model.like.device.type, DECODED["cpu"]) // samples)
    for start in range(0, rows, size):
        yield start, min(rows, start + size)


@torch.no_grad()
def log_prob(
    model: Model,
    x: Batch,
    rows: int,
    *,
    samples: int = 100,
    iterations: int = ITERATIONS,
    seed: int = 0,
) -> Tensor:
    """Estimates log p(x_S) of each row in nats, by importance sampling; ``(rows,)``.

    On average from below, and the closer the more draws. z are of q(z | x_S); where S has no
    encoder, half of them are of the prior, and half of q(z | x) with what is missing imputed by
    iterative sampling, which may be as far off as it likes: no weight is above 2. Of a model of one
    direction it is log p(x_T | x_C).

    Args:
        model: In eval mode.
        x: Observations ``(rows, *shape)``, with masks where some are absent.
        rows: How many.
        samples: How many z per row.
        iterations: T of iterative sampling.
        seed: Of the noise, which is the same for every row.

    Raises:
        GenerationError: If a row lacks what a model of one direction generates, or reads.

    References:
        Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016.
    """
    out = torch.zeros(rows, dtype=model.like.dtype, device=model.like.device)
    for numbers, had in groups(x, rows):
        S = usable(model, had)
        if model.directions is not None and {*S} != {*model.names}:
            raise GenerationError(
                f"log p of {model.direction()} needs all of {listed(model.names)}, and a row has "
                f"{listed(had) if had else 'nothing'}"
            )
        if not S:
            continue  # of nothing: p = 1
        each = [
            _log_p(model, had.slice(start, stop), stop - start, S, samples, iterations, seed)
            for start, stop in _pieces(model, len(numbers), samples)
        ]
        out[numbers] = torch.cat(each).to(out)
    return out


def _log_p(
    model: Model, x: Batch, rows: int, S: Subset, samples: int, iterations: int, seed: int
) -> Tensor:
    targets = [n for n in S if n in model.targets]
    device, prior = model.like.device, _prior(model, x)
    if proposers(model, S) == (S,):
        q = model.posterior(x.select(S))
        assert q is not None
        sources = [q]
    else:
        with shared_noise(device, rows, 1, seed):
            sources = [_imputed(model, x, iterations), prior]
    size, log_w = max(1, samples // len(sources)), []
    for number, q in enumerate(sources):
        with shared_noise(device, rows, size, seed + number):
            z = q.rsample(torch.Size((size,) if q.batch_shape else (size, rows)))
        log_q = torch.stack([each.log_prob(z) for each in sources]).logsumexp(0)
        log_p = torch.stack([*log_likelihoods(model, x, z, targets).values()]).sum(0)
        log_w.append(prior.log_prob(z) + log_p - (log_q - math.log(len(sources))))
    weights = torch.cat(log_w)
    return weights.logsumexp(0) - math.log(len(weights))


def _prior(model: Model, x: Batch) -> Latent:
    return model.prior(x.select(model.directions.given if model.directions else ()))


def _imputed(model: Model, x: Batch, iterations: int) -> Latent:
    """Returns q(z | x_S, x̃) of all modalities, x̃ ~ p(x | z) of a chain of iterative sampling."""
    *_, z = iterate(model, x, iterations=iterations)
    missing = [n for n in model.names if n not in x]
    imputed = {n: p.sample()[0] for n, p in model.decode(z, names=missing).items()}
    both = {**x, **imputed}
    q = model.posterior(Batch({n: both[n] for n in model.names}))
    assert q is not None, "every model encodes all of its modalities"
    return q
