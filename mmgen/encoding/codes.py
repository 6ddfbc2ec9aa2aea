"""Encodes rows chunk by chunk: mean and deviation of z, and what else was asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.encoding.outliers import Likelihoods
from mmgen.model import Model
from mmgen.rows import inference
from mmgen.rows.gathered import Gathered

CHUNK = 1000
"""Rows that are encoded at a time."""


@dataclass(frozen=True, eq=False, repr=False)
class Codes(OneLine):
    """What is known of some rows.

    Attributes:
        mean: Of z, ``(n, *event)``, on the CPU.
        deviation: Of each number of z, ``(n, *event)``.
        scores: ``log_likelihood`` and the like, ``(n,)`` each; may be empty.
    """

    mean: Tensor
    deviation: Tensor
    scores: dict[str, Tensor]

    def columns(self) -> dict[str, Tensor]:
        """Returns all as columns of numbers ``(n,)`` by name: ``z1``, ``z1_deviation``, ..."""
        names = z_names(self.mean.shape[1:])
        means, deviations = self.mean.flatten(1), self.deviation.flatten(1)
        columns = dict(zip(names, means.unbind(1), strict=True))
        columns |= {f"{n}_deviation": d for n, d in zip(names, deviations.unbind(1), strict=True)}
        return columns | self.scores


def z_names(event: Sequence[int]) -> list[str]:
    """Names the numbers of z: ``z1``, ``z2``; of several layers ``z1_1``, first that of decoders.

    Examples:
        >>> z_names((2,)), z_names((2, 2))
        (['z1', 'z2'], ['z1_1', 'z1_2', 'z2_1', 'z2_2'])
    """
    if len(event) == 1:
        return [f"z{d}" for d in range(1, event[0] + 1)]
    layers, size = event
    return [f"z{layer}_{d}" for layer in range(1, layers + 1) for d in range(1, size + 1)]


@torch.no_grad()
def encoded(
    model: Model,
    chunks: Iterator[tuple[Batch, int]],
    *,
    given: Sequence[str] | None = None,
    likelihoods: Likelihoods | None = None,
    iterations: int | None = None,
    seed: int = 0,
) -> Iterator[Codes]:
    """Encodes chunks of rows, each as it is asked for.

    Args:
        model: In eval mode.
        chunks: Observations with masks, and how many rows they are of.
        given: The modalities that are looked at; all that there are if left out.
        likelihoods: What estimates log p(x_S), if it is asked for.
        iterations: See :func:`mmgen.rows.inference.encode`.
        seed: Of what is drawn.

    Raises:
        GenerationError: If a row lacks what a model of one direction reads.
    """
    event = model.prior(model.blank(model.directions.given if model.directions else ())).event_shape
    for whole, rows in chunks:
        x = whole if given is None else whole.select(given)
        parts = inference.encode(model, x, rows, iterations=iterations, seed=seed)
        q = Gathered(parts, event, device=model.like.device, dtype=model.like.dtype)
        scores = {} if likelihoods is None else likelihoods.of(x, rows)
        yield Codes(q.mean.cpu(), q.stddev.cpu(), {n: s.cpu() for n, s in scores.items()})
