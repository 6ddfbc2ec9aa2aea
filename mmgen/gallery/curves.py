"""How a run learned: every term of the objective over the epochs, in nats, a small panel each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.brief import OneLine
from mmgen.drawing import plain_text, save
from mmgen.formatting import number
from mmgen.gallery.sheet import GREY, INK
from mmgen.objective import Term

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 24
"""More terms than this are not drawn; all are in ``metrics.jsonl``."""

SETTLED = 20
"""In runs this long, the first twentieth is left out of the scale: it falls from too high."""

COLOURS = {"train": "#d08a2e", "validation": "#2471a3"}

Metrics = Sequence[Mapping[str, Any]]
"""One dictionary per epoch, see :class:`mmgen.training.loop.Epoch`."""


@dataclass(frozen=True, repr=False)
class Panel(OneLine):
    """One term over the epochs.

    Attributes:
        title: What it is.
        unit: Of its values, in words.
        lines: Epochs and values by split, as far as there are finite ones.
        epochs: The first and the last.
        scale: The least and the greatest value that is drawn.
        across: Ticks of the epochs.
        up: Ticks of the values.
        warm_up: The last epoch that β < 1 reaches into; ``None`` without a warm-up.
    """

    title: str
    unit: str
    lines: dict[str, list[tuple[int, float]]]
    epochs: tuple[int, int]
    scale: tuple[float, float]
    across: list[int]
    up: list[float]
    warm_up: int | None

    @property
    def summary(self) -> str:
        """The panel in one sentence, for who cannot see it."""
        ends = ", ".join(f"{split} {number(line[-1][1])}" for split, line in self.lines.items())
        return f"{self.title} over the epochs{self.unit}; at the end {ends}"

    def place(self, epoch: float, value: float) -> tuple[float, float]:
        """Returns where a point lies, from (0, 0) at the top left to (1, 1) at the bottom right.

        What is beyond the scale is at its end.
        """
        (first, last), (low, high) = self.epochs, self.scale
        across = (epoch - first) / (last - first) if last > first else 0.5
        return across, 1 - min(max((value - low) / (high - low), 0), 1)


@dataclass(frozen=True, repr=False)
class Curves(OneLine):
    """All panels, the loss first.

    Attributes:
        panels: One per term.
        left_out: How many terms are not drawn.
        validated: Whether there is a validation split.
    """

    panels: list[Panel]
    left_out: int
    validated: bool

    @property
    def warms_up(self) -> bool:
        """Whether there is a warm-up."""
        return any(panel.warm_up is not None for panel in self.panels)


def title(name: str, terms: Mapping[str, Term]) -> str:
    """Returns what a term is, in the model's own words; its name if the model has none such."""
    return "Loss" if name == "loss" else (terms[name].title if name in terms else "") or name


def curves(metrics: Metrics, terms: Mapping[str, Term]) -> Curves | None:
    """Lays out every term, or returns ``None`` if no epoch was done.

    Args:
        metrics: One dictionary per epoch.
        terms: What the terms are, see :func:`mmgen.inference.terms.terms`.
    """
    if not metrics:
        return None
    names = sorted(metrics[-1]["train"], key=lambda name: name != "loss")
    warms_up = any(t.warmed_up for t in terms.values()) or not terms  # else β changes nothing
    return Curves(
        panels=[_panel(metrics, name, terms, warms_up) for name in names[:MOST]],
        left_out=len(names[MOST:]),
        validated=any(m["validation"] for m in metrics),
    )


def _panel(metrics: Metrics, name: str, terms: Mapping[str, Term], warms_up: bool) -> Panel:
    from matplotlib.ticker import MaxNLocator

    first, last = metrics[0]["epoch"], metrics[-1]["epoch"]
    lines = {
        split: [
            (m["epoch"], m[split][name])
            for m in metrics
            if math.isfinite(m[split].get(name, math.nan))
        ]
        for split in COLOURS
    }
    skipped = len(metrics) // 20 if len(metrics) >= SETTLED else 0
    shown = [v for line in lines.values() for epoch, v in line if epoch >= first + skipped]
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - margin, high + margin
    warming = [m["epoch"] for m in metrics if m["beta"] < 1 and warms_up]
    epochs = [int(t) for t in MaxNLocator(5, integer=True).tick_values(first, last)]
    heights = [float(t) for t in MaxNLocator(4).tick_values(low, high)]
    return Panel(
        title=title(name, terms),
        unit="" if name in terms and terms[name].unit == "share" else " in nats",
        lines={split: line for split, line in lines.items() if line},
        epochs=(first, last),
        scale=(low, high),
        across=[t for t in epochs if first <= t <= last],
        up=[t for t in heights if low <= t <= high],
        warm_up=min(warming[-1] + 1, last) if warming else None,
    )


@plain_text()
def loss_curves(
    metrics: Metrics, path: Path, title: str = "Training", terms: Mapping[str, Term] | None = None
) -> Path:
    """Draws each term over the epochs as a PNG; the warm-up is shaded.

    Args:
        metrics: One dictionary per epoch; at least one.
        path: The PNG to write; its folder is made.
        title: Above the panels.
        terms: What the terms are; they are called by their names if left out.

    Returns:
        ``path``.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    drawn = curves(metrics, terms or {})
    assert drawn is not None
    rows = math.ceil(len(drawn.panels) / 4)
    columns = math.ceil(len(drawn.panels) / rows)
    size = (max(3.4 * columns, 7.5), 2.5 * rows + 1)
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1)
    figure = Figure(size, dpi=110, facecolor="white", layout=layout)
    figure.suptitle(title, x=0.015, ha="left", fontsize=13, fontweight="bold", color=INK)
    note = "Means over observations in nats"
    note += ", but for shares" if any(not panel.unit for panel in drawn.panels) else ""
    note += "; validation always with β = 1; shaded: warm-up, β < 1" if drawn.warms_up else ""
    note += f"; {drawn.left_out} more terms are in metrics.jsonl" if drawn.left_out else ""
    figure.supxlabel(f"{note}.", x=0.015, ha="left", fontsize=9, color=GREY)
    places = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axes, panel in zip(places, drawn.panels, strict=False):
        _draw(axes, panel)
    for axes in places[len(drawn.panels) :]:
        axes.set_visible(False)
    return save(figure, path)


def _draw(axes: "Axes", panel: Panel) -> None:
    (first, last), names = panel.epochs, sorted(panel.lines, key=lambda s: panel.lines[s][-1][1])
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlabel("epoch", fontsize=8, color=GREY)
    axes.tick_params(labelsize=8, colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color("#cccccc")
    axes.set_xlim(first - 0.5, last + 0.5 + 0.45 * max(last - first, 1))  # room for the names
    axes.spines.bottom.set_bounds(first, last)
    axes.set_xticks(panel.across)
    axes.set_ylim(*panel.scale)
    if panel.warm_up is not None:
        axes.axvspan(first - 0.5, panel.warm_up, color="#f2f0ea", linewidth=0)
    for number_of, split in enumerate(names):
        line = panel.lines[split]
        marker = "." if len(line) < SETTLED else None
        axes.plot(*zip(*line, strict=True), color=COLOURS[split], linewidth=1.5, marker=marker)
        axes.annotate(
            f"{split} {number(line[-1][1])}",
            line[-1],
            xytext=(5, 10 * (number_of - (len(names) - 1) / 2)),
            textcoords="offset points",
            fontsize=8,
            color=COLOURS[split],
            va="center",
        )
