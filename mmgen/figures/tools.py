"""What all pages say and draw alike, through ``render`` and ``describe`` alone."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmgen.errors import GenerationError
from mmgen.figures.sheet import Pictures, magnified
from mmgen.generation import ITERATIONS, Run
from mmgen.modality import Modality


def renderable(modality: Modality) -> bool:
    """Tells whether a modality is drawn as a picture, not only told in words."""
    return modality.render(torch.zeros(1, *modality.shape)) is not None


def drawn(run: Run, name: str, x: Tensor) -> Pictures:
    """Renders ``(n, *shape)`` of a modality, or raises ``GenerationError``."""
    pictures = run.modalities[name].render(x)
    if pictures is None:
        raise GenerationError(
            f"{name}: kind {run.modalities[name].kind!r} is told in words, not drawn as a picture"
        )
    return magnified(pictures)


def told(run: Run, x: Mapping[str, Tensor]) -> list[str]:
    """Describes each row of the modalities that are not drawn, a line a modality."""
    rows = [m.describe(x[n]) for n, m in run.modalities.items() if not renderable(m)]
    return ["\n".join(row) for row in zip(*rows, strict=True)]


def way_of(run: Run, given: Sequence[str], iterations: int | None) -> str:
    """Says how z is inferred: by an encoder of its own, or by iterative sampling."""
    if iterations is None and run.model.encodes(given):
        return f"q(z|{', '.join(given)})"
    return f"iterative sampling (T={iterations or ITERATIONS})"


def title_of(run: Run) -> str:
    """Returns how pages of a run begin: ``"mnist, jmvae-kl"``."""
    return f"{run.experiment.name}, {run.experiment.model.kind}"
