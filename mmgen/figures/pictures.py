"""What a trained run generates and reconstructs, as pages of pictures.

Every kind of modality is drawn through ``render``, ``describe`` and ``choices`` alone.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmgen.errors import GenerationError
from mmgen.figures.losses import loss_curves
from mmgen.figures.sheet import Block, Pictures, Strip, beside, draw, magnified
from mmgen.generation import ITERATIONS, Run, sample_latent
from mmgen.modality import Modality
from mmgen.training import random_state

MOST = 120
"""More choices than this are not drawn: nobody would look at them."""


def from_choices(
    run: Run,
    source: str,
    target: str,
    *,
    samples: int = 8,
    iterations: int | None = None,
    seed: int = 0,
) -> Path:
    """Draws pictures generated from each choice of one modality alone, a row a choice.

    Args:
        run: The trained run.
        source: A modality with ``choices()``; nothing else is given.
        target: A modality that can be rendered.
        samples: Samples of z a row, after a first picture at the posterior's mean.
        iterations: See :func:`mmgen.generation.sample_latent`.
        seed: Fixes the noise.

    Returns:
        ``RUN/figures/TARGET_from_SOURCE.png``.

    Raises:
        GenerationError: If the source has no choices or the target no pictures.
    """
    strips = _strips(run, source, target, samples, iterations, seed)
    # As many columns of rows as make the page about as wide as high.
    columns = max(1, round(math.sqrt(1.2 * len(strips) / (samples + 2))))
    rows = math.ceil(len(strips) / columns)
    blocks = [
        Block(strips[i : i + rows], headings=("mean", "samples"))
        for i in range(0, len(strips), rows)
    ]
    note = (
        f"Given: {source} alone, the word at the left. z by {_way(run, [source], iterations)}: "
        f"first at its mean, then {samples} samples. Each picture is the mean of p({target}|z)."
    )
    if len(run.modalities[source].choices()) > MOST:
        note += f" The first {MOST} of {len(run.modalities[source].choices())} choices."
    path = run.path / "figures" / f"{target}_from_{source}.png"
    return draw(path, f"{_title(run)}: {target} from {source}", note, blocks)


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
    """Draws the same choices for several models side by side, a block a model.

    Args:
        runs: The trained runs, by the name to show.
        source: A modality with ``choices()``, of all runs; nothing else is given.
        target: A modality that can be rendered, of all runs.
        path: The PNG to write.
        samples: Samples of z a row, after a first picture at the posterior's mean.
        iterations: See :func:`mmgen.generation.sample_latent`.
        seed: Fixes the noise, the same for each model.

    Returns:
        ``path``.

    Raises:
        GenerationError: If the source has no choices or the target no pictures.
    """
    blocks: list[Block] = []
    for name, run in runs.items():
        strips = _strips(run, source, target, samples, iterations, seed)
        if blocks:  # the first block names the rows of all
            strips = [Strip("", strip.pictures) for strip in strips]
        way = _way(run, [source], iterations)
        blocks.append(Block(strips, name, way, headings=("mean", "samples")))
    note = (
        f"Given: {source} alone, the word at the left. z first at its mean, then {samples} "
        f"samples. Each picture is the mean of p({target}|z)."
    )
    return draw(path, f"{target} from {source} alone", note, blocks)


@torch.no_grad()
def reconstructions(
    run: Run,
    observations: Mapping[str, Tensor],
    target: str,
    *,
    count: int = 10,
    iterations: int | None = None,
    seed: int = 0,
) -> Path:
    """Draws observations of a modality above its reconstructions, given all, itself, the others.

    Args:
        run: The trained run.
        observations: Held-out ``(B, *shape)`` of every modality; the first ``count`` are drawn.
        target: A modality that can be rendered.
        count: How many observations.
        iterations: See :func:`mmgen.generation.sample_latent`.
        seed: Fixes the noise.

    Returns:
        ``RUN/figures/TARGET_reconstructed.png``.

    Raises:
        GenerationError: If the target has no pictures.
    """
    x = {n: observations[n][:count].to(run.device) for n in run.modalities}
    others = [n for n in run.modalities if n != target]
    strips = [Strip("observed", _pictures(run, target, x[target]), _words(run, x))]
    ways = []
    rest = others[0] if len(others) == 1 else "the others"
    rows = [("all", [*run.modalities]), (target, [target]), (rest, others)]
    with random_state(run.device, seed):
        for source, names in rows:
            given = {n: x[n] for n in names}
            z = sample_latent(run.model, given, 1, mean=True, iterations=iterations)[0]
            means = run.model.decode(z, [target])[target].mean
            strips.append(Strip(f"given {source}", _pictures(run, target, means)))
            ways.append(f"Given {source}: {_way(run, names, iterations)}")
    note = f"Means of p({target}|z) at the mean of z. {'. '.join(ways)}."
    path = run.path / "figures" / f"{target}_reconstructed.png"
    return draw(path, f"{_title(run)}: {target} reconstructed", note, [Block(strips)])


def from_prior(run: Run, *, count: int = 36, seed: int = 0) -> Path:
    """Draws samples of the prior, with what the other modalities say of the same z in words.

    Args:
        run: The trained run, with a modality that can be rendered.
        count: How many samples.
        seed: Fixes the noise.

    Returns:
        ``RUN/figures/prior.png``.

    Raises:
        GenerationError: If no modality has pictures.
    """
    with random_state(run.device, seed):
        means = {n: p.mean for n, p in run.generate(samples=count).items()}
    shown = [n for n, m in run.modalities.items() if renderable(m)]
    if not shown:
        raise GenerationError(f"{run.path}: no modality can be drawn as a picture")
    pictures = beside([_pictures(run, n, means[n]) for n in shown])
    told = [n for n in run.modalities if n not in shown]
    words = _words(run, means)
    columns = max(1, min(9, 1000 // pictures.shape[2]))
    strips = [
        Strip("", pictures[i : i + columns], words[i : i + columns])
        for i in range(0, count, columns)
    ]
    note = f"Each picture: the mean of p({', '.join(shown)}|z), z drawn from the prior."
    if told:
        note += f" Below: the mean of p({', '.join(told)}|z) in words, of the same z."
    path = run.path / "figures" / "prior.png"
    return draw(path, f"{_title(run)}: from the prior", note, [Block(strips)])


def draw_all(
    run: Run, observations: Mapping[str, Tensor], metrics: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """Draws every figure that applies to a run.

    Args:
        run: The trained run.
        observations: Some held-out ``(B, *shape)`` of every modality.
        metrics: See :func:`mmgen.checkpoint.read_metrics`; may be empty.

    Returns:
        The files, under ``RUN/figures``.
    """
    shown = [n for n, m in run.modalities.items() if renderable(m)]
    chosen = [n for n, m in run.modalities.items() if m.choices()]
    paths = [from_choices(run, s, t) for t in shown for s in chosen if s != t]
    paths += [reconstructions(run, observations, target) for target in shown]
    if shown:
        paths.append(from_prior(run))
    if metrics:
        path = run.path / "figures" / "losses.png"
        paths.append(loss_curves(metrics, path, f"{_title(run)}: training"))
    return paths


def renderable(modality: Modality) -> bool:
    """Tells whether a modality is drawn as a picture, not only told in words."""
    return modality.render(torch.zeros(1, *modality.shape)) is not None


def _strips(
    run: Run, source: str, target: str, samples: int, iterations: int | None, seed: int
) -> list[Strip]:
    """Generates a row of pictures for each choice: at the posterior's mean, then samples."""
    run.targets([source], [target])  # refuses unknown names
    choices = run.modalities[source].choices()[:MOST]
    if not choices:
        raise GenerationError(f"{source}: has no choices to generate {target} from")
    strips = []
    with random_state(run.device, seed):
        for choice in choices:
            means = [
                run.generate({source: choice}, [target], count, mean=mean, iterations=iterations)[
                    target
                ].mean
                for count, mean in ((1, True), (samples, False))
            ]
            strips.append(Strip(choice, _pictures(run, target, torch.cat(means))))
    return strips


def _pictures(run: Run, name: str, x: Tensor) -> Pictures:
    drawn = run.modalities[name].render(x)
    if drawn is None:
        raise GenerationError(
            f"{name}: kind {run.modalities[name].kind!r} is told in words, not drawn as a picture"
        )
    return magnified(drawn)


def _words(run: Run, x: Mapping[str, Tensor]) -> list[str]:
    """Describes each row of the modalities that are not drawn, a line a modality."""
    told = [m.describe(x[n]) for n, m in run.modalities.items() if not renderable(m)]
    return ["\n".join(row) for row in zip(*told, strict=True)]


def _way(run: Run, given: Sequence[str], iterations: int | None) -> str:
    """Says how z is inferred: by an encoder of its own, or by iterative sampling."""
    if iterations is None and run.model.encodes(given):
        return f"q(z|{', '.join(given)})"
    return f"iterative sampling (T={iterations or ITERATIONS})"


def _title(run: Run) -> str:
    return f"{run.experiment.name}, {run.experiment.model.kind}"
