"""What all pages say and draw alike, through ``render`` and ``describe`` alone."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmgen.errors import GenerationError
from mmgen.figures.sheet import Pictures, grid_size, magnified
from mmgen.inference.iterative import ITERATIONS
from mmgen.inference.sample import inferred
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.run import Run


def renderable(modality: Modality) -> bool:
    """Tells whether a modality is drawn as a picture, not only told in words."""
    return modality.render(torch.zeros(1, *modality.shape)) is not None


MOST_PIXELS = 50_000_000
"""Of a grid: drawing it takes up to 40 bytes each."""


def check_grid(modality: Modality, count: int) -> None:
    """Checks that a grid of so many pictures is small enough to be drawn and looked at.

    Raises:
        GenerationError: If not; says how large it would be.
    """
    picture = modality.render(torch.zeros(1, *modality.shape))
    assert picture is not None
    _, h, w, _ = magnified(picture).shape
    height, width, _ = grid_size(count, h, w)
    if height * width > MOST_PIXELS:
        raise GenerationError(
            f"--out: a grid of {count:,} pictures would have {width:,} × {height:,} pixels; "
            f"{MOST_PIXELS:,} are the most. Ask for about "
            f"{MOST_PIXELS * count // (height * width):,} samples"
        )


def drawn(run: Run, name: str, x: Tensor) -> Pictures:
    """Renders ``(n, *shape)`` of a modality, or raises ``GenerationError``."""
    pictures = run.modalities[name].render(x)
    if pictures is None:
        raise GenerationError(
            f"{name}: kind {run.modalities[name].kind!r} is told in words, not drawn as a picture"
        )
    return magnified(pictures)


def told(run: Run, x: Mapping[str, Tensor]) -> list[str]:
    """Describes each row of those modalities that are not drawn, a line a modality."""
    rows = [
        run.modalities[n].describe(v) for n, v in x.items() if not renderable(run.modalities[n])
    ]
    return ["\n".join(row) for row in zip(*rows, strict=True)]


def way_of(model: Model, given: Sequence[str], iterations: int | None = None) -> str:
    """Says how z is found: ``"z from q(z | label)"``, or by iterative sampling."""
    q = inferred(model, given) if iterations is None or not given else None
    if q is not None:
        return f"z from {q.symbol}"
    return f"z by iterative sampling, T = {iterations or ITERATIONS}"


def likelihood_of(model: Model, targets: Sequence[str]) -> str:
    """Writes what decoders return: ``"p(image | z)"``, of a CVAE ``"p(image | z, label)"``."""
    return f"p({', '.join(targets)} | {', '.join(['z', *model.decoder_given])})"


def title_of(run: Run) -> str:
    """Returns how pages of a run begin: ``"mnist, jmvae-kl"``."""
    return f"{run.experiment.name}, {run.experiment.model.kind}"
