"""How a run learned: every term of the objective over the epochs, in nats."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.drawing import plain_text, save
from mmgen.figures.sheet import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 24
"""More terms than this are not drawn; all are in ``metrics.jsonl``."""
COLOURS = {"train": "#d08a2e", "validation": "#2471a3"}


@plain_text()
def loss_curves(metrics: Sequence[Mapping[str, Any]], path: Path, title: str = "Training") -> Path:
    """Draws each term over the epochs, training and validation, a small panel a term.

    The warm-up, the epochs that end with β < 1, is shaded.

    Args:
        metrics: One dictionary an epoch, see :class:`mmgen.training.loop.Epoch`; at least one.
        path: The PNG to write; its folder is made.
        title: Above the panels.

    Returns:
        ``path``.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    terms = sorted(metrics[-1]["train"], key=lambda term: term != "loss")  # loss first
    left_out, terms = len(terms[MOST:]), terms[:MOST]
    rows = math.ceil(len(terms) / 4)
    columns = math.ceil(len(terms) / rows)
    size = (max(3.4 * columns, 7.5), 2.5 * rows + 1)
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1)
    figure = Figure(size, dpi=110, facecolor="white", layout=layout)
    figure.suptitle(title, x=0.015, ha="left", fontsize=13, fontweight="bold", color=INK)
    note = "Means over observations in nats; validation always with β = 1"
    note += "; shaded: warm-up, β < 1" if metrics[0]["beta"] < 1 else ""
    note += f"; {left_out} more terms are in metrics.jsonl" if left_out else ""
    figure.supxlabel(f"{note}.", x=0.015, ha="left", fontsize=9, color=GREY)
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    for panel, term in zip(panels, terms, strict=False):
        _panel(panel, metrics, term)
    for number, panel in enumerate(panels):
        panel.set_visible(number < len(terms))
    return save(figure, path)


def _panel(axes: "Axes", metrics: Sequence[Mapping[str, Any]], term: str) -> None:
    from matplotlib.ticker import MaxNLocator

    first, last = metrics[0]["epoch"], metrics[-1]["epoch"]
    axes.set_title(term, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlabel("epoch", fontsize=8, color=GREY)
    axes.tick_params(labelsize=8, colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color("#cccccc")
    axes.set_xlim(first - 0.5, last + 0.5 + 0.45 * max(last - first, 1))  # room for the names
    axes.spines.bottom.set_bounds(first, last)
    ticks = MaxNLocator(5, integer=True).tick_values(first, last)
    axes.set_xticks([tick for tick in ticks if first <= tick <= last])
    axes.margins(y=0.12)
    if warming := [m["epoch"] for m in metrics if m["beta"] < 1]:
        axes.axvspan(first - 0.5, min(warming[-1] + 1, last), color="#f2f0ea", linewidth=0)
    ends = []
    settled = []
    for split, colour in COLOURS.items():
        line = [(m["epoch"], m[split][term]) for m in metrics if term in m[split]]
        line = [(epoch, value) for epoch, value in line if math.isfinite(value)]
        if line:
            marker = "." if len(line) < 20 else None
            axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.5, marker=marker)
            ends.append((line[-1], split))
            settled += [value for _, value in line[len(line) // 20 :]]
    # The first epochs of a long run fall from so high that they would hide all others.
    if len(metrics) >= 20 and settled:
        low, high = min(settled), max(settled)
        bottom, top = axes.get_ylim()
        if top - bottom > 2 * (high - low) > 0:
            axes.set_ylim(low - 0.12 * (high - low), high + 0.12 * (high - low))
    ends.sort(key=lambda item: item[0][1])
    for number, (end, split) in enumerate(ends):
        axes.annotate(
            f"{split} {end[1]:.4g}".replace("-", "−"),
            end,
            xytext=(5, 10 * (number - (len(ends) - 1) / 2)),
            textcoords="offset points",
            fontsize=8,
            color=COLOURS[split],
            va="center",
        )
