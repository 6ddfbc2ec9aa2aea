"""What many z say of each observation, in memory that is bounded."""

from collections.abc import Iterable

import torch
from torch import Tensor

from mmgen.models import Batch, Model


def log_likelihoods(
    model: Model, x: Batch, z: Tensor, names: Iterable[str], chunk: int
) -> dict[str, Tensor]:
    """Returns log p(x_k|z) in nats for z ``(S, B, Z)``: ``(S, B)`` a modality.

    Args:
        model: In eval mode.
        x: Observations ``(B, *shape)``.
        z: What the decoders read.
        names: Which modalities.
        chunk: The most latents decoded at a time.
    """
    names = sorted(names, key=model.names.index)
    columns = []
    for start in range(0, z.shape[1], chunk):
        part = z[:, start : start + chunk]
        rows = part.shape[1]
        size = max(1, chunk // rows)
        # Repeated once, and read by every chunk of samples.
        repeats = min(size, len(z))
        seen = {n: x[n][start : start + rows] for n in names}
        seen = {n: value.repeat(repeats, *[1] * (value.dim() - 1)) for n, value in seen.items()}
        pieces: dict[str, list[Tensor]] = {n: [] for n in names}
        for some in part.split(size):
            flat = some.flatten(0, 1)
            for n, p in model.decode(flat, names).items():
                pieces[n].append(p.log_prob(seen[n][: len(flat)]).view(-1, rows))
        columns.append({n: torch.cat(values) for n, values in pieces.items()})
    return {n: torch.cat([column[n] for column in columns], 1) for n in names}
