"""What many z say of each observation, in memory that is bounded."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import Distribution

from mmgen.batch import Batch
from mmgen.model import Model
from mmgen.nets.unflattened import flat


def log_likelihoods(
    model: Model, x: Batch, z: Tensor, names: Iterable[str], chunk: int
) -> dict[str, Tensor]:
    """Returns log p(x_k|z) in nats for z ``(S, B, *event)``: ``(S, B)`` per modality.

    Args:
        model: In eval mode.
        x: Observations ``(B, *shape)``.
        z: Latents.
        names: Which modalities.
        chunk: The most latents decoded at a time.
    """
    names = sorted(names, key=model.names.index)
    columns = []
    for start in range(0, z.shape[1], chunk):
        part = z[:, start : start + chunk]
        rows = part.shape[1]
        size = max(1, chunk // rows)
        seen = x.slice(start, start + rows)
        given = seen.select(model.decoder_given)
        # Repeated once, and read by every chunk of samples.
        repeats = min(size, len(z))
        repeated = {n: seen[n].repeat(repeats, *[1] * (seen[n].dim() - 1)) for n in names}
        pieces: dict[str, list[Tensor]] = {n: [] for n in names}
        for some in part.split(size):
            for n, p in model.decode(some, given, names).items():
                log_p = flat(p).log_prob(repeated[n][: len(some) * rows])
                pieces[n].append(log_p.view(-1, rows))
        columns.append({n: torch.cat(values) for n, values in pieces.items()})
    return {n: torch.cat([column[n] for column in columns], 1) for n in names}


@torch.no_grad()
def have_probabilities(model: Model, names: Iterable[str]) -> bool:
    """Returns whether modalities are discrete, so that each p(x_k|z) is a probability.

    The distributions themselves say it, by their ``support``. One that does not is a density.
    """
    conditions = model.directions.given if model.directions else ()
    z = model.like.new_zeros(1, *model.prior(model.blank(conditions)).event_shape)
    decoded = model.decode(z, model.blank(model.decoder_given), names)
    return all(_is_discrete(p) for p in decoded.values())


def _is_discrete(p: Distribution) -> bool:
    try:
        return bool(getattr(p.support, "is_discrete", False))
    except NotImplementedError:  # as torch's own base class raises it
        return False
