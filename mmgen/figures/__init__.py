"""Pictures of a trained run, as PNG files: what it generates, reconstructs, and how it learned."""

from mmgen.figures.losses import loss_curves
from mmgen.figures.pictures import (
    compare,
    draw_all,
    from_choices,
    from_prior,
    reconstructions,
    renderable,
)
from mmgen.figures.sheet import save_grid

__all__ = [
    "compare",
    "draw_all",
    "from_choices",
    "from_prior",
    "loss_curves",
    "reconstructions",
    "renderable",
    "save_grid",
]
