"""Figures 3, 4 and 5, each drawn from its data alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmgen.drawing import plain_text, save
from mmgen.gallery.sheet import GREY, INK, Block, Strip, draw, magnified
from mmgen.modality import Modality
from mmgen_suzuki2018.mnist.chains import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 0.98
"""Of all z in Figure 5, along each axis."""

COLOURS = {"JMVAE": "#d08a2e", "Hierarchical": "#2471a3", "JMVAE-kl": "#3d8b4f"}
"""Of the models, in all figures."""


def figure_3(
    shown: Mapping[str, Tensor], after: Sequence[int], image: Modality, path: Path
) -> Path:
    """Draws pictures generated from each label, a row a number of iterations.

    Args:
        shown: For each model ``(iterations, labels, 1, C, H, W)``.
        after: The numbers of iterations.
        image: How pictures are rendered.
        path: The PNG.
    """
    blocks = []
    for model, pictures in shown.items():
        rows = pictures[:, :, 0]
        strips = [
            Strip(f"T = {t}", magnified(drawn))
            for t, row in zip(after, rows, strict=True)
            if (drawn := image.render(row)) is not None
        ]
        blocks.append(Block(strips, title=model))
    note = (
        "Each column is one chain, given the label of its column, 0 to 9; each row shows p(x|z) "
        "after T iterations. The missing picture starts at zero."
    )
    return draw(path, "Figure 3: image from label by number of iterations", note, blocks)


@plain_text()
def figure_4(points: Sequence[Point], path: Path) -> Path:
    """Draws the likelihood of each direction against the iterations, ± 2 standard errors."""
    directions = list(dict.fromkeys((p.target, p.given) for p in points))
    title = "Figure 4: conditional log-likelihood by number of iterations"
    figure = _figure((5 * len(directions) + 1.4, 3.9), title)
    note = "Nats, mean over test rows of eq. 11; band: ± 2 standard errors. Dashed: no iterations."
    figure.supxlabel(note, x=0.015, ha="left", fontsize=9, color=GREY)
    panels = figure.subplots(1, len(directions), squeeze=False)[0]
    for axes, (target, given) in zip(panels, directions, strict=True):
        _axes(axes, f"log p({target} | {given})")
        axes.set_xlabel("iterations T", fontsize=9, color=GREY)
        here = [p for p in points if (p.target, p.given) == (target, given)]
        for model in dict.fromkeys(p.model for p in here):
            _curve(axes, model, [p for p in here if p.model == model])
    handles, words = panels[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside right upper", fontsize=9, frameon=False)
    return save(figure, path)


def _curve(axes: "Axes", model: str, line: Sequence[Point]) -> None:
    colour = COLOURS.get(model, GREY)
    nats = [p.nats for p in line]
    if line[0].iteration == 0:
        axes.axhline(nats[0], color=colour, linestyle=(0, (5, 3)), linewidth=1.4, label=model)
        return
    t = [p.iteration for p in line]
    low = [p.nats - 2 * p.standard_error for p in line]
    high = [p.nats + 2 * p.standard_error for p in line]
    axes.fill_between(t, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(t, nats, color=colour, linewidth=1.6, label=model)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")


@plain_text()
def figure_5(
    spaces: Mapping[str, Mapping[str, Tensor]],
    classes: Tensor,
    names: Sequence[str],
    path: Path,
) -> Path:
    """Draws z in two dimensions: a column a model, a row a set of given modalities.

    Args:
        spaces: By model and what is given, ``(rows, 2)``.
        classes: The class of each row ``(rows,)``.
        names: What the classes are called.
        path: The PNG.
    """
    rows = max(len(each) for each in spaces.values())
    title = "Figure 5: the two-dimensional latent space"
    figure = _figure((3.7 * len(spaces) + 0.7, 3.7 * rows + 0.9), title)
    note = (
        "One z a test row, coloured by its digit. The axes are the same in each column of panels, "
        f"and leave out the outermost {1 - SHOWN:.0%}."
    )
    figure.supxlabel(note, x=0.015, ha="left", fontsize=9, color=GREY)
    grid = figure.subplots(rows, len(spaces), squeeze=False)
    colours = [f"C{number:.0f}" for number in classes.tolist()]
    for column, (model, each) in zip(grid.T, spaces.items(), strict=True):
        centre, reach = _window(torch.cat(list(each.values())))
        for axes, (given, z) in zip(column, each.items(), strict=True):
            _axes(axes, f"{model}, given {given}")
            for limits, middle in zip((axes.set_xlim, axes.set_ylim), centre, strict=True):
                limits(middle - reach, middle + reach)
            axes.set_aspect("equal")
            # In the order of rows: no class lies on top of the others.
            axes.scatter(*z.T.tolist(), s=5, c=colours, alpha=0.7, linewidth=0)
    for number, name in enumerate(names):
        grid[0, 0].scatter([], [], s=5, color=f"C{number}", label=name)
    handles, words = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, words, loc="outside right upper", fontsize=9, frameon=False, markerscale=3
    )
    return save(figure, path)


def _window(z: Tensor) -> tuple[list[float], float]:
    """Returns the centre of a square that holds all z ``(N, 2)`` but the outermost, and its reach.

    A few z of a hierarchy lie ten times as far out as the others.
    """
    edges = torch.tensor([(1 - SHOWN) / 2, (1 + SHOWN) / 2], dtype=z.dtype)
    low, high = z.quantile(edges, 0)
    return ((low + high) / 2).tolist(), 1.1 * (high - low).max().item() / 2


def _figure(size: tuple[float, float], title: str) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(size, dpi=110, facecolor="white", layout=layout)
    figure.suptitle(title, x=0.015, ha="left", fontsize=13, fontweight="bold", color=INK)
    return figure


def _axes(axes: "Axes", title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.tick_params(labelsize=8, colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color("#cccccc")
