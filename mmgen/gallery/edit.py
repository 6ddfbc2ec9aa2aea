"""A photograph and what an edit makes of it, on a page."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mmgen.drawing import plain_text, save
from mmgen.editing import Edit
from mmgen.formatting import number
from mmgen.gallery.sheet import GREY, INK, save_pixels
from mmgen.modality import Modality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SIDE = 2.3
"""Of a picture on the page, in inches."""

BARS = 45
"""More bars than this are not drawn, but those of what was changed and the highest."""

PIXELS = 480
"""The most on the longer side of a picture on the page; of the rest, every second or third."""

STILL = 0.01
"""Of the way from off to on: what moved less did not."""

BEFORE, AFTER = "#b8bec6", "#d0602e"


@plain_text()
def draw_edit(
    edit: Edit, modalities: dict[str, Modality], path: Path, title: str, steps: Sequence[str]
) -> Path:
    """Draws the photograph, its reconstruction, each change, and bars of what was inferred.

    Args:
        edit: What was changed.
        modalities: Of the run, by name.
        path: The PNG; its folder is made.
        title: In bold.
        steps: What stands above each of the n changes.

    Returns:
        ``path``.
    """
    from matplotlib.figure import Figure

    columns = [_originals(edit), _reconstruction(edit)]
    columns += [_step(edit, number_of, step) for number_of, step in enumerate(steps)]
    if edit.seen.shape == edit.photograph.shape:  # the part is the whole
        columns = [[column[0] or column[1], column[2]] for column in columns]
    bars = _bars(edit, modalities)
    wide = SIDE * len(columns)
    high = max((SIDE + 0.3) * len(columns[0]), 0.17 * len(bars) + 0.6)
    longest = max((len(name) for name, *_ in bars), default=0)
    names = 0.15 + 0.065 * min(longest, 40)
    beside = names + 2.1 if bars else 0.0
    figure = Figure((wide + beside, high + 0.8), dpi=110, facecolor="white")
    figure.suptitle(title, x=0.015, ha="left", fontsize=13, fontweight="bold", color=INK)
    parts = figure.add_gridspec(1, 2 if bars else 1, width_ratios=[wide, beside][: 1 + bool(bars)])
    pictures = figure.add_subfigure(parts[0])
    _pictures(pictures, columns)
    if bars:
        _draw(figure.add_subfigure(parts[1]), bars, names / beside, high + 0.8)
    return save(figure, path)


Column = Sequence[tuple[Tensor, str] | None]
"""Pictures from top to bottom, each with what stands above it; or nothing in its place."""


def _originals(edit: Edit) -> Column:
    return [
        (edit.photograph, "photograph"),
        (edit.seen, "what the model sees"),
        (edit.before, "from what is inferred"),
    ]


def _reconstruction(edit: Edit) -> Column:
    return [None, (edit.reconstruction, "reconstruction"), None]


def _step(edit: Edit, number_of: int, step: str) -> Column:
    whole, (left, top, right, bottom) = edit.edited(number_of), edit.part
    return [
        (whole, step),
        (whole[:, top:bottom, left:right], ""),
        (edit.after[number_of], "from what is changed"),
    ]


def _pictures(figure: "SubFigure", columns: Sequence[Column]) -> None:
    axes = figure.subplots(len(columns[0]), len(columns), squeeze=False)
    figure.subplots_adjust(0.02, 0.03, 0.98, 0.88, wspace=0.06, hspace=0.16)
    for places, column in zip(axes.T, columns, strict=True):
        for row, (place, shown) in enumerate(zip(places, column, strict=True)):
            place.set_anchor("N")
            place.set_xticks([])
            place.set_yticks([])
            place.spines[:].set_color("#cccccc")
            place.set_visible(shown is not None)
            if shown is not None:
                place.imshow(_shown(shown[0]), interpolation="nearest")
                place.set_title(shown[1], fontsize=9, color=GREY if row else INK)


Bar = tuple[str, float, tuple[float, ...], float, float, bool]
"""A name, what was inferred and, if it was changed, to what, from least to most; off and on; and
whether it was asked for."""


def _bars(edit: Edit, modalities: dict[str, Modality]) -> list[Bar]:
    """Returns the bars, in order; of very many, those that were changed and the highest."""
    bars: list[Bar] = []
    for name, x in edit.inferred.items():
        changed = edit.changed[name].flatten(1)
        for at, (own, (off, on)) in enumerate(modalities[name].switches().items()):
            before, after = float(x.flatten()[at]), changed[:, at].tolist()
            asked = at in edit.asked[name]
            still = max(abs(value - before) for value in after) < STILL * abs(on - off)
            new = () if still else tuple(sorted({*after}))
            bars.append((own, before, new, off, on, asked))
    if len(bars) > BARS:
        highest = sorted(bars, key=lambda b: (not b[5], -abs(b[1] - b[3]) / (b[4] - b[3])))
        kept = {bar[0] for bar in highest[:BARS]}
        bars = [bar for bar in bars if bar[0] in kept]
    return bars


def _draw(figure: "SubFigure", bars: Sequence[Bar], left: float, height: float) -> None:
    axes: Axes = figure.subplots()
    each = min(0.3, (height - 1.1) / len(bars))  # in inches
    figure.subplots_adjust(left, 1 - (0.85 + each * len(bars)) / height, 0.97, 1 - 0.85 / height)
    low = min(min(off, before, *new) for _, before, new, off, *_ in bars)
    high = max(max(on, before, *new) for _, before, new, _, on, _ in bars)
    room = (0.28 if any(len(new) > 1 for _, _, new, *_ in bars) else 0.16) * (high - low)
    for at, (_, before, new, off, *_) in enumerate(bars):
        axes.barh(at, before - off, 0.75, off, color=BEFORE)
        if new:
            start = new[0] if len(new) > 1 else off
            axes.barh(at, new[-1] - start, 0.36, start, color=AFTER)
        shown = dict.fromkeys((new[0], new[-1]) if new else (before,))
        axes.annotate(
            " … ".join(number(value, 2) for value in shown),
            (max(off, before, *new), at),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=7,
            va="center",
            color=AFTER if new else GREY,
        )
    axes.tick_params(labelsize=7, colors=GREY, length=0)
    axes.set_yticks(range(len(bars)), [name for name, *_ in bars], fontsize=7)
    for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_color(AFTER if bar[5] else INK)
        label.set_fontweight("bold" if bar[5] else "normal")
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(low, high + room)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines.bottom.set_color("#cccccc")
    told = "inferred, and changed" if any(bar[2] for bar in bars) else "inferred"
    axes.set_title(told, fontsize=9, color=GREY, loc="left", pad=4)


def _shown(picture: Tensor) -> NDArray[np.uint8]:
    """Returns a picture as ``(H, W, 3)`` bytes, of which very many pixels are averaged."""
    whole = picture.float() / 255 if not picture.is_floating_point() else picture
    every = math.ceil(max(whole.shape[1:]) / PIXELS)
    if every > 1:
        import torch.nn.functional as F

        whole = F.avg_pool2d(whole, every, ceil_mode=True)
    shown: NDArray[np.uint8] = (255 * whole).round().byte().permute(1, 2, 0).numpy()
    return shown


def save_photograph(picture: Tensor, path: Path) -> Path:
    """Writes ``(3, H, W)`` uint8 as a PNG of just these pixels; its folder is made."""
    return save_pixels(picture.permute(1, 2, 0).numpy(), path)
