"""How a run learned: each term over the epochs, as the coordinates of small drawings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmgen.brief import OneLine
from mmgen.formatting import number

MOST = 24
"""More terms than this are not drawn; all are in ``metrics.jsonl``."""

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 12, 26
SETTLED = 20
"""In runs this long, the first twentieth is left out of the scale: it falls from too high."""


@dataclass(frozen=True, repr=False)
class Line(OneLine):
    """One line of a panel.

    Attributes:
        split: ``train`` or ``validation``.
        points: ``x,y`` of each epoch, as SVG reads them.
        dots: Coordinates of the epochs if they are few, else of the last one.
        last: Its last value, in words.
    """

    split: str
    points: str
    dots: list[tuple[float, float]]
    last: str


@dataclass(frozen=True, repr=False)
class Panel(OneLine):
    """One term over the epochs.

    Attributes:
        term: As in ``metrics.jsonl``.
        title: What it is.
        lines: Training and validation, as far as there are values.
        across: Ticks of the epochs: coordinate and word.
        up: Ticks of the values in nats: coordinate and word.
        warm_up: Where the shading starts and how wide it is; ``None`` without a warm-up.
    """

    term: str
    title: str
    lines: list[Line]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    warm_up: tuple[float, float] | None

    @property
    def summary(self) -> str:
        """The panel in one sentence, for who cannot see it."""
        ends = ", ".join(f"{line.split} {line.last}" for line in self.lines)
        return f"{self.title} over the epochs in nats; at the end {ends}"


@dataclass(frozen=True, repr=False)
class Curves(OneLine):
    """All panels, the loss first.

    Attributes:
        panels: One a term.
        left_out: How many terms are not drawn.
        warms_up: Whether a panel has shading.
        validated: Whether there is a validation split.
    """

    panels: list[Panel]
    left_out: int
    warms_up: bool
    validated: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def curves(
    metrics: Sequence[Mapping[str, Any]], titles: Mapping[str, str] | None = None
) -> Curves | None:
    """Lays out every term, or returns ``None`` if no epoch was done.

    Args:
        metrics: One dictionary an epoch.
        titles: What terms are called that are not called as :func:`title` does.
    """
    if not metrics:
        return None
    terms = sorted(metrics[-1]["train"], key=lambda term: term != "loss")
    called = {term: title(term) for term in terms} | dict(titles or {})
    return Curves(
        panels=[_panel(metrics, term, called[term]) for term in terms[:MOST]],
        left_out=len(terms[MOST:]),
        warms_up=any(m["beta"] < 1 for m in metrics),
        validated=any(m["validation"] for m in metrics),
    )


def _panel(metrics: Sequence[Mapping[str, Any]], term: str, called: str) -> Panel:
    from matplotlib.ticker import MaxNLocator

    first, last = metrics[0]["epoch"], metrics[-1]["epoch"]
    values = {
        split: [
            (m["epoch"], m[split][term])
            for m in metrics
            if math.isfinite(m[split].get(term, math.nan))
        ]
        for split in ("train", "validation")
    }
    skipped = len(metrics) // 20 if len(metrics) >= SETTLED else 0
    shown = [v for line in values.values() for epoch, v in line if epoch >= first + skipped]
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - margin, high + margin

    def across(epoch: float) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return round(LEFT + 6 + share * (WIDTH - LEFT - RIGHT - 12), 1)

    def up(value: float) -> float:
        share = min((value - low) / (high - low), 1)  # what falls from too high starts at the top
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for split, line in values.items():
        places = [(across(epoch), up(value)) for epoch, value in line]
        if places:
            points = " ".join(f"{x},{y}" for x, y in places)
            dots = places if len(places) < SETTLED else places[-1:]
            lines.append(Line(split, points, dots, number(line[-1][1])))
    warming = [m["epoch"] for m in metrics if m["beta"] < 1]
    end = across(min(warming[-1] + 1, last)) if warming else LEFT
    epochs = [int(t) for t in MaxNLocator(5, integer=True).tick_values(first, last)]
    heights = [float(t) for t in MaxNLocator(4).tick_values(low, high)]
    return Panel(
        term=term,
        title=called,
        lines=lines,
        across=[(across(t), str(t)) for t in epochs if first <= t <= last],
        up=[(up(t), number(t)) for t in heights if low <= t <= high],
        warm_up=(LEFT, round(end - LEFT, 1)) if warming else None,
    )


def title(term: str) -> str:
    """Writes a term as mathematics: ``"KL to q(z | label)"``."""
    kind, _, what = term.partition("/")
    if kind == "reconstruction":
        return f"log p({what} | z)"
    if term == "kl/prior":
        return "KL to the prior"
    if kind == "kl" and what[:1] == "z" and what[1:].isdigit():
        return f"KL of z{what[1:]} to its prior"
    if kind == "kl":
        return f"KL to q(z | {what.replace('+', ', ')})"
    return "Loss" if term == "loss" else term
