"""What a run generates: from each choice, from each subset of modalities, from nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.figures.tools import likelihood_of, renderable, way_of
from mmgen.formatting import joined
from mmgen.inference.sample import sample_latent
from mmgen.report.held_out import HeldOut, spread_words
from mmgen.report.pictures import Picture, affordable, picture
from mmgen.run import Run
from mmgen.subsets import Subset, proper

SAMPLES = 3
"""Samples beside the picture at the mean."""

WALL, STRIPS, WORDS = 60, 12, 12
"""The most choices that are shown as one picture each, as a row of pictures, in words."""

OBSERVATIONS, SUBSETS, PRIOR = 4, 14, 16
"""Held-out observations, subsets that they are generated from, samples of the prior."""

MOST = 12
"""With more modalities than this, subsets are not listed one by one: there are too many."""


@dataclass(frozen=True, repr=False)
class Cell(OneLine):
    """Pictures and words that belong together, with what they are.

    Attributes:
        caption: Below or beside them; may be empty.
        pictures: One or several.
        words: By modality that is not a picture.
    """

    caption: str
    pictures: list[Picture] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Group(OneLine):
    """Cells under one title.

    Attributes:
        title: What is given, what comes.
        note: How.
        cells: In order.
        layout: ``wall``, ``strips``, ``table`` or ``row``.
    """

    title: str
    note: str
    cells: list[Cell]
    layout: str


@torch.no_grad()
def from_choices(run: Run) -> list[Group]:
    """Generates every other modality from each choice of one, given alone, where it can."""
    groups = []
    for source, modality in run.modalities.items():
        choices = modality.choices()
        targets = _possible(run, [source])
        if not choices:
            continue
        for target in targets:
            if renderable(run.modalities[target]):
                groups += _pictures_of(run, source, target, choices)
        if words := [n for n in targets if not renderable(run.modalities[n])]:
            groups.append(_words_of(run, source, words, choices))
    return sorted(groups, key=lambda group: group.layout == "table")


def _possible(run: Run, given: Sequence[str]) -> list[str]:
    """Lists what is not given and can be generated from it."""
    return [n for n in run.modalities if n not in given and run.model.generates(given, [n])]


def _pictures_of(run: Run, source: str, target: str, choices: Sequence[str]) -> list[Group]:
    room = affordable(run.modalities[target], WALL)
    many = len(choices) > STRIPS
    rows = spread_words(choices, min(STRIPS // 2 if many else STRIPS, room))
    wall = spread_words(choices, room) if many else []
    way = way_of(run.model, [source])
    each = f"Each picture is the mean of {likelihood_of(run.model, [target])}."
    groups = []
    if wall:
        drawn = _drawn(run, source, target, wall, 1, temperature=0.0)[0]
        cells = [
            Cell(word, [picture(d, f"{target} given {source} {word}: z at its mean; {way}")])
            for word, d in zip(wall, drawn, strict=True)
        ]
        left = _left_out(len(choices), len(wall), "choices")
        note = f"Given: the {source} below each picture, nothing else. z at its mean, {way[2:]}."
        groups.append(Group(f"{target} from {source}", f"{note} {each}{left}", cells, "wall"))
    mean = _drawn(run, source, target, rows, 1, temperature=0.0)
    samples = _drawn(run, source, target, rows, SAMPLES, temperature=1.0)
    cells = []
    for i, word in enumerate(rows):
        shown = [picture(mean[0, i], f"{target} given {source} {word}: z at its mean; {way}")]
        shown += [
            picture(samples[s, i], f"{target} given {source} {word}: sample {s + 1} of z; {way}")
            for s in range(SAMPLES)
        ]
        cells.append(Cell(word, shown))
    left = _left_out(len(choices), len(rows), "choices")
    note = (
        f"Given: the {source} named above each row, nothing else. First at the mean of z, then "
        f"{SAMPLES} samples of z; {way}. {each}{left}"
    )
    title = f"{target} from {source}" + (": the spread" if wall else "")
    return [*groups, Group(title, note, cells, "strips")]


def _words_of(run: Run, source: str, targets: Sequence[str], choices: Sequence[str]) -> Group:
    rows = spread_words(choices, WORDS)
    given = _given(run, source, rows)
    z = sample_latent(run.model, given, 1, temperature=0.0)[0]
    told = {n: _described(run, n, p.mean) for n, p in run.model.decode(z, given, targets).items()}
    cells = [Cell(word, words={n: told[n][i] for n in told}) for i, word in enumerate(rows)]
    left = _left_out(len(choices), len(rows), "choices")
    means = f"The mean of {likelihood_of(run.model, targets)} in words"
    note = (
        f"Given: {source} alone. {means}; z at its mean, {way_of(run.model, [source])[2:]}.{left}"
    )
    return Group(f"{joined(targets)} from {source}, in words", note, cells, "table")


def _drawn(
    run: Run, source: str, target: str, words: Sequence[str], samples: int, *, temperature: float
) -> Tensor:
    """Renders ``(samples, words, 3, H, W)``."""
    given = _given(run, source, words)
    z = sample_latent(run.model, given, samples, temperature=temperature)
    mean = run.model.decode(z, given, [target])[target].mean
    drawn = _rendered(run, target, mean.flatten(0, 1))
    return drawn.reshape(samples, len(words), *drawn.shape[1:])


def _given(run: Run, source: str, words: Sequence[str]) -> Batch:
    modality = run.modalities[source]
    stored = torch.stack([modality.parse(word) for word in words]).to(run.device)
    return Batch({source: modality.observe(stored)})


def _rendered(run: Run, name: str, x: Tensor) -> Tensor:
    drawn = run.modalities[name].render(x)
    assert drawn is not None
    return drawn


def _described(run: Run, name: str, x: Tensor) -> list[str]:
    """Describes each row; a number and its sign stay on one line."""
    return [word.replace(" %", "\u00a0%") for word in run.modalities[name].describe(x.cpu())]


@torch.no_grad()
def from_subsets(run: Run, held_out: HeldOut) -> tuple[list[Group], int]:
    """Generates, for a few held-out observations, what each subset of modalities lacks.

    Of a model of one direction, what it generates, from what it is given.

    Returns:
        First what was observed, then given all, then a group a subset; and how many subsets are
        left out.
    """
    x = held_out.spread(OBSERVATIONS)
    names = [*run.model.names]
    shown = [n for n in names if renderable(run.modalities[n])]
    groups = [
        Group(
            "Observed",
            f"Observations of the {held_out.split} split, as the nets see them.",
            _cells(run, x, names, "observed"),
            "row",
        )
    ]
    given = run.model.directions.given if run.model.directions else None
    if given is not None:
        subsets = [given]
    elif len(names) <= MOST:
        subsets = proper(names)
    else:  # of so many subsets, only these are ever chosen
        subsets = [*combinations(names, 1), *combinations(names, len(names) - 1)]
    count = 1 if given is not None else 2 ** len(names) - 2
    chosen = _chosen(subsets, len(names))
    # What costs most, one picture an observation, decides how many subsets are affordable.
    room = min((affordable(run.modalities[n], 10_000) for n in shown), default=10_000)
    chosen = chosen[: max(len(names), room // OBSERVATIONS)]
    for subset in [tuple(names), *chosen]:
        seen = x.select(subset)
        targets = [*run.model.targets] if len(subset) == len(names) else _possible(run, subset)
        z = sample_latent(run.model, seen, 1, temperature=0.0)[0]
        means = {n: p.mean for n, p in run.model.decode(z, seen, targets).items()}
        if len(subset) == len(names):
            title = "Reconstructed from all"
        else:
            title = f"{joined(targets)} from {joined(subset)}"
        way = way_of(run.model, subset)
        alt = f"given {', '.join(subset)}, z at its mean; {way}"
        note = f"Given: {', '.join(subset)}. z at its mean, {way[2:]}."
        groups.append(Group(title, note, _cells(run, means, targets, alt), "row"))
    return groups, count - len(chosen)


def _chosen(subsets: Sequence[Subset], count: int) -> list[Subset]:
    """Returns the subsets to show: single ones, those that lack one, then the others."""
    order = sorted(subsets, key=lambda s: (len(s) not in (1, count - 1), len(s)))
    return sorted(order[:SUBSETS], key=subsets.index)


@torch.no_grad()
def from_prior(run: Run) -> Group | None:
    """Draws z from the prior and decodes every modality from it, if nothing need be given."""
    if not run.model.generates([], run.model.targets):
        return None
    shown = [n for n, m in run.modalities.items() if renderable(m)]
    count = min([PRIOR, *(affordable(run.modalities[n], PRIOR) for n in shown)])
    z = run.model.prior(Batch({})).sample((count,))
    means = {n: p.mean for n, p in run.model.decode(z).items()}
    cells = _cells(run, means, [*means], "given nothing, z from the prior")
    note = f"Given: nothing. z from the prior; the mean of p({', '.join(means)} | z) of one z each."
    return Group("From the prior", note, cells, "row")


def _cells(run: Run, x: Mapping[str, Tensor], names: Sequence[str], way: str) -> list[Cell]:
    """Shows each row of observations or means: pictures first, then words."""
    shown = [n for n in names if renderable(run.modalities[n])]
    drawn = {n: _rendered(run, n, x[n]) for n in shown}
    told = {n: _described(run, n, x[n]) for n in names if n not in shown}
    count = len(x[names[0]])
    return [
        Cell(
            "",
            [picture(drawn[n][i], f"{n} {i + 1}, {way}") for n in shown],
            {n: told[n][i] for n in told},
        )
        for i in range(count)
    ]


def _left_out(there: int, shown: int, what: str) -> str:
    return f" {shown} of {there:,} {what}, evenly spread." if shown < there else ""
