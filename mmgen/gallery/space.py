"""The latent space of a run on held-out rows: where they lie, how much is used, what it tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.evaluation.latent import (
    ROWS,
    Axes,
    active_units,
    given_gains,
    own_gains,
    posterior_means,
    principal_axes,
)
from mmgen.gallery.groups import MOST
from mmgen.gallery.held_out import HeldOut
from mmgen.inference.divergence import subset_divergences
from mmgen.inference.sample import infer, inferred
from mmgen.latent.base import Latent
from mmgen.run import Run

WIDTH, EDGE = 400, 16
MOST_GROUPS = 60
"""More different descriptions than this are no groups to colour by."""
MOST_COLOURS = 12
"""With more groups than this, words stand in the drawing in place of a legend."""
GAIN_ROWS = 128


@dataclass(frozen=True, repr=False)
class Cloud(OneLine):
    """One group of points of a colour.

    Attributes:
        word: What they have in common; empty if points are not grouped.
        hue: Of the colour, in degrees.
        points: Coordinates.
        place: Where its word stands, if it is written into the drawing.
    """

    word: str
    hue: int
    points: list[tuple[float, float]]
    place: tuple[float, float] | None


@dataclass(frozen=True, repr=False)
class Map(OneLine):
    """The posterior means in two dimensions.

    Attributes:
        width: Of the drawing.
        height: Likewise; both axes have one scale.
        clouds: The groups.
        by: The modality whose words colour the points; empty if none does.
        points: What the points are means of: ``"q(z | x)"``.
        alone: What puts z where the marks are, if it is that modality alone: ``"q(z | label)"``.
        shares: The share of the variance that each axis explains, in per cent.
        rows: How many points.
        crowded: How many words are left out, because they would cover others.
        level: ``z``, or ``z1`` of a hierarchy.
    """

    width: int
    height: int
    clouds: list[Cloud]
    by: str
    points: str
    alone: str
    shares: list[float]
    rows: int
    crowded: int
    level: str

    @property
    def legend(self) -> bool:
        """Whether the groups are told apart beside the drawing."""
        return bool(self.by) and len(self.clouds) <= MOST_COLOURS


@dataclass(frozen=True, repr=False)
class Space(OneLine):
    """All that is said of z.

    Attributes:
        map: The drawing.
        active: Active units per layer.
        size: Z.
        told: How much likelier each modality is from its own z, in nats.
        led: How much likelier targets are from their own x_C, of a conditional model.
        divergences: KL(q(z|x) ‖ q(z|x_S)) of each subset that has a posterior.
        silent: Modalities of which alone the posterior is the same whatever they are.
        constant: Modalities that never change in these rows.
    """

    map: Map
    active: dict[str, int]
    size: int
    told: dict[str, float]
    led: dict[str, float]
    divergences: dict[str, float]
    silent: list[str]
    constant: list[str]


@torch.no_grad()
def space(run: Run, held_out: HeldOut) -> Space:
    """Looks at z of the held-out rows; draws noise from torch's random state."""
    names = run.model.names
    x, some = held_out.x.select(names), held_out.spread(GAIN_ROWS).select(names)
    layers = posterior_means(run.model, x)
    levels = ["z"] if len(layers) == 1 else [f"z{i}" for i in range(1, len(layers) + 1)]
    constant = [n for n, v in x.items() if bool((v == v[:1]).all())]
    few = [*combinations(names, 1), *combinations(names, len(names) - 1)]
    divergences = subset_divergences(run.model, x, ROWS, few if len(names) > MOST else None)
    silent = [n for n in x if n not in constant and _leads_nowhere(run, x.select([n]))]
    return Space(
        map=_map(run, x, layers[0], levels[0]),
        active={level: int(active_units(m).sum()) for level, m in zip(levels, layers, strict=True)},
        size=layers[0].shape[1],
        told=own_gains(run.model, some),
        led=given_gains(run.model, some),
        divergences={", ".join(subset): kl for subset, kl in divergences.items()},
        silent=silent,
        constant=constant,
    )


def _leads_nowhere(run: Run, given: Batch) -> bool:
    """Tells whether there is a posterior given this alone, and it is the same whatever it is."""
    q = run.model.posterior(given)
    return q is not None and not bool(active_units(q.mean.flatten(1)).any())


def _map(run: Run, x: Batch, means: Tensor, level: str) -> Map:
    means = means.cpu().double()
    axes = principal_axes(means)
    places = _flat(axes, means)
    by, words = _grouping(run, x)
    groups = list(dict.fromkeys(words))
    if by:  # in the order of the choices, as far as they are choices
        choices = run.modalities[by].choices()
        groups.sort(key=lambda w: (choices.index(w) if w in choices else len(choices), w))
    q = _given_alone(run, x, by, [words.index(word) for word in groups]) if by else None
    if q is not None:
        marks = _flat(axes, q.mean.reshape(len(groups), -1)[:, : means.shape[1]].cpu().double())
    else:
        marks = torch.stack([places[[w == word for w in words]].mean(0) for word in groups])
    low = torch.cat([places, marks]).amin(0)
    high = torch.cat([places, marks]).amax(0)
    scale = (WIDTH - 2 * EDGE) / max(float((high - low).max()), 1e-12)
    height = round(min(max(scale * float((high - low)[1]) + 2 * EDGE, WIDTH / 3), WIDTH))
    centre = (low + high) / 2

    def at(point: Tensor) -> tuple[float, float]:
        across, up = ((point - centre) * scale).tolist()
        return round(WIDTH / 2 + across, 1), round(height / 2 - up, 1)

    written = _apart([at(mark) for mark in marks], groups) if by else []
    if len(groups) <= MOST_COLOURS:
        written = [*range(len(groups))] if q is not None else []
    clouds = [
        Cloud(
            word if by else "",
            round(360 * i / len(groups) + 12) % 360,
            [at(p) for p, w in zip(places, words, strict=True) if w == word],
            at(marks[i]) if i in written else None,
        )
        for i, word in enumerate(groups)
    ]
    of_all = inferred(run.model, [*x])
    shares = [100 * float(s) for s in axes.shares]
    crowded = len(groups) - len(written) if by and len(groups) > MOST_COLOURS else 0
    return Map(
        width=WIDTH,
        height=height,
        clouds=clouds,
        by=by,
        points=of_all.symbol if of_all is not None else "",
        alone=q.symbol if q is not None else "",
        shares=shares,
        rows=len(means),
        crowded=crowded,
        level=level,
    )


def _given_alone(run: Run, x: Batch, name: str, rows: Sequence[int]) -> Latent | None:
    """Returns what z is drawn from given one modality alone, if that depends on it."""
    q = infer(run.model, Batch({name: x[name][list(rows)]}))
    return q if q is not None and q.batch_shape else None  # a prior may be the same for all rows


def _apart(places: Sequence[tuple[float, float]], words: Sequence[str]) -> list[int]:
    """Chooses words that do not cover each other, first come, first served."""
    written: list[int] = []
    for i, (x, y) in enumerate(places):
        clear = (
            abs(y - places[j][1]) > 13
            or abs(x - places[j][0]) > 4 * (min(len(words[i]), 12) + min(len(words[j]), 12)) + 3
            for j in written
        )
        if all(clear):
            written.append(i)
    return written


def _flat(axes: Axes, points: Tensor) -> Tensor:
    """Projects to ``(N, 2)``; what has fewer dimensions lies on a line."""
    flat = axes.project(points)
    return torch.cat([flat, flat.new_zeros(len(flat), 2 - flat.shape[1])], dim=1)


def _grouping(run: Run, x: Batch) -> tuple[str, list[str]]:
    """Finds the modality whose words sort the rows best, and each row's word.

    One of n choices is preferred; then choices; then few different words.
    """
    found: list[tuple[tuple[bool, bool, int], str, list[str]]] = []
    for modality_name, values in x.items():
        modality = run.modalities[modality_name]
        words = modality.describe(values.cpu())
        different = set(words)
        if 2 <= len(different) <= min(MOST_GROUPS, max(2, len(words) // 3)):
            choices = modality.choices()
            order = (not different <= {*choices}, not choices, len(different))
            found.append((order, modality_name, words))
    if not found:
        return "", [""] * x.rows
    _, by, words = min(found, key=lambda item: item[0])
    return by, words
