"""What a trained run generates from each choice of a modality, or of two."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.errors import GenerationError
from mmgen.figures.sheet import Block, Strip, draw
from mmgen.figures.tools import drawn, likelihood_of, title_of, way_of
from mmgen.inference.sample import sample_latent
from mmgen.run import Run
from mmgen.seeding import random_state

WIDEST = 18
"""Columns of a page that shows two modalities' choices; more go below."""

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
        iterations: See :func:`mmgen.run.sample_latent`.
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
        f"Given: {source} alone, the word at the left. First {way_of(run.model, [source], iterations)} "
        f"at its mean, then {samples} samples. Each picture is the mean of "
        f"{likelihood_of(run.model, [target])}."
    )
    if len(run.modalities[source].choices()) > MOST:
        note += f" The first {MOST} of {len(run.modalities[source].choices())} choices."
    path = run.path / "figures" / f"{target}_from_{source}.png"
    return draw(path, f"{title_of(run)}: {target} from {source}", note, blocks)


@torch.no_grad()
def from_pairs(run: Run, columns: str, rows: str, target: str, *, seed: int = 0) -> Path:
    """Draws pictures generated from two modalities together, a choice of each at a time.

    Args:
        run: The trained run.
        columns: A modality with ``choices()``, from left to right.
        rows: Another one, from top to bottom.
        target: A modality that can be rendered.
        seed: Fixes the noise of iterative sampling.

    Returns:
        ``RUN/figures/TARGET_from_COLUMNS+ROWS.png``, at the posterior's mean.

    Raises:
        GenerationError: If a name is wrong, or the target has no pictures.
    """
    run.targets([columns, rows], [target])  # refuses unknown names, impossible directions
    across = run.modalities[columns].choices()[:MOST]
    down = run.modalities[rows].choices()[: MOST // 6]
    given = Batch(
        {
            columns: _observed(run, columns, [c for _ in down for c in across]),
            rows: _observed(run, rows, [r for r in down for _ in across]),
        }
    )
    with random_state(run.device, seed):
        z = sample_latent(run.model, given, 1, temperature=0.0)[0]
        pictures = drawn(run, target, run.model.decode(z, given, [target])[target].mean)
    table = pictures.reshape(len(down), len(across), *pictures.shape[1:])
    strips = []
    for start in range(0, len(across), WIDEST):
        part = slice(start, start + WIDEST)
        for caption, row in zip(down, table, strict=True):
            words = across[part] if caption == down[-1] else ()
            strips.append(Strip(caption, row[part], words))
    note = (
        f"Given: {columns}, the word below, and {rows}, the word at the left; "
        f"{way_of(run.model, [columns, rows])}, at its mean. Each picture is the mean of "
        f"{likelihood_of(run.model, [target])}."
    )
    path = run.path / "figures" / f"{target}_from_{columns}+{rows}.png"
    return draw(path, f"{title_of(run)}: {target} from {columns} and {rows}", note, [Block(strips)])


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
        iterations: See :func:`mmgen.run.sample_latent`; not for models of one direction.
        seed: Fixes the noise, the same for each model.

    Returns:
        ``path``.

    Raises:
        GenerationError: If the source has no choices or the target no pictures.
    """
    blocks: list[Block] = []
    for name, run in runs.items():
        repeated = iterations if run.model.directions is None else None
        strips = _strips(run, source, target, samples, repeated, seed)
        if blocks:  # the first block names the rows of all
            strips = [Strip("", strip.pictures) for strip in strips]
        way = way_of(run.model, [source], repeated)
        blocks.append(Block(strips, name, way, headings=("mean", "samples")))
    note = (
        f"Given: {source} alone, the word at the left. z first at its mean, then {samples} "
        f"samples. Each picture is the mean of the distribution of {target} given z."
    )
    return draw(path, f"{target} from {source} alone", note, blocks)


def _strips(
    run: Run, source: str, target: str, samples: int, iterations: int | None, seed: int
) -> list[Strip]:
    """Generates a row of pictures for each choice: at the posterior's mean, then samples."""
    run.targets([source], [target])  # refuses unknown names, impossible directions
    choices = run.modalities[source].choices()[:MOST]
    if not choices:
        raise GenerationError(f"{source}: has no choices to generate {target} from")
    strips = []
    with random_state(run.device, seed):
        for choice in choices:
            means = [
                run.generate(
                    {source: choice},
                    [target],
                    count,
                    temperature=temperature,
                    iterations=iterations,
                )[target].mean
                for count, temperature in ((1, 0.0), (samples, 1.0))
            ]
            strips.append(Strip(choice, drawn(run, target, torch.cat(means))))
    return strips


def _observed(run: Run, name: str, cells: Sequence[str]) -> Tensor:
    modality = run.modalities[name]
    return modality.observe(torch.stack([modality.parse(cell) for cell in cells]).to(run.device))
