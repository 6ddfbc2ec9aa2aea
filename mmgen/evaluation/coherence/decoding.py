"""z given anything, drawn and decoded block by block, and what is read off what comes out."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.inference.sample import sample_latent
from mmgen.model import Model
from mmgen.nets.unflattened import flat
from mmgen.seeding import generator

ROWS = 100
"""Rows whose z are drawn at a time. Fixed, so that no number depends on the chunk size."""

CHAINS = 10
"""How many z a row are drawn at a time: each may be a chain of iterative sampling."""

K = TypeVar("K")

Reader = Callable[[Tensor], Tensor]
"""What is read off observations or means: ``(B, *shape) -> (B, ...)``."""


def seed_draws(*key: int | str) -> None:
    """Seeds torch's random state by a key alone."""
    torch.manual_seed(generator("coherence", *key).initial_seed())


def draw(
    model: Model, given: Batch, samples: int, iterations: int | None, temperature: float
) -> Tensor:
    """Draws z given some modalities: ``(samples, B, *event)``."""
    counts = [min(CHAINS, samples - start) for start in range(0, samples, CHAINS)]
    return torch.cat(
        [
            sample_latent(model, given, count, temperature=temperature, iterations=iterations)
            for count in counts
        ]
    )


def read_decoded(
    model: Model, z: Tensor, given: Batch, readers: Mapping[K, tuple[str, Reader]], chunk: int
) -> dict[K, Tensor]:
    """Decodes z and reads the means of p(x_k | z): of each key ``(S, B, ...)``.

    Args:
        model: In eval mode.
        z: ``(S, B, *event)``.
        given: What they were drawn given, ``(B, *shape)`` each.
        readers: By any key, a modality and what is read off its means.
        chunk: The most z decoded at a time.
    """
    columns: dict[K, list[Tensor]] = {key: [] for key in readers}
    targets = {target for target, _ in readers.values()}
    for start in range(0, z.shape[1], chunk):
        rows, here = z[:, start : start + chunk], given.slice(start, start + chunk)
        values: dict[K, list[Tensor]] = {key: [] for key in readers}
        for part in rows.split(max(1, chunk // rows.shape[1])):
            p = model.decode(part, here, targets)
            means = {n: flat(each).mean for n, each in p.items()}
            for key, (target, read) in readers.items():
                values[key].append(read(means[target]).unflatten(0, part.shape[:2]))
        for key in readers:
            columns[key].append(torch.cat(values[key]))
    return {key: torch.cat(parts, 1) for key, parts in columns.items()}
