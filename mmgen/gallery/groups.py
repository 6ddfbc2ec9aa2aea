"""What a run generates, to be looked at: from each choice, from any subset, from nothing.

A group is rows of pictures and words. It is drawn as a PNG (:mod:`mmgen.gallery.png`) or as a part
of the report (:mod:`mmgen.gallery.html`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.errors import GenerationError
from mmgen.formatting import joined
from mmgen.inference.iterative import ITERATIONS
from mmgen.inference.sample import inferred, sample_latent
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.run import Run
from mmgen.seeding import random_state
from mmgen.subsets import Subset, proper

CHOICES = 120
"""More choices than this are not drawn: nobody would look at them."""

DECODED = 100
"""Rows that are decoded at a time: no more than in training, whose memory there was."""

MOST = 12
"""With more modalities than this, their subsets are not listed one by one: there are too many."""


@dataclass(frozen=True, repr=False)
class Row(OneLine):
    """n observations, or means of what was generated, side by side.

    Attributes:
        caption: What is given: a choice, or ``"from label"``; may be empty.
        pictures: By modality that is drawn, ``(n, 3, H, W)`` in [0, 1].
        words: By modality that is told in words, n of them.
        told: What each of the n is, for who cannot see it.
        note: How z is found; may be empty.
    """

    caption: str
    pictures: dict[str, Tensor]
    words: dict[str, list[str]]
    told: Sequence[str]
    note: str = ""

    @property
    def names(self) -> list[str]:
        """The modalities, pictures first."""
        return [*self.pictures, *self.words]


@dataclass(frozen=True, repr=False)
class Group(OneLine):
    """Rows under one title.

    Attributes:
        title: What is given, what comes.
        note: How.
        rows: In order.
        columns: What is given beside the row's caption, column by column; may be empty.
        samples: Whether samples follow what is at the mean of z, in each row.
    """

    title: str
    note: str
    rows: list[Row]
    columns: Sequence[str] = ()
    samples: bool = False


def renderable(modality: Modality) -> bool:
    """Tells whether a modality is drawn as a picture, not only told in words."""
    return modality.render(torch.zeros(1, *modality.shape)) is not None


def spread(count: int, most: int) -> Tensor:
    """Returns up to ``most`` of the numbers below ``count``, evenly spread, in order.

    Examples:
        >>> spread(9, 3).tolist(), spread(2, 3).tolist()
        ([0, 4, 8], [0, 1])
    """
    if count <= most:
        return torch.arange(count, device="cpu")
    return torch.linspace(0, count - 1, most, dtype=torch.float64, device="cpu").round().long()


def how_found(model: Model, given: Iterable[str], iterations: int | None = None) -> str:
    """Says how z is found: ``"z from q(z | label)"``, or by iterative sampling."""
    q = inferred(model, given) if iterations is None or not given else None
    if q is not None:
        return f"z from {q.symbol}"
    return f"z by iterative sampling, T = {iterations or ITERATIONS}"


def likelihood(model: Model, targets: Iterable[str]) -> str:
    """Writes what decoders return: ``"p(image | z)"``, of a CVAE ``"p(image | z, label)"``."""
    return f"p({', '.join(targets)} | {', '.join(['z', *model.decoder_given])})"


@torch.no_grad()
def from_choices(
    run: Run,
    source: str,
    targets: Sequence[str],
    samples: int,
    *,
    most: int = CHOICES,
    iterations: int | None = None,
    seed: int = 0,
) -> Group:
    """Generates from each choice of one modality alone: a row per choice.

    Args:
        run: The trained run.
        source: A modality with ``choices()``; nothing else is given.
        targets: What is generated.
        samples: Samples of z per row, after what is at the mean of z.
        most: Of more choices, so many are taken, evenly spread.
        iterations: See :func:`mmgen.inference.sample.sample_latent`.
        seed: Fixes the noise.

    Raises:
        GenerationError: If the source has no choices, or the targets do not follow from it.
    """
    model = run.model
    run.targets([source], targets)  # refuses unknown names, impossible directions
    choices = run.modalities[source].choices()
    if not choices:
        raise GenerationError(f"{source}: has no choices to generate {joined(targets)} from")
    chosen = [choices[i] for i in spread(len(choices), most).tolist()]
    how = how_found(model, [source], iterations)
    kinds = ["z at its mean", *(f"sample {i} of z" for i in range(1, samples + 1))]
    at_once = max(1, DECODED // len(kinds))
    rows = []
    with random_state(run.device, seed):
        for start in range(0, len(chosen), at_once):
            part = chosen[start : start + at_once]
            given = _observed(run, {source: part})
            z = [
                sample_latent(model, given, count, temperature=temperature, iterations=iterations)
                for count, temperature in ((1, 0.0), (samples, 1.0))
                if count
            ]
            means = {n: p.mean for n, p in model.decode(torch.cat(z), given, targets).items()}
            for i, word in enumerate(part):
                told = [f"given {source} {word}, {kind}; {how}" for kind in kinds]
                rows.append(_row(run, word, {n: mean[:, i] for n, mean in means.items()}, told))
    means_of = f"the mean of {likelihood(model, targets)}"
    first = f", first at its mean, then {samples} samples" if samples else ", at its mean"
    note = f"Given: {source} alone; {how}{first}. Shown is {means_of}."
    if len(chosen) < len(choices):
        note += f" {len(chosen)} of {len(choices):,} choices, evenly spread."
    return Group(f"{joined(targets)} from {source}", note, rows, samples=samples > 0)


@torch.no_grad()
def from_pairs(run: Run, across: str, down: str, target: str, *, seed: int = 0) -> Group:
    """Generates from each choice of two modalities together, at the mean of z.

    Args:
        run: The trained run.
        across: A modality with ``choices()``: a column per choice.
        down: Another one: a row per choice.
        target: What is generated.
        seed: Fixes the noise of iterative sampling.

    Raises:
        GenerationError: If a name is wrong, or the target does not follow from both.
    """
    model = run.model
    run.targets([across, down], [target])  # refuses unknown names, impossible directions
    columns = run.modalities[across].choices()[:CHOICES]
    how, rows = how_found(model, [across, down]), []
    with random_state(run.device, seed):
        for word in run.modalities[down].choices()[: CHOICES // 6]:
            given = _observed(run, {across: columns, down: [word] * len(columns)})
            z = sample_latent(model, given, 1, temperature=0.0)[0]
            told = [f"given {across} {column}, {down} {word}; {how}" for column in columns]
            means = model.decode(z, given, [target])[target].mean
            rows.append(_row(run, word, {target: means}, told))
    note = (
        f"Given: {across}, the word below, and {down}, the word at the left; {how}, at its mean. "
        f"Shown is the mean of {likelihood(model, [target])}."
    )
    return Group(f"{target} from {across} and {down}", note, rows, columns)


@torch.no_grad()
def held_out(
    run: Run,
    x: Batch,
    subsets: Iterable[Sequence[str]],
    names: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Group:
    """Generates, for some observations, from each subset of their modalities at the mean of z.

    Args:
        run: The trained run.
        x: Observations ``(n, *shape)`` of all modalities of the model.
        subsets: What is given, row by row; from some of them nothing may be generated.
        names: Which modalities are generated, whether they are given or not; by default what a
            subset lacks, and all if it lacks nothing.
        seed: Fixes the noise.

    Returns:
        First what was observed, the words of all modalities included; then a row per subset.
    """
    model = run.model
    seen = [
        n for n in model.names if n in (names or model.names) or not renderable(run.modalities[n])
    ]
    told = [f"{i + 1}, observed" for i in range(x.rows)]
    rows = [_row(run, "observed", x.select(seen), told)]
    with random_state(run.device, seed):
        for subset in subsets:
            lacking = [n for n in model.targets if n not in subset] or model.targets
            targets = [n for n in names or lacking if model.generates(subset, [n])]
            if not (subset and targets):
                continue
            given = x.select(subset)
            z = sample_latent(model, given, 1, temperature=0.0)[0]
            means = {n: p.mean for n, p in model.decode(z, given, targets).items()}
            whole, how = {*subset} == {*model.names}, how_found(model, subset)
            source = "all" if whole else joined(subset)
            told = [f"{i + 1}, given {source}, z at its mean; {how}" for i in range(x.rows)]
            rows.append(_row(run, f"from {source}", means, told, how))
    note = f"z at its mean; shown is the mean of {likelihood(model, names or model.targets)}."
    title = f"{joined(names)} reconstructed" if names else "From any subset to the rest"
    return Group(title, note, rows)


def reconstructions(run: Run, x: Batch, target: str) -> Group:
    """Generates one modality of some observations from all, itself, the others, and what is given.

    Args:
        run: The trained run.
        x: Observations ``(n, *shape)`` of all modalities of the model.
        target: The modality.

    Raises:
        GenerationError: If the model does not generate it.
    """
    model = run.model
    if target not in model.targets:
        raise GenerationError(f"{run.path} generates {model.direction()}, not {target}")
    C = model.directions.given if model.directions else ()
    others = tuple(n for n in model.names if n != target)
    return held_out(run, x, dict.fromkeys([model.names, (target,), others, C]), [target])


def shown_subsets(model: Model, most: int) -> tuple[list[Subset], int]:
    """Chooses the subsets to generate from: single ones, those that lack one, then others.

    Returns:
        At most so many, smaller ones first; and how many are left out.
    """
    names = model.names
    if model.directions is not None:
        return [model.directions.given], 0
    if len(names) <= MOST:
        every = proper(names)
    else:  # of so many subsets, only these are ever chosen
        every = [*combinations(names, 1), *combinations(names, len(names) - 1)]
    outer = (1, len(names) - 1)
    first = sorted(every, key=lambda s: (len(s) not in outer, len(s)))[:most]
    return sorted(first, key=every.index), 2 ** len(names) - 2 - len(first)


FITTED = "a mixture of Gaussians that was fitted to the posteriors of training rows, "
"""What a fitted prior is, before its symbol."""


@torch.no_grad()
def from_prior(run: Run, count: int, *, seed: int = 0) -> Group:
    """Draws z given nothing and decodes every modality from it.

    Raises:
        GenerationError: If something must be given.
    """
    run.targets([], run.model.targets)  # refuses a model of one direction
    with random_state(run.device, seed):
        p = run.model.sampling_prior(Batch({}))
        means = {n: d.mean for n, d in run.model.decode(p.sample((count,))).items()}
    told = [f"{i + 1}, given nothing, z from {p.symbol}" for i in range(count)]
    what = "the prior " if run.model.fitted_prior is None else FITTED
    note = f"Given: nothing. z from {what}{p.symbol}; shown is the mean of "
    note += f"{likelihood(run.model, means)} of one z each."
    return Group("From the prior", note, [_row(run, "", means, told)])


def _observed(run: Run, words: Mapping[str, Sequence[str]]) -> Batch:
    given = {}
    for name, each in words.items():
        stored = torch.stack([run.modalities[name].parse(word) for word in each])
        given[name] = run.modalities[name].observe(stored.to(run.device))
    return Batch(given)


def _row(
    run: Run, caption: str, x: Mapping[str, Tensor], told: Sequence[str], note: str = ""
) -> Row:
    """Renders observations or means ``(n, *shape)``, and describes what is no picture."""
    pictures, words = {}, {}
    for name, values in x.items():
        modality = run.modalities[name]
        if (drawn := modality.render(values)) is not None:
            pictures[name] = drawn
        else:  # a number and its unit stay on one line
            described = modality.describe(values.cpu())
            words[name] = [word.replace(" %", "\u00a0%") for word in described]
    return Row(caption, pictures, words, told, note)
