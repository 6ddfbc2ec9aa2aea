"""Agreement: whether all that is generated of a row is of one class, whoever is asked.

A judge, such as a label, is read off every modality: off its own value, and off each other one by
a classifier that was trained on real rows. The questions:

- *one to one*: given one modality, another is generated. Is it of the row's class?
- *one to many*: given one, all others are generated from one z. Are they of one class, each of the
  row's?
- *n given*: given n modalities, are the others of the row's class?
- *from nothing*: all modalities are generated from one z of the prior. Are they of one class?
- *Fréchet*: how far is what is generated from real rows, in the features of the classifier?

z is sampled; of p(x_k | z) the mean is looked at.

References:
    Y. Shi, N. Siddharth, B. Paige, P. Torr, "Variational Mixture-of-Experts Autoencoders for
    Multi-Modal Deep Generative Models", NeurIPS 2019 (joint and cross coherence); T. M. Sutter, I.
    Daunhawer, J. E. Vogt, "Generalized Multimodal ELBO", ICLR 2021 (coherence by subsets).
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.batches import Batches
from mmgen.data.store import Dataset, Split
from mmgen.errors import DataError, listed
from mmgen.evaluation.coherence.classifier import HIDDEN
from mmgen.evaluation.coherence.decoding import ROWS, draw, read_decoded, seed_draws
from mmgen.evaluation.coherence.frechet import Sums, frechet_with_error, grouped
from mmgen.evaluation.coherence.judge import Judge, all_equal, judge_of
from mmgen.evaluation.coherence.readout import wholly_known
from mmgen.memory import check_fits
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.seeding import generator, random_state
from mmgen.subsets import Subset, ordered

K = TypeVar("K")

FEW = 1_000
"""Of fewer rows, a Fréchet distance is mostly what so few rows differ by chance."""

Question = Literal[
    "one to one",
    "one to many, agree",
    "one to many, right",
    "n given",
    "from nothing",
    "Fréchet",
]


@dataclass(frozen=True, repr=False)
class Finding(OneLine):
    """One answer.

    Attributes:
        question: What was asked.
        given: S; empty from nothing, and in means over several S.
        targets: What was generated from it; empty in means over several.
        number: How many modalities were given.
        about: The class, or the attribute, that it is about; empty: all together.
        value: A share from 0 to 1; for Fréchet a squared distance of features.
        error: Its standard error over rows, whose samples are averaged first; for Fréchet by
            jackknife. NaN if there are too few rows.
        baseline: What the best constant answer scores, where there is a right one.
        ceiling: The same of real rows: what classifiers see in them; for Fréchet, the distance of
            as many rows of the training split.
        rows: How many.
    """

    question: Question
    given: Subset
    targets: Subset
    number: int
    about: str
    value: float
    error: float
    baseline: float | None
    ceiling: float | None
    rows: int


@dataclass(frozen=True, repr=False)
class Agreement(OneLine):
    """What was found of a run.

    Attributes:
        judge: Who was asked about.
        findings: Question by question.
        notes: What could not be asked, and what became of classifiers.
        samples: Samples of z per row.
        rows: Rows that were looked at.
    """

    judge: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    samples: int
    rows: int


@torch.no_grad()
def agreement(
    model: Model,
    dataset: Dataset,
    rows: Split,
    judge: str,
    about: Modality,
    *,
    samples: int = 10,
    subsets: int = 20,
    iterations: int | None = None,
    temperature: float = 1.0,
    chunk: int = 1000,
    seed: int = 0,
    say: Callable[[str], object] = lambda _: None,
    done: Callable[[int], object] = lambda _: None,
) -> Agreement:
    """Measures whether what a model generates is of one class.

    The caller's random state is left as it is. Each set of given modalities has draws of its own.

    Args:
        model: In eval mode.
        dataset: Its split ``train`` is what classifiers are trained on, and its folder where they
            are kept; see :mod:`mmgen.evaluation.coherence.classifier`.
        rows: The held-out rows, of the model's modalities and the judge.
        judge: The judge's name; the model need not have it.
        about: The judge.
        samples: Samples of z per row.
        subsets: The most sets of n given modalities, for each n; of more, so many are drawn.
        iterations: See :func:`mmgen.inference.sample.sample_latent`.
        temperature: Of the samples of z.
        chunk: The most latents decoded at a time. Bounds memory, changes no number.
        seed: Fixes all draws.
        say: Called with a few words before a classifier is trained.
        done: Called with the number of rows done after each block of them.

    Raises:
        ConfigError: If the judge has no choices, or the memory is not there.
        DataError: If there is no split ``train``, or the rows lack a modality.
    """
    device = model.like.device
    modalities = {n: model.modalities[n] for n in model.names}
    asked, notes = given_sets(model, judge, subsets, seed)
    whole = wholly_known(about, rows.having(modalities), judge)
    if not whole.count:
        raise DataError(f"no row has all of {listed({**modalities, judge: about})} to be compared")
    if whole.count < rows.count:
        notes.append(f"of {whole.count:,} of {rows.count:,} rows: the others lack something")
    rows = whole
    batches = Batches(rows, {**modalities, judge: about}, device=device, batch_size=ROWS)
    with random_state(device, seed):
        judging = judge_of(dataset, modalities, judge, about, device, say)
        _check_fits(model, asked, judging, rows.count, samples)
        seen = _Seen(judging, asked)
        stream = batches.epoch(None, 0)
        for block in range(len(batches)):
            seed_draws(seed, "observations", block)
            x = next(stream)
            seen.note_real(x)
            for given in asked.sets:
                seed_draws(seed, "given", *given, block)
                here = x.select(given)
                if given:
                    z = draw(model, here, samples, iterations, temperature)
                else:
                    z = draw(model, here, samples * x.rows, None, temperature)
                    z = z.unflatten(0, (samples, x.rows))
                looks = {n: (n, partial(judging.look, n)) for n in asked.targets(given)}
                seen.note_generated(given, read_decoded(model, z, here, looks, chunk))
            done(min((block + 1) * ROWS, batches.count))
        seed_draws(seed, "training")
        trained_on = _training_features(dataset, modalities, rows.count, judging, device)
    notes += [note for each in judging.classifiers.values() for note in each.notes]
    if rows.count < FEW:
        notes.append(
            f"Fréchet distances of {rows.count:,} rows are mostly chance: take {FEW:,} or more, "
            "and compare those of equally many"
        )
    if temperature != 1:
        notes.append(f"z sampled at a temperature of {temperature:g}")
    found = (*seen.shares(), *seen.distances(trained_on))
    return Agreement(judge, found, tuple(notes), samples, rows.count)


@dataclass(frozen=True, repr=False)
class Asked(OneLine):
    """What is given, and what is generated from it.

    Attributes:
        sets: The sets to be given.
        counted: Those of them that are counted by their size.
        generated: What the model can generate.
        judge: The judge's name.
    """

    sets: Sequence[Subset]
    counted: frozenset[Subset]
    generated: Subset
    judge: str

    def targets(self, given: Subset) -> Subset:
        """Returns what is generated: all that is not given."""
        return tuple(n for n in self.generated if n not in given)

    def singly(self, given: Subset) -> bool:
        """Tells whether each target is looked at by itself: given one at most, or all there is."""
        return len(given) <= 1 or len(self.sets) == 1


def given_sets(model: Model, judge: str, most: int, seed: int) -> tuple[Asked, list[str]]:
    """Lists what is given: nothing, each modality alone, and up to ``most`` sets of each size.

    The judge is in none of the latter: it would give the answer away.
    """
    if model.directions is not None:
        C = model.directions.given
        note = f"the model generates {model.directions} alone, and nothing from nothing"
        return Asked([C], frozenset([C]), model.targets, judge), [note]
    others, sizes = tuple(n for n in model.names if n != judge), range(1, len(model.names))
    counted = [S for size in sizes for S in _some(others, size, most, seed)]
    possible = sum(math.comb(len(others), size) for size in sizes)
    notes = []
    if possible > len(counted):
        notes.append(f"of {possible:,} sets of given modalities, {len(counted):,} were drawn")
    sets = dict.fromkeys([(), *((n,) for n in model.names), *counted])
    return Asked(list(sets), frozenset(counted), model.targets, judge), notes


def _some(names: Subset, size: int, most: int, seed: int) -> list[Subset]:
    """Returns all subsets of a size, or ``most`` of them, drawn without replacement."""
    if math.comb(len(names), size) <= most:
        return list(combinations(names, size))
    stream = random.Random(generator("subsets", seed, size).initial_seed())
    drawn: dict[Subset, None] = {}
    while len(drawn) < most:
        drawn[ordered(names, stream.sample(names, size))] = None
    return list(drawn)


def _check_fits(model: Model, asked: Asked, judge: Judge, rows: int, samples: int) -> None:
    answers = len(judge.readout.choices)
    kept = sum(2 + len(asked.targets(given)) for given in asked.sets) * rows * answers
    block = samples * min(rows, ROWS) * (len(model.names) * HIDDEN + model.latent)
    check_fits(
        f"comparing {samples:,} samples of z of each of {rows:,} rows",
        8 * (2 * kept + block),  # generated and real
        "fewer --samples, fewer --rows, fewer --subsets",
    )


def _training_features(
    dataset: Dataset,
    modalities: Mapping[str, Modality],
    count: int,
    judge: Judge,
    device: torch.device,
) -> dict[str, list[Sums]]:
    """Returns the features of as many rows that classifiers were trained on, by modality."""
    names = {n: modalities[n] for n in judge.classifiers}
    train = dataset.splits["train"].having(names)
    rows = train.spread(min(count, train.count), names)
    sums: dict[str, list[Sums]] = {}
    for x in Batches(rows, names, device=device, batch_size=ROWS).epoch(None, 0):
        for n in names:
            add(sums, n, grouped(judge.look(n, x[n])))
    return sums


Key = tuple[Question, Subset, Subset]
"""A question, what is given, what is generated."""


class _Seen:
    """What was read of all rows so far, on the CPU: by question, averaged over a row's samples.

    Args:
        judge: Who reads.
        asked: What is given.
    """

    def __init__(self, judge: Judge, asked: Asked) -> None:
        self.judge, self.asked = judge, asked
        self.truth: list[Tensor] = []
        self.real: dict[str, Tensor] = {}
        self.generated_shares: dict[Key, list[Tensor]] = defaultdict(list)
        self.real_shares: dict[Key, list[Tensor]] = defaultdict(list)
        self.generated_sums: dict[tuple[Subset, str], list[Sums]] = {}
        self.real_sums: dict[str, list[Sums]] = {}

    def note_real(self, x: Batch) -> None:
        """Reads real rows: what is true of them, and what is seen in each of their modalities."""
        looked = {n: self.judge.look(n, x[n]) for n in x}
        self.real = {n: self.judge.read(n, value).cpu() for n, value in looked.items()}
        self.truth.append(self.real[self.judge.name])
        for n in self.judge.classifiers:
            add(self.real_sums, n, grouped(looked[n]))

    def note_generated(self, given: Subset, looked: Mapping[str, Tensor]) -> None:
        """Reads what was generated of the same rows, ``(S, B, ...)`` by modality."""
        read = {n: self.judge.read(n, value).cpu() for n, value in looked.items()}
        for key, share in self._answers(given, read):
            self.generated_shares[key].append(share)
        real = {n: self.real[n].unsqueeze(0) for n in read}
        for key, share in self._answers(given, real):
            self.real_shares[key].append(share)
        if self.asked.singly(given):
            for n in (n for n in looked if n in self.judge.classifiers):  # in their order
                add(self.generated_sums, (given, n), grouped(looked[n][0]))

    def _answers(self, given: Subset, read: Mapping[str, Tensor]) -> Iterator[tuple[Key, Tensor]]:
        """Yields shares of the samples of each row, ``(B,)``, or ``(B, A)`` of attributes.

        From nothing, no class is right: of classes, the share of samples that show each ``(B, C)``.
        """
        T, truth = tuple(read), self.truth[-1]
        right = {n: (value == truth).double().mean(0) for n, value in read.items()}
        if not given:
            if len(T) > 1:
                agreed = all_equal(list(read.values()))
                if self.judge.readout.sort == "multiclass":
                    classes = torch.arange(len(self.judge.readout.choices), device="cpu")
                    agreed = agreed.unsqueeze(-1) & (read[T[0]].unsqueeze(-1) == classes)
                yield ("from nothing", given, T), agreed.double().mean(0)
            return
        if self.asked.singly(given):
            for n in T:
                yield ("one to one", given, (n,)), right[n]
            if len(T) > 1:
                readings = list(read.values())
                every = all_equal([*readings, truth.expand_as(readings[0])])
                yield ("one to many, agree", given, T), all_equal(readings).double().mean(0)
                yield ("one to many, right", given, T), every.double().mean(0)
        if given in self.asked.counted:
            yield ("n given", given, T), torch.stack(list(right.values())).mean(0)

    def shares(self) -> Iterator[Finding]:
        """Yields what was found, question by question, with means where several were asked."""
        truth = torch.cat(self.truth)
        generated = {key: torch.cat(parts) for key, parts in self.generated_shares.items()}
        real = {key: torch.cat(parts) for key, parts in self.real_shares.items()}
        for question in get_args(Question):
            keys = [key for key in generated if key[0] == question]
            for number in sorted({len(given) for _, given, _ in keys}):
                alike = [key for key in keys if len(key[1]) == number]
                several = self._averaged(question, alike)
                if len(several) > 1:
                    mean, real_mean = (
                        torch.stack([shares[key] for key in several]).mean(0)
                        for shares in (generated, real)
                    )
                    yield from self._findings((question, (), ()), number, mean, real_mean, truth)
                for key in alike:
                    yield from self._findings(key, number, generated[key], real[key], truth)

    def _averaged(self, question: Question, keys: Sequence[Key]) -> list[Key]:
        """Returns those that a mean is taken of: the judge is not among what it is about."""
        if question == "one to one":
            return [key for key in keys if self.asked.judge not in (*key[1], *key[2])]
        return [*keys] if question == "n given" else []

    def _findings(
        self, key: Key, number: int, share: Tensor, real: Tensor, truth: Tensor
    ) -> Iterator[Finding]:
        """Yields what all rows say together, then what they say of each class or attribute."""
        question, given, targets = key
        judged = question in ("one to one", "one to many, right", "n given")
        own = targets == (self.asked.judge,)  # of its own readings there is no ceiling
        constants = _constants(truth) if judged else None
        whole = partial(_whole, summed=question == "from nothing" and truth.ndim == 1)

        def finding(about: str, v: Tensor, best: Tensor, constant: float | None) -> Finding:
            return Finding(
                question=question,
                given=given,
                targets=targets,
                number=number,
                about=about,
                value=v.mean().item(),
                error=v.std(correction=0).item() / math.sqrt(len(v)),
                baseline=constant,
                ceiling=None if own else best.mean().item(),
                rows=len(v),
            )

        all_together = None if constants is None else constants.mean().item()
        yield finding("", whole(share), whole(real), all_together)
        for n, about in enumerate(self.judge.readout.choices):
            if share.ndim == 2:  # a column each
                constant = None if constants is None or truth.ndim == 1 else constants[n].item()
                yield finding(about, share[:, n], real[:, n], constant)
            elif (rows := truth == n).any():
                yield finding(about, share[rows], real[rows], None)

    def distances(self, trained_on: Mapping[str, list[Sums]]) -> Iterator[Finding]:
        """Yields Fréchet distances between generated and real rows.

        Args:
            trained_on: The features of rows of the training split, by modality.
        """
        for (given, n), sums in self.generated_sums.items():
            value, error = frechet_with_error(self.real_sums[n], sums)
            ceiling, _ = frechet_with_error(self.real_sums[n], trained_on[n])
            yield Finding(
                question="Fréchet",
                given=given,
                targets=(n,),
                number=len(given),
                about="",
                value=value,
                error=error,
                baseline=None,
                ceiling=ceiling,
                rows=sum(group.count for group in sums),
            )


def _whole(share: Tensor, *, summed: bool) -> Tensor:
    """Returns one share per row ``(B,)``: the sum over classes, or the mean over attributes."""
    if share.ndim == 1:
        return share
    return share.sum(1) if summed else share.mean(1)


def _constants(truth: Tensor) -> Tensor:
    """Returns what the best constant answer scores: of classes one number, of attributes each."""
    if truth.ndim == 1:
        return truth.bincount().max().double() / len(truth)
    p = truth.double().mean(0)
    return torch.maximum(p, 1 - p)


def add(sums: dict[K, list[Sums]], key: K, more: list[Sums]) -> None:
    """Adds the groups of a block to those before it."""
    before = sums.get(key)
    sums[key] = more if before is None else [a + b for a, b in zip(before, more, strict=True)]
