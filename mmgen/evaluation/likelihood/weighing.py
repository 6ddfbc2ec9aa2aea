"""Importance-sampled likelihoods: sums of weighted z, and their ratios.

With z of a pool of distributions and w = p(z) over the mean of their densities,

- log p(x_U) ≈ log 1/N Σ_n w_n p(x_U|z_n), on average from below;
- log p(x_T|x_S) ≈ log Σ_n v_n p(x_T|z_n) − log Σ_n v_n with v_n = w_n p(x_S|z_n) of the *same* z: a
  weighted mean of p(x_T|z). Of a discrete x_T these are probabilities, and so is their mean: it is
  at most 1, and the means of all values add up to 1.

References:
    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016;
    A. B. Owen, "Monte Carlo theory, methods and examples", 2013, chapter 9.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.evaluation.directions import Direction
from mmgen.evaluation.likelihood.decoding import have_probabilities, log_likelihoods
from mmgen.inference.importance import Pool, Proposed, propose, proposers
from mmgen.model import Model
from mmgen.subsets import Subset


@dataclass(frozen=True, repr=False)
class Ratio(OneLine):
    """Σ_n w_n p(x_above|z_n) over Σ_n w_n p(x_below|z_n), of the same z.

    Attributes:
        above: What is explained above the line.
        below: What is explained below it; nothing: the weights alone. ``None``: N, as weights
            average to 1.
        pool: What z are drawn from, as many of each.
        at_most_one: Whether it is a mean of probabilities.
    """

    above: Subset
    below: Subset | None
    pool: Pool
    at_most_one: bool = False

    @property
    def members(self) -> Subset:
        """The modalities that a row must have."""
        return tuple(dict.fromkeys((*self.above, *(self.below or ()), *chain(*self.pool))))


def likelihood(model: Model, subset: Subset) -> Ratio:
    """Returns what estimates log p(x_U) of a joint model."""
    return Ratio(subset, None, proposers(model, subset))


def conditional(model: Model, direction: Direction) -> Ratio:
    """Returns what estimates log p(x_T|x_S).

    Of a joint model, z are of what proposes them for x_S and for x_S and x_T together: where the
    sum above the line has its weight, and where that below has. A model of one direction has
    p(z|x_C), whose weights need no sum below the line, unless x_T is discrete: then z of p(z|x_C)
    itself take part, and the ratio is at most 1.
    """
    T, S = direction.targets, direction.given
    both = direction.both(model.names)
    pool, discrete = proposers(model, both), have_probabilities(model, T)
    if model.directions is None:
        pool = tuple(dict.fromkeys([*pool, *proposers(model, S)]))
        return Ratio(both, S, pool, discrete)
    if not discrete:
        return Ratio(T, None, pool)
    return Ratio(T, (), tuple(dict.fromkeys([*pool, ()])), True)


def by_source(ratios: Iterable[Ratio]) -> dict[Subset, list[Ratio]]:
    """Lists, for each distribution to draw z from, the ratios that its z are for."""
    sources: dict[Subset, list[Ratio]] = defaultdict(list)
    for ratio in dict.fromkeys(ratios):
        for source in ratio.pool:
            sources[source].append(ratio)
    return dict(sources)


Sums = dict[Ratio, list[Tensor]]
"""Of pieces of the draws: log Σ and log Σ of squares, above and below the line, of all draws of the
piece and of each half of them: ``(3, 2 or 1, 2, B)``."""


def weigh(
    model: Model,
    x: Batch,
    source: Subset,
    ratios: Sequence[Ratio],
    steps: Iterable[int],
    chunk: int,
) -> Sums:
    """Draws z from one distribution, and adds up what they weigh in each ratio.

    Args:
        model: In eval mode.
        x: Observations ``(B, *shape)``.
        source: What is drawn from; in the pool of all ratios.
        ratios: What the z are for.
        steps: How many z a row are drawn at a time.
        chunk: The most latents decoded at a time.
    """
    names = {n for ratio in ratios for n in (*ratio.above, *(ratio.below or ()))}
    others = {subset for ratio in ratios for subset in ratio.pool}
    sums: Sums = defaultdict(list)
    for samples in steps:
        drawn = propose(model, x, source, samples, others)
        log_p_x = log_likelihoods(model, x, drawn.z, names, chunk)
        for ratio in ratios:
            sums[ratio].append(sums_of(ratio, drawn, log_p_x))
    return sums


def sums_of(ratio: Ratio, drawn: Proposed, log_p_x: Mapping[str, Tensor]) -> Tensor:
    """Adds up what z weigh in a ratio: a piece of :data:`Sums`.

    Args:
        ratio: The ratio.
        drawn: The z.
        log_p_x: log p(x_k|z) of its modalities, ``(samples, B)``.
    """
    log_w = drawn.log_weight(ratio.pool)
    lines = [ratio.above] if ratio.below is None else [ratio.above, ratio.below]
    return torch.stack([_moments(_explaining(log_w, log_p_x, members)) for members in lines], 1)


def _explaining(log_w: Tensor, log_p_x: Mapping[str, Tensor], members: Subset) -> Tensor:
    if not members:
        return log_w
    return log_w + torch.stack([log_p_x[n] for n in members]).sum(0)


def _moments(log_w: Tensor) -> Tensor:
    """Returns log Σ w and log Σ w² of all w ``(n, B)`` and of each half: ``(3, 2, B)``."""
    half = len(log_w) // 2
    parts = (log_w, log_w[:half], log_w[half:])
    return torch.stack([torch.stack([w.logsumexp(0), (2 * w).logsumexp(0)]) for w in parts])


def estimated(ratio: Ratio, sums: Sequence[Tensor], samples: int) -> Tensor:
    """Returns what all pieces of the draws say of a ratio.

    Args:
        ratio: The ratio.
        sums: What :func:`weigh` added up, of every distribution of the pool.
        samples: How many z a row were drawn of each.

    Returns:
        ``(3, B)``: the log of the ratio in nats; the effective sample size, the smaller of those
        above and below the line; and that of half of the draws.
    """
    all_draws, *halves = torch.stack(list(sums)).logsumexp(0)
    count = math.log(samples * len(ratio.pool))
    value = all_draws[0, 0] - (count if ratio.below is None else all_draws[1, 0])
    if ratio.at_most_one:
        value = value.clamp(max=0)  # of rounding
    half = torch.stack([_effective(part) for part in halves]).log().mean(0).exp()
    return torch.stack([value, _effective(all_draws), half])


def _effective(sums: Tensor) -> Tensor:
    """Returns (Σ w)² / Σ w², the smaller one of the lines ``(lines, 2, B)``."""
    return (2 * sums[:, 0] - sums[:, 1]).exp().amin(0)


def steps(total: int, size: int) -> Iterator[int]:
    """Cuts draws into pieces of at most ``size``."""
    for start in range(0, total, size):
        yield min(size, total - start)
