"""What a trained run reconstructs and draws from the prior, and every page that applies to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmgen.batch import Batch
from mmgen.errors import GenerationError
from mmgen.figures.choices import from_choices, from_pairs
from mmgen.figures.losses import loss_curves
from mmgen.figures.sheet import Block, Strip, beside, draw
from mmgen.figures.tools import drawn, likelihood_of, renderable, title_of, told, way_of
from mmgen.inference.sample import sample_latent
from mmgen.run import Run
from mmgen.seeding import random_state


@torch.no_grad()
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

    Rows that the model cannot make are left out: one of one direction is given all that it has to
    do with, and what it generates from.

    Args:
        run: The trained run.
        observations: Held-out ``(B, *shape)`` of every modality; the first ``count`` are drawn.
        target: A modality that can be rendered.
        count: How many observations.
        iterations: See :func:`mmgen.run.sample_latent`.
        seed: Fixes the noise.

    Returns:
        ``RUN/figures/TARGET_reconstructed.png``.

    Raises:
        GenerationError: If the target has no pictures, or is not one that the model generates.
    """
    names = run.model.names
    if target not in run.model.targets:
        raise GenerationError(f"{run.path} generates {run.model.direction()}, not {target}")
    x = observations.select(names).slice(0, count)
    others = [n for n in names if n != target]
    strips = [Strip("observed", drawn(run, target, x[target]), told(run, x))]
    ways = []
    rest = others[0] if len(others) == 1 else "the others"
    rows = {"all": [*names], target: [target], rest: others}
    C = run.model.directions.given if run.model.directions else ()
    if C and {*C} != {*others}:
        rows[", ".join(C)] = [*C]
    with random_state(run.device, seed):
        for source, known in rows.items():
            if not run.model.generates(known, [target]):
                continue
            given = x.select(known)
            z = sample_latent(run.model, given, 1, temperature=0.0, iterations=iterations)[0]
            means = run.model.decode(z, given, [target])[target].mean
            strips.append(Strip(f"given {source}", drawn(run, target, means)))
            ways.append(f"Given {source}: {way_of(run.model, known, iterations)}")
    note = f"Means of {likelihood_of(run.model, [target])} at the mean of z. {'. '.join(ways)}."
    path = run.path / "figures" / f"{target}_reconstructed.png"
    return draw(path, f"{title_of(run)}: {target} reconstructed", note, [Block(strips)])


def from_prior(run: Run, *, count: int = 36, seed: int = 0) -> Path:
    """Draws samples of the prior, with what the other modalities say of the same z in words.

    Args:
        run: The trained run, with a modality that can be rendered.
        count: How many samples.
        seed: Fixes the noise.

    Returns:
        ``RUN/figures/prior.png``.

    Raises:
        GenerationError: If no modality has pictures, or something must be given.
    """
    with random_state(run.device, seed):
        means = {n: p.mean for n, p in run.generate(samples=count).items()}
    shown = [n for n, m in run.modalities.items() if renderable(m)]
    if not shown:
        raise GenerationError(f"{run.path}: no modality can be drawn as a picture")
    pictures = beside([drawn(run, n, means[n]) for n in shown])
    in_words = [n for n in run.modalities if n not in shown]
    words = told(run, means)
    columns = max(1, min(9, 1000 // pictures.shape[2]))
    strips = [
        Strip("", pictures[i : i + columns], words[i : i + columns])
        for i in range(0, count, columns)
    ]
    note = f"Each picture: the mean of p({', '.join(shown)} | z), z drawn from the prior."
    if in_words:
        note += f" Below: the mean of p({', '.join(in_words)} | z) in words, of the same z."
    path = run.path / "figures" / "prior.png"
    return draw(path, f"{title_of(run)}: from the prior", note, [Block(strips)])


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
        paths.append(loss_curves(metrics, path, f"{title_of(run)}: training"))
    return paths
