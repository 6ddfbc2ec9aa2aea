"""Likelihoods of held-out observations in nats: the paper's means of logs, and log-mean-exp.

The two are different numbers and are never mixed. With z^(n) drawn from what is given,

- *mean of logs*: 1/N Σ_n log p(x_T|z^(n)), what the paper reports, single (given x_S) and multiple
  (given x_S and x_T itself);
- *log-mean-exp*: log 1/N Σ_n p(x_U|z^(n)) p(z^(n)) / q(z^(n)), the importance-sampled estimate of
  log p(x_U), and log p(x_T|x_S) = log p(x_T, x_S) − log p(x_S).

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equations 11, A.1 and A.2;
    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from mmgen.data.batches import Batches
from mmgen.data.store import Split
from mmgen.evaluation.directions import Pair
from mmgen.evaluation.likelihood.decoding import log_likelihoods
from mmgen.evaluation.likelihood.estimates import Effort, Estimate, Estimator
from mmgen.models import Batch, Model
from mmgen.models.hierarchical import Hierarchical
from mmgen.run import ITERATIONS, sample_latent
from mmgen.seeding import generator
from mmgen.subsets import Subset
from mmgen.training.loop import random_state

ROWS = 100
"""Rows whose z are drawn at a time. Fixed, so that no number depends on the chunk size."""

DRAWS, CHAINS = 100, 10
"""How many z a row are drawn at a time: to weigh, and by way of eq. 11, where each is a chain of
iterative sampling that keeps its imputed observations in memory."""


def likelihoods(
    model: Model,
    split: Split,
    pairs: Sequence[Pair],
    effort: Effort | None = None,
    done: Callable[[int], object] | None = None,
) -> list[Estimate]:
    """Estimates likelihoods of all rows of a split.

    The caller's random state is left as it is. What a row shows is drawn once and is the same in
    all estimates; each set of given modalities has draws of its own, so that a number does not
    depend on what else was asked for.

    Args:
        model: In eval mode.
        split: The rows.
        pairs: The directions. A joint model's marginals that they need, and its joint likelihood,
            are estimated as well.
        effort: How much is drawn.
        done: Called with the number of rows done after each block of them.

    Returns:
        Means of logs, pair by pair; then importance-sampled: joint, marginals, conditionals.

    Raises:
        DataError: If the split lacks a modality of the model.
    """
    effort = effort or Effort()
    values = measured(model, split, pairs, effort, range(blocks_of(split)), done)
    return estimates(model, pairs, effort, values)


Values = dict[tuple[object, ...], Tensor]
"""By (given, targets) means of logs ``(rows,)``; by (members,) log-mean-exp and effective sample
size, ``(2, rows)``. On the CPU, float64."""


def blocks_of(split: Split) -> int:
    """Returns how many blocks of :data:`ROWS` rows a split has."""
    return math.ceil(split.count / ROWS)


@torch.no_grad()
def measured(
    model: Model,
    split: Split,
    pairs: Sequence[Pair],
    effort: Effort,
    blocks: Sequence[int],
    done: Callable[[int], object] | None = None,
) -> Values:
    """Measures consecutive blocks of rows. What a block draws depends on its number alone."""
    device = next(model.parameters()).device
    batches = Batches(split, model.modalities, device=device, batch_size=ROWS)
    sources = _sources(model, pairs) if effort.samples else {}
    proposals = _proposals(model, pairs) if effort.importance else {}
    results: dict[tuple[object, ...], list[Tensor]] = defaultdict(list)
    with random_state(device, effort.seed):
        stream = batches.epoch(None, 0, blocks[0])
        for block in blocks:
            _seed(effort, "observations", block)
            x = next(stream)
            for given, wanted in sources.items():
                _seed(effort, "given", *given, block)
                means = _means_of_logs(model, x, given, wanted, effort)
                for targets, value in means.items():
                    results[given, targets].append(value)
            for given, wanted in proposals.items():
                _seed(effort, "proposal", *given, block)
                for members, value in _weighed(model, x, given, wanted, effort).items():
                    results[members,].append(value)
            if done is not None:
                done(min((block + 1) * ROWS, batches.count))
        return {key: torch.cat(parts, -1).cpu().double() for key, parts in results.items()}


def estimates(
    model: Model, pairs: Sequence[Pair], effort: Effort, values: Values
) -> list[Estimate]:
    """Names what was measured of all rows, in the order that :func:`likelihoods` returns."""
    return [
        *(_paper(model, pairs, effort, values) if effort.samples else ()),
        *(_importance(model, pairs, effort.importance, values) if effort.importance else ()),
    ]


def _seed(effort: Effort, *key: int | str) -> None:
    torch.manual_seed(generator("likelihood", effort.seed, *key).initial_seed())


def _steps(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)


# Means of logs.


def _sources(model: Model, pairs: Iterable[Pair]) -> dict[Subset, list[Subset]]:
    """Lists, for each set of given modalities, the sets of targets that its z are to decode.

    All directions from one set share their z: K modalities need its chains once, not K times.
    """
    sources: dict[Subset, list[Subset]] = defaultdict(list)
    for pair in pairs:
        for given in (pair.given, pair.both(model.names)):
            if model.can(given, pair.targets) and pair.targets not in sources[given]:
                sources[given].append(pair.targets)
    return {given: targets for given, targets in sources.items() if targets}


def _means_of_logs(
    model: Model, x: Batch, given: Subset, wanted: Sequence[Subset], effort: Effort
) -> dict[Subset, Tensor]:
    names = {n for targets in wanted for n in targets}
    seen = {n: x[n] for n in given}
    total = dict.fromkeys(names, torch.zeros(()))
    for samples in _steps(effort.samples, CHAINS):
        if _complete(model, given):
            z = model.revise(model.parts(seen), samples)
        else:
            z = sample_latent(
                model,
                seen,
                samples,
                temperature=effort.temperature if set(given) < set(model.names) else 1.0,
                iterations=effort.iterations,
            )
        for n, log_likelihood in log_likelihoods(model, x, z, names, effort.chunk).items():
            total[n] = log_likelihood.sum(0) + total[n]
    return {T: torch.stack([total[n] for n in T]).sum(0) / effort.samples for T in wanted}


def _complete(model: Model, given: Subset) -> bool:
    """Tells whether nothing is missing, so that one revision is all of iterative sampling."""
    return model.given is None and set(given) == set(model.names)


def _paper(
    model: Model, pairs: Iterable[Pair], effort: Effort, values: Values
) -> Iterator[Estimate]:
    for pair in pairs:
        kinds: tuple[tuple[Estimator, Subset], ...] = (
            ("single", pair.given),
            ("multiple", pair.both(model.names)),
        )
        for kind, given in kinds:
            if model.can(given, pair.targets):
                z = _drawn_from(model, given, effort.iterations)
                if effort.temperature != 1 and set(given) < set(model.names):
                    z += f", τ = {effort.temperature:g}"
                value = values[given, pair.targets]
                yield Estimate(pair.targets, pair.given, kind, z, effort.samples, value)


def _drawn_from(model: Model, given: Subset, iterations: int | None) -> str:
    known = ", ".join(given)
    if model.given is not None:
        return f"{'p' if set(given) == set(model.given) else 'q'}(z|{known})"
    layers = len(model.posteriors) if isinstance(model, Hierarchical) else 1
    if _complete(model, given):
        return "q(z|x)" if layers == 1 else f"q(z{layers}|x), down to z1"
    if iterations is None and model.encodes(given):
        return f"q(z|{known})"
    return f"T = {iterations or ITERATIONS} from {known}"


# Importance sampling.


def _proposals(model: Model, pairs: Sequence[Pair]) -> dict[Subset, list[Subset]]:
    """Lists, for each posterior to draw from, the sets of modalities to weigh its z with.

    For a joint model these are marginals, for a model of one direction its sets of targets.
    """
    if model.given is not None:
        return {model.names: list(dict.fromkeys(pair.targets for pair in pairs))}
    members = [s for pair in pairs for s in (pair.given, pair.both(model.names))]
    proposals: dict[Subset, list[Subset]] = defaultdict(list)
    for subset in dict.fromkeys([model.names, *members]):
        proposals[_proposal(model, subset)].append(subset)
    return dict(proposals)


def _proposal(model: Model, subset: Subset) -> Subset:
    return subset if model.given is None and model.encodes(subset) else model.names


def _weighed(
    model: Model, x: Batch, given: Subset, measured: Sequence[Subset], effort: Effort
) -> dict[Subset, Tensor]:
    """Returns log-mean-exp and effective sample size for each set of modalities: ``(2, B)``."""
    names = {n for members in measured for n in members}
    sums: dict[Subset, list[Tensor]] = defaultdict(list)
    for samples in _steps(effort.importance, DRAWS):
        drawn = model.propose(x, given, samples)
        log_p_x = log_likelihoods(model, x, drawn.z, names, effort.chunk)
        for members in measured:
            log_w = drawn.log_weight + torch.stack([log_p_x[n] for n in members]).sum(0)
            sums[members].append(torch.stack([log_w.logsumexp(0), (2 * log_w).logsumexp(0)]))
    result = {}
    for members, parts in sums.items():
        first, second = torch.stack(parts).logsumexp(0)  # log Σ w, log Σ w²
        estimate = first - math.log(effort.importance)
        result[members] = torch.stack([estimate, (2 * first - second).exp()])
    return result


def _importance(
    model: Model, pairs: Sequence[Pair], samples: int, values: Values
) -> Iterator[Estimate]:
    if model.given is not None:
        for pair in pairs:
            z = f"q(z|{', '.join(model.names)})"
            value, effective = values[pair.targets,]
            yield Estimate(pair.targets, pair.given, "importance", z, samples, value, effective)
        return

    def proposal(subset: Subset) -> str:
        own = _proposal(model, subset)
        return "q(z|x)" if own == model.names else f"q(z|{', '.join(own)})"

    marginals = [subset for measured in _proposals(model, pairs).values() for subset in measured]
    # The joint likelihood first, then smaller sets first.
    for subset in sorted(marginals, key=lambda s: (s != model.names, len(s))):
        value, effective = values[subset,]
        yield Estimate(subset, (), "importance", proposal(subset), samples, value, effective)
    for pair in pairs:
        (above, above_size), (below, below_size) = (
            values[pair.both(model.names),],
            values[pair.given,],
        )
        z = " / ".join(dict.fromkeys([proposal(pair.both(model.names)), proposal(pair.given)]))
        size = torch.minimum(above_size, below_size)
        yield Estimate(pair.targets, pair.given, "importance", z, samples, above - below, size)
