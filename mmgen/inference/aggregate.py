"""Fits what z is drawn from to the posteriors of training rows, when a model is trained.

Of all rows, what it is drawn from given nothing; of rows with the same x_S, what it is given that.
"""

import math
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain, combinations, islice

import torch
from torch import Tensor, nn

from mmgen.batch import Batch
from mmgen.latent.aggregate import FittedMixture
from mmgen.latent.alike import MOST_VALUES, FittedPosterior
from mmgen.latent.em import HELD_OUT
from mmgen.model import Model
from mmgen.nets.by_modality import ByModality
from mmgen.subsets import Subset, name

ROWS = 50_000
"""The most rows that are encoded."""

OF_ALL = 18_000
"""The most rows that a mixture of all is fitted to: it has the most components."""

LEAST = 200
"""Rows with the same x_S, and something beside, that there must be to fit a mixture to them."""

COMPONENTS = (1, 5, 10)
"""How many Gaussians are tried for them."""

LARGEST = 1 << 26
"""The most numbers of the matrices of a mixture that is made of several."""

MOST_SUBSETS = 256
"""The most subsets that are asked for an encoder, the smallest first: there are 2^K of them."""

ABSENT = -1
"""The number of an observation that a row lacks."""


class Draws:
    """A z ~ q(z | x_n) of each of some training rows, and which rows have the same x_S.

    Args:
        model: A joint model, in eval mode.
        batches: Observations of all modalities, in random order.
        rows: How many are read at most, to whole batches.

    Attributes:
        z: ``(N, *event)``.
        means: Of each q(z | x_n), ``(N, *event)``.
        held_out: How many of the first rows nothing is fitted to.
    """

    @torch.no_grad()
    def __init__(self, model: Model, batches: Iterable[Batch], rows: int = ROWS) -> None:
        assert model.directions is None, "a model of one direction is always given something"
        self._model, self._values = model, {n: _Values() for n in model.names}
        self._fitted: dict[Subset, list[tuple[Tensor, FittedMixture]]] = {}
        z: list[Tensor] = []
        means: list[Tensor] = []
        for x in batches:
            q = model.posterior(x.select(model.names))
            assert q is not None, "every model encodes all of its modalities"
            z.append(q.sample())
            means.append(q.mean)
            for n, values in self._values.items():
                values.add(x[n], x.having([n]))
            if sum(map(len, z)) >= rows:
                break
        self.z, self.means = torch.cat(z), torch.cat(means)
        self.held_out = len(self.z) // HELD_OUT
        numbers = [torch.tensor(self._values[n].numbers) for n in model.names]
        self._had = torch.stack([each != ABSENT for each in numbers]).sum(0)
        self._room = MOST_VALUES

    def common(self) -> list[str]:
        """Lists the modalities of which some observation is that of many rows."""
        return [n for n in self._model.names if self._alike((n,))]

    def observations(self, S: Subset, row: int) -> Batch:
        """Returns x_S of a row that others are like in S."""
        values = {n: self._values[n] for n in S}
        return Batch({n: v.seen[v.numbers[row]].unsqueeze(0) for n, v in values.items()})

    def fitted(self, S: Subset) -> Sequence[tuple[Tensor, FittedMixture]]:
        """Fits a mixture to each set of rows with the same x_S; returns their numbers, and it."""
        if S not in self._fitted:
            groups = self._alike(S)[: self._room]
            self._room -= len(groups)
            self._fitted[S] = [(rows, self.mixture(rows, COMPONENTS)) for rows in groups]
        return self._fitted[S]

    def mixture(self, rows: Tensor, counts: Sequence[int]) -> FittedMixture:
        """Fits a mixture to some rows, in order, of which those that are held out judge it."""
        held_out = int((rows < self.held_out).sum())
        return FittedMixture.of_draws(self.z[rows], self.means[rows], counts, held_out)

    def _alike(self, S: Subset) -> list[Tensor]:
        """Lists the sets of rows with the same x_S and something beside, the largest first."""
        sets: dict[tuple[int, ...], list[int]] = {}
        keys = zip(*(self._values[n].numbers for n in S), strict=True)
        for row, (key, more) in enumerate(zip(keys, (self._had > len(S)).tolist(), strict=True)):
            if more and ABSENT not in key:
                sets.setdefault(key, []).append(row)
        enough = (rows for rows in sets.values() if len(rows) >= LEAST)
        return [torch.tensor(rows) for rows in sorted(enough, key=len, reverse=True)]


@torch.no_grad()
def fit_prior(draws: Draws) -> FittedMixture:
    """Fits what z is drawn from given nothing to where the posteriors of all rows are.

    Of a modality of which most observations are those of many rows, the mixture of what was fitted
    to each, Σ_v p(x_k = v) q(z | x_k = v), of the modality with which it is likeliest on the rows
    that are held out; a mixture that knows of no modality if there is none, or if it is likelier.

    Returns:
        What is to be the model's :attr:`mmgen.model.Model.fitted_prior`.
    """
    rows = torch.arange(len(draws.z))
    judging = draws.z[: draws.held_out]
    of_all = draws.mixture(rows[: draws.held_out + OF_ALL], FittedMixture.COUNTS)
    of_values = []
    for n in draws.common():
        parts = [*draws.fitted((n,))]
        rest = torch.ones(len(rows), dtype=torch.bool)
        for members, _ in parts:
            rest[members] = False
        if int(rest.sum()) > len(rows) / 2 or not parts:
            continue
        if bool(rest.any()):
            others = rows[rest]
            parts.append((others, draws.mixture(others, COMPONENTS)))
        if sum(len(q.tensors()["means"]) for _, q in parts) * draws.z[0].numel() ** 2 <= LARGEST:
            of_values.append(FittedMixture.of_parts([(len(m) / len(rows), q) for m, q in parts]))
    if not of_values:
        return of_all
    best = max(of_values, key=lambda q: float(q().log_prob(judging).mean()))
    # Of two that are as likely, what comes of that of classes agrees more often.
    return of_all if _surely(of_all().log_prob(judging) - best().log_prob(judging)) else best


@torch.no_grad()
def fit_posteriors(model: Model, draws: Draws) -> ByModality[nn.Module]:
    """Fits what z is drawn from given an x_S that many rows have to where their posteriors are.

    Of every subset S with an encoder, and every x_S that at least :data:`LEAST` rows have which
    have more than S: of classes, hardly of pictures. A mixture is kept where it is likelier than
    q(z | x_S) on the rows that are held out, by more than the standard error.

    Returns:
        What is to be the model's :attr:`mmgen.model.Model.fitted_posteriors`, by names of subsets.
    """
    common = draws.common()
    sizes = range(1, min(len(common), len(model.names) - 1) + 1)
    subsets = chain.from_iterable(combinations(common, size) for size in sizes)
    fitted: dict[str, nn.Module] = {}
    for S in islice(subsets, MOST_SUBSETS):
        if model.posterior(model.blank(S)) is None:
            continue
        found = []
        for rows, mixture in draws.fitted(S):
            x = draws.observations(S, int(rows[0]))
            q = model.posterior(x)
            assert q is not None, "asked above"
            z = draws.z[rows[rows < draws.held_out]]
            gain = mixture().log_prob(z) - q.log_prob(z.unsqueeze(1)).squeeze(1)
            if _surely(gain):
                found.append((model.flattened(x)[0], mixture))
        if found:
            values, mixtures = zip(*found, strict=True)
            fitted[name(S)] = FittedPosterior(torch.stack(values), mixtures)
    return ByModality(fitted)


def _surely(gain: Tensor) -> bool:
    """Tells whether the mean of gains ``(n,)`` is above 0 by more than its standard error."""
    return len(gain) > 1 and bool(gain.mean() > gain.std() / math.sqrt(len(gain)))


class _Values:
    """Numbers the observations of one modality, those that are the same alike.

    Attributes:
        numbers: Of each row; :data:`ABSENT` where it has none.
        seen: The observation by its number, of those that there is more than one of.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.seen: dict[int, Tensor] = {}
        self._known: dict[bytes, int] = {}

    def add(self, x: Tensor, present: Tensor | None) -> None:
        rows, has = x.flatten(1).cpu(), None if present is None else present.tolist()
        for row, numbers in enumerate(rows.numpy()):
            if has is not None and not has[row]:
                self.numbers.append(ABSENT)
                continue
            # Of pictures, keys of their length would take the memory of all of them.
            key = blake2b(numbers.tobytes(), digest_size=16).digest()
            before = len(self._known)
            number = self._known.setdefault(key, before)
            if number < before:
                self.seen.setdefault(number, x[row].clone())  # not a view of all rows
            self.numbers.append(number)
