"""What a trained run shows: pictures as PNG files, and one HTML page about it."""

from mmgen.gallery.groups import renderable
from mmgen.gallery.png import compare, draw_all
from mmgen.gallery.report import write_report
from mmgen.gallery.sheet import check_grid, save_grid

__all__ = ["check_grid", "compare", "draw_all", "renderable", "save_grid", "write_report"]
