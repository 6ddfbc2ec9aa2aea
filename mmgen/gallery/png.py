"""Groups as PNG files."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from mmgen.batch import Batch
from mmgen.errors import GenerationError
from mmgen.gallery import groups
from mmgen.gallery.curves import loss_curves
from mmgen.gallery.groups import Group, renderable
from mmgen.gallery.sheet import Block, Strip, beside, draw, magnified
from mmgen.inference.terms import terms
from mmgen.run import Run

WIDEST, WORDED = 18, 10
"""Columns of a page, and of one with words below its pictures; more go below."""

SAMPLES, OBSERVATIONS, PRIOR = 8, 10, 40
"""Samples per choice, held-out observations, samples of the prior."""


def save(group: Group, path: Path, title: str) -> Path:
    """Draws a group as a page.

    Args:
        group: Its rows hold pictures.
        path: The PNG; its folder is made.
        title: What stands before the group's own.

    Returns:
        ``path``.

    Raises:
        GenerationError: If no modality of the group can be drawn as a picture.
    """
    strips = _strips(group)
    ways = [f"{row.caption.capitalize()}: {row.note}." for row in group.rows if row.note]
    note = " ".join([group.note, *ways])
    if group.samples:  # as many columns of rows as make the page about as wide as high
        columns = max(1, round(math.sqrt(1.2 * len(strips) / (len(strips[0].pictures) + 1))))
        below = math.ceil(len(strips) / columns)
        parts = [strips[i : i + below] for i in range(0, len(strips), below)]
        blocks = [Block(part, headings=("mean", "samples")) for part in parts]
    else:
        room = max(1, 1600 // strips[0].pictures.shape[2])
        widest = min(room, WIDEST if group.columns else WORDED)
        blocks = [Block(_wrapped(strips, group.columns, widest))]
    return draw(path, f"{title}: {group.title}", note, blocks)


def compare(
    runs: Mapping[str, Run],
    source: str,
    target: str,
    path: Path,
    *,
    samples: int = 6,
    iterations: int | None = None,
    seed: int = 0,
) -> Path:
    """Draws the same choices for several models side by side, a block each.

    Args:
        runs: The trained runs, by the name to show.
        source: A modality with ``choices()``, of all runs; nothing else is given.
        target: A modality that can be rendered, of all runs.
        path: The PNG to write.
        samples: Samples of z per row, after a first picture at the mean of z.
        iterations: Of joint models, see :func:`mmgen.inference.sample.sample_latent`.
        seed: Fixes the noise, the same for each model.

    Returns:
        ``path``.

    Raises:
        GenerationError: If the source has no choices or the target no pictures.
    """
    blocks: list[Block] = []
    for name, run in runs.items():
        T = iterations if run.model.directions is None else None
        group = groups.from_choices(run, source, [target], samples, iterations=T, seed=seed)
        strips = _strips(group)
        if blocks:  # the first block names the rows of all
            strips = [Strip("", strip.pictures) for strip in strips]
        way = groups.how_found(run.model, [source], T)
        blocks.append(Block(strips, name, way, headings=("mean", "samples")))
    note = (
        f"Given: {source} alone, the word at the left. z first at its mean, then {samples} "
        f"samples. Each picture is the mean of the distribution of {target} given z."
    )
    return draw(path, f"{target} from {source} alone", note, blocks)


def draw_all(run: Run, observations: Batch, metrics: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Draws every figure that applies to a run, in the directions that its model goes.

    Args:
        run: The trained run.
        observations: Some held-out ``(B, *shape)`` of every modality.
        metrics: See :func:`mmgen.training.run_folder.read_metrics`; may be empty.

    Returns:
        The files: ``RUN/figures/TARGET_from_SOURCE.png``, ``TARGET_from_A+B.png``,
        ``TARGET_reconstructed.png``, ``prior.png`` and ``losses.png``.
    """
    model, folder = run.model, run.path / "figures"
    title = f"{run.experiment.name}, {model.kind}"
    shown = [n for n in model.targets if renderable(run.modalities[n])]
    # More choices first: they go from left to right.
    chosen = [n for n, m in run.modalities.items() if m.choices()]
    chosen.sort(key=lambda n: -len(run.modalities[n].choices()))
    found: dict[str, Group] = {}
    for target in shown:
        sources = [n for n in chosen if n != target]
        for source in sources:
            if model.generates([source], [target]):
                group = groups.from_choices(run, source, [target], SAMPLES)
                found[f"{target}_from_{source}"] = group
        for across, down in combinations(sources, 2):
            if model.generates([across, down], [target]):
                found[f"{target}_from_{across}+{down}"] = groups.from_pairs(
                    run, across, down, target
                )
        x = observations.select(model.names).slice(0, OBSERVATIONS)
        found[f"{target}_reconstructed"] = groups.reconstructions(run, x, target)
    if shown and model.generates([], shown):
        found["prior"] = groups.from_prior(run, PRIOR)
    paths = [save(group, folder / f"{file}.png", title) for file, group in found.items()]
    if metrics:
        path = folder / "losses.png"
        paths.append(loss_curves(metrics, path, f"{title}: training", terms(model)))
    return paths


def _strips(group: Group) -> list[Strip]:
    """Magnifies each row's pictures, those of several modalities side by side, above its words."""
    if not group.rows[0].pictures:
        told = ", ".join(group.rows[0].words)
        raise GenerationError(f"{told}: told in words, not drawn as a picture")
    return [
        Strip(
            row.caption,
            beside([magnified(pictures) for pictures in row.pictures.values()]),
            ["\n".join(words) for words in zip(*row.words.values(), strict=True)],
        )
        for row in group.rows
    ]


def _wrapped(strips: Sequence[Strip], columns: Sequence[str], widest: int) -> list[Strip]:
    """Puts what is beyond the widest row below, and the columns' words below their last row."""
    wrapped = []
    for start in range(0, max(len(strip.pictures) for strip in strips), widest):
        part = slice(start, start + widest)
        for strip in strips:
            last = columns and strip is strips[-1]
            words = columns[part] if last else strip.words[part]
            wrapped.append(Strip(strip.caption, strip.pictures[part], words))
    return wrapped
