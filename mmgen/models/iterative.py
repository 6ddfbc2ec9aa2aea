"""Iterative sampling: what to do where a model has no encoder for the given subset.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equation 6;
    D. J. Rezende, S. Mohamed, D. Wierstra, "Stochastic Backpropagation and Approximate Inference
    in Deep Generative Models", ICML 2014, appendix F.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from mmgen.models.base import Batch, Model

Start = Literal["zero", "prior"]


def iterate(
    model: Model,
    given: Batch,
    samples: int = 1,
    *,
    iterations: int,
    start: Start = "zero",
    temperature: float = 1.0,
) -> Iterator[Tensor]:
    """Yields z after 1, 2, … T iterations; the last is the result, all of them the trajectory.

    Missing values start at zero, or at a sample from the prior. Then T times:
    z ~ q(z | x_given, x̃_missing), x̃_missing ~ p(x_missing | z).

    Args:
        model: Its joint encoder is used, whatever is given.
        given: Observations ``(B, *shape)`` of at least one modality.
        samples: How many independent chains a row.
        iterations: T ≥ 1.
        start: Where missing values start.
        temperature: Of the last z, see :func:`mmgen.nets.posterior.draw`.

    Yields:
        z ``(samples, B, Z)``.
    """
    like = next(iter(given.values()))
    chains = samples * like.shape[0]
    # Chains side by side in the batch: (samples, B) flattened. What is given is encoded once.
    fixed = {n: h.repeat(samples, 1) for n, h in model.parts(given).items()}
    missing = [n for n in model.names if n not in given]
    if start == "prior":
        x = _sample(model, model.prior(chains, like), missing)
    else:
        x = {n: like.new_zeros(chains, *model.modalities[n].shape) for n in missing}
    for iteration in range(1, iterations + 1):
        last = iteration == iterations
        z = model.revise({**encoded(model, x), **fixed}, temperature=temperature if last else 1.0)[
            0
        ]
        yield z.unflatten(0, (samples, -1))
        if not last:
            x = _sample(model, z, missing)


FEW = 64
"""Values of at most so many numbers, such as labels, are encoded once where rows agree."""


def encoded(model: Model, x: Batch) -> dict[str, Tensor]:
    """Encodes imputed values: of a thousand chains that impute a digit, ten different rows."""
    distinct, rows = {}, {}
    for n, value in x.items():
        distinct[n] = value
        # Elsewhere the number of different rows would have to be waited for.
        if value.device.type == "cpu" and value[0].numel() <= FEW:
            distinct[n], rows[n] = value.unique(dim=0, return_inverse=True)
    parts = model.parts(distinct)
    return {n: part[rows[n]] if n in rows else part for n, part in parts.items()}


def _sample(model: Model, z: Tensor, names: list[str]) -> dict[str, Tensor]:
    with torch.no_grad():
        return {n: p.sample() for n, p in model.decode(z, names).items()}
