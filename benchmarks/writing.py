"""What was measured, as a page of Markdown with a plot of the ratios."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import FLOORS, OURS, Section
from mmgen.drawing import plain_text, save

HEAD = """# Benchmarks

`{command}`, {rounds} rounds, on {where}.

Each way of doing the same is timed in turn, in one run; shown are medians in milliseconds, and in
brackets how many times as long as mmgen a way takes: above 1, mmgen is faster. Ratios hold on a
machine that does other things too; milliseconds do not.

![How many times as long as mmgen rivals take]({plot})
"""


def milliseconds(seconds: float) -> str:
    """Writes a time with three digits.

    Examples:
        >>> milliseconds(0.0123456), milliseconds(1.5)
        ('12.3', '1,500')
    """
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(path: Path, where: str, sections: Sequence[Section], rounds: int) -> None:
    """Writes the page, and its plot beside it."""
    plot = path.with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = f"python -m benchmarks --out {path}"
    parts = [HEAD.format(command=command, rounds=rounds, where=where, plot=plot.name)]
    parts += [page(section) for section in sections]
    path.write_text("\n".join(parts), encoding="utf-8")
    draw(plot, [section for section in sections if section.lines])


def page(section: Section) -> str:
    """Returns a section as Markdown."""
    names = list(dict.fromkeys(way for line in section.lines for way in line.seconds))
    noted = any(line.note for line in section.lines)
    lines = [f"## {section.title}", "", section.about, ""]
    if section.lines:
        heads = ["", *names, *(["note"] if noted else [])]
        lines += ["| " + " | ".join(heads) + " |", "|---" + "|---:" * len(names) + "|---|" * noted]
        lines[-1] = lines[-1].rstrip("|") + "|"
    for line in section.lines:
        cells = [line.what]
        for way in names:
            if way not in line.seconds:
                cells.append("")
            elif way == OURS:
                cells.append(milliseconds(line.seconds[way]))
            else:
                cells.append(f"{milliseconds(line.seconds[way])} ({line.ratio(way):.2f})")
        lines.append("| " + " | ".join([*cells, *([line.note] if noted else [])]) + " |")
    return "\n".join([*lines, ""])


@plain_text()
def draw(path: Path, sections: Sequence[Section]) -> None:
    """Draws how many times as long others take, on a logarithmic axis."""
    from matplotlib.figure import Figure

    bars = [
        (f"{line.what}: {way}", line.ratio(way))
        for section in sections
        for line in section.lines
        for way in line.seconds
        if way != OURS and way not in FLOORS
    ]
    figure = Figure(figsize=(7, 0.6 + 0.17 * len(bars)), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    heights = range(len(bars))
    colours = ["#2a78d6" if ratio >= 1 else "#c2571a" for _, ratio in bars]
    axes.barh(heights, [ratio - 1 for _, ratio in bars], left=1, color=colours, height=0.7)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 0.75, 1, 1.5, 2, 3, 5], ["0.5", "0.75", "1", "1.5", "2", "3", "5"])
    axes.minorticks_off()
    axes.axvline(1, color="#444", linewidth=1)
    axes.set_yticks(heights, [name for name, _ in bars], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("times as long as mmgen")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)
