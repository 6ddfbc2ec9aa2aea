"""Pictures of a trained run, as PNG files: what it generates, reconstructs, and how it learned."""

from mmgen.figures.choices import compare, from_choices, from_pairs
from mmgen.figures.losses import loss_curves
from mmgen.figures.pictures import draw_all, from_prior, reconstructions
from mmgen.figures.sheet import save_grid
from mmgen.figures.tools import check_grid, renderable

__all__ = [
    "check_grid",
    "compare",
    "draw_all",
    "from_choices",
    "from_pairs",
    "from_prior",
    "loss_curves",
    "reconstructions",
    "renderable",
    "save_grid",
]
