"""Likelihoods of held-out observations in nats: Monte Carlo (eq. 11), and importance-sampled.

The two are different numbers and are never mixed. With z^(n) drawn from what is given,

- *Monte Carlo (eq. 11)*: 1/N Σ_n log p(x_T|z^(n)), what the paper reports, single (given
  x_S) and multiple (given x_S and x_T itself);
- *importance-sampled (IWAE)*: log 1/N Σ_n p(x_U|z^(n)) p(z^(n)) / q(z^(n)), an estimate of
  log p(x_U), and log p(x_T|x_S) by a ratio of such sums, see
  :mod:`mmgen.evaluation.likelihood.weighing`.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equations 11, A.1 and A.2;
    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.data.batches import Batches
from mmgen.data.store import Split
from mmgen.evaluation.directions import Direction
from mmgen.evaluation.likelihood.decoding import log_likelihoods
from mmgen.evaluation.likelihood.estimates import Estimate, Estimator, SamplingBudget
from mmgen.evaluation.likelihood.weighing import (
    Ratio,
    Sums,
    by_source,
    conditional,
    estimated,
    likelihood,
    steps,
    weigh,
)
from mmgen.inference.importance import Pool, proposer
from mmgen.inference.sample import sample_latent, source
from mmgen.latent.base import sample
from mmgen.model import Model
from mmgen.seeding import generator, random_state
from mmgen.subsets import Subset

ROWS = 100
"""Rows whose z are drawn at a time. Fixed, so that no number depends on the chunk size."""

DRAWS, CHAINS = 100, 10
"""How many z a row are drawn at a time: to weigh, and by way of eq. 11, where each is a chain of
iterative sampling that keeps its imputed observations in memory."""


def likelihoods(
    model: Model,
    split: Split,
    directions: Sequence[Direction],
    budget: SamplingBudget | None = None,
    done: Callable[[int], object] | None = None,
) -> list[Estimate]:
    """Estimates likelihoods of the rows of a split, each of those that have what it is about.

    The caller's random state is left as it is. What a row shows is drawn once and is the same in
    all estimates; each set of given modalities has draws of its own, so that a number does not
    depend on what else was asked for.

    Args:
        model: In eval mode.
        split: The rows.
        directions: The marginals of a joint model that belong to them, and its joint likelihood,
            are estimated as well.
        budget: How much is drawn.
        done: Called with the number of rows done after each block of them.

    Returns:
        Monte Carlo, by direction; then importance-sampled: joint, marginals, conditionals.

    Raises:
        DataError: If the split lacks a modality of the model.
    """
    budget = budget or SamplingBudget()
    values = measured(model, split, directions, budget, range(blocks_of(split)), done)
    return estimates(model, directions, budget, values)


Values = dict[Hashable, Tensor]
"""By (given, targets) Monte Carlo estimates ``(rows,)``; by :class:`Ratio` importance-sampled ones,
as :func:`estimated` returns them, ``(3, rows)``: of the rows that have all that it is about. On the
CPU, float64."""


def blocks_of(split: Split) -> int:
    """Returns how many blocks of :data:`ROWS` rows a split has."""
    return math.ceil(split.count / ROWS)


@torch.no_grad()
def measured(
    model: Model,
    split: Split,
    directions: Sequence[Direction],
    budget: SamplingBudget,
    blocks: Sequence[int],
    done: Callable[[int], object] | None = None,
) -> Values:
    """Measures consecutive blocks of rows. What a block draws depends on its number alone."""
    device = next(model.parameters()).device
    batches = Batches(split, model.modalities, device=device, batch_size=ROWS)
    sources = _sources(model, directions) if budget.samples else {}
    ratios = list(_ratios(model, directions).values()) if budget.importance else []
    results: dict[Hashable, list[Tensor]] = defaultdict(list)
    with random_state(device, budget.seed):
        stream = batches.epoch(None, 0, blocks[0])
        for block in blocks:
            _seed(budget, "observations", block)
            read = next(stream)
            x = Batch(read.tensors)  # what is absent is zeros, of rows that count nowhere
            for given, wanted in sources.items():
                _seed(budget, "given", *given, block)
                means = _monte_carlo(model, x, given, wanted, budget)
                for targets, value in means.items():
                    results[given, targets].append(_of(read.having([*given, *targets]), value))
            sums: Sums = defaultdict(list)
            for proposing, asked in by_source(ratios).items():
                _seed(budget, "proposal", *proposing, block)
                draws = steps(budget.importance, DRAWS)
                found = weigh(model, x, proposing, asked, draws, budget.chunk)
                for ratio, pieces in found.items():
                    sums[ratio] += pieces
            for ratio, pieces in sums.items():
                value = estimated(ratio, pieces, budget.importance)
                results[ratio].append(_of(read.having(ratio.members), value))
            if done is not None:
                done(min((block + 1) * ROWS, batches.count))
        return {key: torch.cat(parts, -1).cpu().double() for key, parts in results.items()}


def estimates(
    model: Model, directions: Sequence[Direction], budget: SamplingBudget, values: Values
) -> list[Estimate]:
    """Names what was measured, in the order that :func:`likelihoods` returns.

    What no row has the modalities for is left out.
    """
    return [
        *(_paper(model, directions, budget, values) if budget.samples else ()),
        *(_importance(model, directions, budget.importance, values) if budget.importance else ()),
    ]


def _of(rows: Tensor | None, values: Tensor) -> Tensor:
    """Returns the values ``(..., B)`` of some rows alone."""
    return values if rows is None else values[..., rows]


def _seed(budget: SamplingBudget, *key: int | str) -> None:
    torch.manual_seed(generator("likelihood", budget.seed, *key).initial_seed())


# Monte Carlo (eq. 11).


def _sources(model: Model, directions: Iterable[Direction]) -> dict[Subset, list[Subset]]:
    """Lists, for each set of given modalities, the sets of targets that its z are to decode.

    All directions from one set share their z: K modalities need its chains once, not K times.
    """
    sources: dict[Subset, list[Subset]] = defaultdict(list)
    for direction in directions:
        for given in (direction.given, direction.both(model.names)):
            if (
                model.generates(given, direction.targets)
                and direction.targets not in sources[given]
            ):
                sources[given].append(direction.targets)
    return {given: targets for given, targets in sources.items() if targets}


def _monte_carlo(
    model: Model, x: Batch, given: Subset, wanted: Sequence[Subset], budget: SamplingBudget
) -> dict[Subset, Tensor]:
    names = {n for targets in wanted for n in targets}
    seen = x.select(given)
    total = dict.fromkeys(names, torch.zeros(()))
    for samples in steps(budget.samples, CHAINS):
        if _complete(model, given):
            z = sample(model.imputed_posterior(seen), samples=(samples,))
        else:
            z = sample_latent(
                model,
                seen,
                samples,
                temperature=budget.temperature if set(given) < set(model.names) else 1.0,
                iterations=budget.iterations,
                fitted=False,
            )
        for n, log_likelihood in log_likelihoods(model, x, z, names, budget.chunk).items():
            total[n] = log_likelihood.sum(0) + total[n]
    return {T: torch.stack([total[n] for n in T]).sum(0) / budget.samples for T in wanted}


def _complete(model: Model, given: Subset) -> bool:
    """Returns whether nothing is missing, so that one revision is all of iterative sampling."""
    return model.directions is None and {*given} == {*model.names}


def _paper(
    model: Model, directions: Iterable[Direction], budget: SamplingBudget, values: Values
) -> Iterator[Estimate]:
    for direction in directions:
        kinds: tuple[tuple[Estimator, Subset], ...] = (
            ("single", direction.given),
            ("multiple", direction.both(model.names)),
        )
        for kind, given in kinds:
            if model.generates(given, direction.targets):
                z = _drawn_from(model, given, budget.iterations)
                if budget.temperature != 1 and set(given) < set(model.names):
                    z += f", τ = {budget.temperature:g}"
                value = values[given, direction.targets]
                if len(value):
                    estimate = direction.targets, direction.given, kind, z, budget.samples, value
                    yield Estimate(*estimate)


@torch.no_grad()
def _drawn_from(model: Model, given: Subset, iterations: int | None) -> str:
    if _complete(model, given):
        return model.imputed_posterior(model.blank(given)).symbol
    return source(model, given, iterations)


# Importance sampling.


def _ratios(model: Model, directions: Sequence[Direction]) -> dict[tuple[Subset, Subset], Ratio]:
    """Lists what is estimated, by T and S: the joint likelihood, marginals, then directions.

    A model of one direction has the last alone.
    """
    conditionals = {(d.targets, d.given): conditional(model, d) for d in directions}
    if model.directions is not None:
        return conditionals
    members = [s for d in directions for s in (d.given, d.both(model.names))]
    # The joint likelihood first, then smaller sets first.
    subsets = sorted(
        dict.fromkeys([model.names, *members]), key=lambda s: (s != model.names, len(s))
    )
    return {(s, ()): likelihood(model, s) for s in subsets} | conditionals


def _importance(
    model: Model, directions: Sequence[Direction], samples: int, values: Values
) -> Iterator[Estimate]:
    for (targets, given), ratio in _ratios(model, directions).items():
        value, ess, half = values[ratio]
        if not len(value):
            continue
        yield Estimate(
            targets,
            given,
            "importance",
            _proposed_from(model, ratio.pool),
            samples * len(ratio.pool),
            value,
            ess,
            half,
        )


@torch.no_grad()
def _proposed_from(model: Model, pool: Pool) -> str:
    x = model.blank(model.names)
    return " and ".join(proposer(model, x, subset).symbol for subset in pool)
