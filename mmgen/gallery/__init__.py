"""What a trained run shows: pictures as PNG files, and one HTML page about it."""

from mmgen.gallery.curves import loss_curves
from mmgen.gallery.groups import renderable
from mmgen.gallery.png import (
    compare,
    draw_all,
    from_choices,
    from_pairs,
    from_prior,
    reconstructions,
)
from mmgen.gallery.report import write_report
from mmgen.gallery.sheet import check_grid, save_grid

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
    "write_report",
]
