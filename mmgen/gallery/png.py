"""Groups as PNG files under ``RUN/figures``, and how a run learned."""

import math
from collections.abc import Mapping, Sequence
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

WIDEST = 18
"""Columns of a page of two modalities' choices; more go below."""


def from_choices(
    run: Run,
    source: str,
    target: str,
    *,
    samples: int = 8,
    iterations: int | None = None,
    seed: int = 0,
) -> Path:
    """Draws :func:`mmgen.gallery.groups.from_choices` of a modality that is a picture.

    Returns:
        ``RUN/figures/TARGET_from_SOURCE.png``.

    Raises:
        GenerationError: If the source has no choices or the target no pictures.
    """
    _check_drawn(run, target)
    group = groups.from_choices(
        run, source, [target], samples=samples, iterations=iterations, seed=seed
    )
    strips = _strips(group)
    # As many columns of rows as make the page about as wide as high.
    columns = max(1, round(math.sqrt(1.2 * len(strips) / (samples + 2))))
    rows = math.ceil(len(strips) / columns)
    starts = range(0, len(strips), rows)
    blocks = [Block(strips[i : i + rows], headings=("mean", "samples")) for i in starts]
    note = f"{group.note} The word at the left is what is given."
    return _page(run, f"{target}_from_{source}", group.title, note, blocks)


def from_pairs(run: Run, across: str, down: str, target: str, *, seed: int = 0) -> Path:
    """Draws :func:`mmgen.gallery.groups.from_pairs` of a modality that is a picture.

    Returns:
        ``RUN/figures/TARGET_from_ACROSS+DOWN.png``.

    Raises:
        GenerationError: If a name is wrong, or the target has no pictures.
    """
    _check_drawn(run, target)
    group = groups.from_pairs(run, across, down, target, seed=seed)
    whole, strips = _strips(group), []
    for start in range(0, len(group.columns), WIDEST):
        part = slice(start, start + WIDEST)
        strips += [Strip(strip.caption, strip.pictures[part]) for strip in whole]
        strips[-1] = Strip(whole[-1].caption, strips[-1].pictures, group.columns[part])
    file = f"{target}_from_{across}+{down}"
    return _page(run, file, group.title, group.note, [Block(strips)])


def reconstructions(
    run: Run,
    observations: Batch,
    target: str,
    *,
    count: int = 10,
    iterations: int | None = None,
    seed: int = 0,
) -> Path:
    """Draws observations of a modality above its reconstructions, given all, itself, the others.

    What the model cannot do is left out; of a conditional model, what it generates from is there.

    Args:
        run: The trained run.
        observations: Held-out ``(B, *shape)`` of every modality; the first ``count`` are drawn.
        target: A modality that can be rendered.
        count: How many observations.
        iterations: See :func:`mmgen.inference.sample.sample_latent`.
        seed: Fixes the noise.

    Returns:
        ``RUN/figures/TARGET_reconstructed.png``.

    Raises:
        GenerationError: If the target has no pictures, or is not one that the model generates.
    """
    model = run.model
    if target not in model.targets:
        raise GenerationError(f"{run.path} generates {model.direction()}, not {target}")
    _check_drawn(run, target)
    x = observations.select(model.names).slice(0, count)
    subsets = [model.names, (target,), tuple(n for n in model.names if n != target)]
    if model.directions is not None:
        subsets.append(model.directions.given)
    group = groups.held_out(
        run, x, dict.fromkeys(subsets), [target], iterations=iterations, seed=seed
    )
    ways = [f" {row.caption.capitalize()}: {row.note}." for row in group.rows[1:]]
    title = f"{target} reconstructed"
    return _page(
        run, f"{target}_reconstructed", title, group.note + "".join(ways), [Block(_strips(group))]
    )


def from_prior(run: Run, *, count: int = 36, seed: int = 0) -> Path:
    """Draws samples of the prior, with what the other modalities say of the same z in words.

    Returns:
        ``RUN/figures/prior.png``.

    Raises:
        GenerationError: If no modality has pictures, or something must be given.
    """
    group = groups.from_prior(run, count, seed=seed)
    if not group.rows[0].pictures:
        raise GenerationError(f"{run.path}: no modality can be drawn as a picture")
    (strip,) = _strips(group)
    columns = max(1, min(9, 1000 // strip.pictures.shape[2]))
    parts = [slice(start, start + columns) for start in range(0, count, columns)]
    strips = [Strip("", strip.pictures[part], strip.words[part]) for part in parts]
    return _page(run, "prior", "from the prior", group.note, [Block(strips)])


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
        _check_drawn(run, target)
        T = iterations if run.model.directions is None else None
        group = groups.from_choices(run, source, [target], samples=samples, iterations=T, seed=seed)
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
        The files, under ``RUN/figures``.
    """
    can = run.model.generates
    shown = [n for n in run.model.targets if renderable(run.modalities[n])]
    # More choices first: they go from left to right.
    chosen = [n for n, m in run.modalities.items() if m.choices()]
    chosen.sort(key=lambda n: -len(run.modalities[n].choices()))
    paths = [from_choices(run, s, t) for t in shown for s in chosen if s != t and can([s], [t])]
    pairs = [(a, b) for a in chosen for b in chosen if chosen.index(a) < chosen.index(b)]
    pages = [(*pair, t) for t in shown for pair in pairs if t not in pair and can(pair, [t])]
    paths += [from_pairs(run, *page) for page in pages]
    paths += [reconstructions(run, observations, target) for target in shown]
    if shown and can([], shown):
        paths.append(from_prior(run))
    if metrics:
        path = run.path / "figures" / "losses.png"
        paths.append(loss_curves(metrics, path, _title(run, "training"), terms(run.model)))
    return paths


def _check_drawn(run: Run, name: str) -> None:
    modality = run.modalities.get(name)
    if modality is not None and not renderable(modality):
        raise GenerationError(
            f"{name}: kind {modality.kind!r} is told in words, not drawn as a picture"
        )


def _title(run: Run, what: str) -> str:
    return f"{run.experiment.name}, {run.model.kind}: {what}"


def _page(run: Run, file: str, title: str, note: str, blocks: Sequence[Block]) -> Path:
    return draw(run.path / "figures" / f"{file}.png", _title(run, title), note, blocks)


def _strips(group: Group) -> list[Strip]:
    """Magnifies each row's pictures, those of several modalities side by side, above its words."""
    return [
        Strip(
            row.caption,
            beside([magnified(pictures) for pictures in row.pictures.values()]),
            ["\n".join(words) for words in zip(*row.words.values(), strict=True)],
        )
        for row in group.rows
    ]
