"""Iterative sampling: what to do where a model has no encoder for the given subset.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equation 6;
    D. J. Rezende, S. Mohamed, D. Wierstra, "Stochastic Backpropagation and Approximate Inference
    in Deep Generative Models", ICML 2014, appendix F (pseudo-Gibbs sampling).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.errors import GenerationError
from mmgen.latent.base import Latent, sample
from mmgen.model import Model

Start = Literal["zero", "prior"]

ITERATIONS = 50
"""T where a model has no encoder for the given subset and the caller names no T."""


@runtime_checkable
class Partwise(Protocol):
    """A model that can encode modalities each by itself: what is given is then encoded once."""

    def encode_each(self, x: Batch) -> dict[str, Tensor]:
        """Encodes modalities each by itself: what each adds to the joint posterior, ``(B, ·)``."""

    def join(self, encoded: Mapping[str, Tensor]) -> Latent:
        """Returns :meth:`Model.imputed_posterior` of all K modalities encoded."""


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

    Missing values start at zero, or at a sample given nothing. Then T times:
    z ~ q(z | x_given, x̃_missing), x̃_missing ~ p(x_missing | z).

    Args:
        model: A joint model. Its :meth:`Model.imputed_posterior` is used, whatever is given.
        given: Observations ``(B, *shape)`` of at least one modality.
        samples: How many independent chains per row.
        iterations: T ≥ 1.
        start: Where missing values start.
        temperature: Of the last z, see :func:`mmgen.latent.base.sample`.

    Yields:
        z ``(samples, B, *event)``.

    Raises:
        GenerationError: If the model has one direction.
    """
    if model.directions is not None:
        raise GenerationError(
            f"a model of one direction takes no iterations: it generates {model.direction()}"
        )
    chains = samples * given.rows
    missing = [n for n in model.names if n not in given]
    revise = _reviser(model, given, samples)
    if start == "prior":
        x = _imputed(model, model.sampling_prior(Batch({})).rsample((chains,)), missing)
    else:
        x = model.blank(missing, chains)
    for iteration in range(1, iterations + 1):
        last = iteration == iterations
        z = sample(revise(x), temperature if last else 1.0)
        yield z.unflatten(0, (samples, -1))
        if not last:
            x = _imputed(model, z, missing)


def _reviser(model: Model, given: Batch, samples: int) -> Callable[[Batch], Latent]:
    """Returns q(z | x_given, x̃) as a function of x̃, chains side by side: (samples, B) flattened."""
    if isinstance(model, Partwise):
        fixed = {n: h.repeat(samples, 1) for n, h in model.encode_each(given).items()}
        return lambda x: model.join({**_encoded(model, x), **fixed})

    repeated = {n: v.repeat(samples, *[1] * (v.dim() - 1)) for n, v in given.items()}
    return lambda x: model.imputed_posterior(
        Batch({n: repeated[n] if n in repeated else x[n] for n in model.names})
    )


FEW = 64
"""Values of at most so many numbers, such as labels, are encoded once where rows agree."""


def _encoded(model: Partwise, x: Batch) -> dict[str, Tensor]:
    """Encodes imputed values: of a thousand chains that impute a digit, ten different rows."""
    distinct, rows = {}, {}
    for n, value in x.items():
        distinct[n] = value
        # Elsewhere the number of different rows would have to be waited for.
        if value.device.type == "cpu" and value[0].numel() <= FEW:
            distinct[n], rows[n] = value.unique(dim=0, return_inverse=True)
    encoded = model.encode_each(Batch(distinct))
    return {n: h[rows[n]] if n in rows else h for n, h in encoded.items()}


def _imputed(model: Model, z: Tensor, names: list[str]) -> Batch:
    with torch.no_grad():
        return Batch({n: p.sample() for n, p in model.decode(z, names=names).items()})
