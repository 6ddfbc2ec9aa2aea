"""Figures of matplotlib: written whole or not at all, with words as they are."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.files.atomic import deliver

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def plain_text() -> Iterator[None]:
    """Lets figures that are made within show words as they are: a dollar is a dollar.

    matplotlib reads the file ``matplotlibrc`` of the current folder. One from elsewhere that says
    ``text.usetex: True`` would start TeX, a program, on the names of classes. Use it as a
    decorator of what makes and saves a figure.
    """
    import matplotlib as mpl

    with mpl.rc_context({"text.usetex": False, "text.parse_math": False}):
        yield


def save(figure: "Figure", path: Path) -> Path:
    """Writes a figure as a PNG, whole or not at all, and returns its path; its folder is made."""
    content = BytesIO()
    with warnings.catch_warnings():
        # Letters that the font does not have are drawn as boxes: no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(content, format="png", dpi="figure")
    deliver(path, content.getvalue())
    return path
