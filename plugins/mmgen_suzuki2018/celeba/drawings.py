"""Figures 6 to 9, each drawn from its data alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmgen.drawing import plain_text, save
from mmgen.gallery.sheet import GREY, INK, Block, Pictures, Strip, draw, magnified

SIDE = 128
"""What faces are magnified to, by a whole factor, in pixels."""

COLOURS = ("#777777", "#2471a3", "#8cbbdd", "#6b3d8b", "#b99ad1", "#d08a2e", "#efc98f")
"""Of conditions in Figure 8b: the base; then, by attribute, dark with it and light without."""


def faces(drawn: Tensor) -> Pictures:
    """Brings faces ``(n, 3, H, W)`` in [0, 1] to the page's size."""
    times = max(1, SIDE // max(drawn.shape[-2:]))
    return magnified(drawn.repeat_interleave(times, -1).repeat_interleave(times, -2))


def figure_6(shown: Mapping[str, Tensor], captions: Sequence[str], path: Path) -> Path:
    """Draws faces generated from the attributes of test rows, a row a model.

    Args:
        shown: For each model ``(n, 3, H, W)`` in [0, 1].
        captions: Below each column: what it was generated from.
        path: The PNG.
    """
    rows = [*shown.items()]
    strips = [
        Strip(model, faces(drawn), captions if at == len(rows) - 1 else ())
        for at, (model, drawn) in enumerate(rows)
    ]
    note = (
        "Each column has the 40 attributes of one test picture, of which some are named. Faces are "
        "means of p(x|z) at the mean of z; JMVAE and the hierarchy sample iteratively."
    )
    return draw(path, "Figure 6: faces from attributes", note, [Block(strips)])


def figure_7(shown: Mapping[str, Tensor], path: Path) -> Path:
    """Draws what a model without a critic and one with it make of the same test rows.

    Args:
        shown: Rows of faces ``(n, 3, H, W)`` by what they are, from top to bottom.
        path: The PNG.
    """
    strips = [Strip(words, faces(drawn)) for words, drawn in shown.items()]
    note = (
        "Each column is one test picture: reconstructed from itself, and generated from its "
        "attributes, each at the mean of z; below them, faces of z drawn from the prior. Every "
        "second row is by the model with a critic."
    )
    return draw(path, "Figure 7: JMVAE-kl without and with a critic", note, [Block(strips)])


def figure_8a(shown: Mapping[str, Tensor], path: Path) -> Path:
    """Draws average faces and random ones, a column a condition.

    Args:
        shown: By condition, faces ``(1 + n, 3, H, W)``: the average one, then random ones.
        path: The PNG.
    """
    columns = [*shown.values()]
    rows = torch.stack(columns, 1)  # (1 + n, conditions, 3, H, W)
    average, *random = rows
    strips = [Strip("average", faces(average), [*shown])]
    strips += [
        Strip("random" if at == 0 else "", faces(row), [*shown] if at == len(random) - 1 else ())
        for at, row in enumerate(random)
    ]
    note = (
        "The base has the attributes of one test picture. In the other columns one of them is 2, "
        "or −2 if the face is not to show it. Average: z is the mean of q(z|w). Random: "
        "z = mean + σ·ε, where ε is N(0, 0.6²) and one and the same in a row."
    )
    return draw(path, "Figure 8a: average faces and random ones", note, [Block(strips)])


@plain_text()
def figure_8b(points: Mapping[str, Tensor], explained: Sequence[float], path: Path) -> Path:
    """Draws z given attributes in two principal components, coloured by condition.

    Args:
        points: By condition ``(n, 2)``.
        explained: The shares of the variance that the two components have.
        path: The PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1)
    figure = Figure((7.6, 5.6), dpi=110, facecolor="white", layout=layout)
    title = "Figure 8b: z given attributes"
    figure.suptitle(title, x=0.015, ha="left", fontsize=13, fontweight="bold", color=INK)
    figure.supxlabel(
        "Means of q(z|w), of which one attribute is 2 or −2; a point a test picture's w.",
        x=0.015,
        ha="left",
        fontsize=9,
        color=GREY,
    )
    axes = figure.subplots()
    for number, (condition, xy) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        x, y = xy.T.tolist()
        axes.scatter(x, y, s=7, c=colour, alpha=0.7, linewidth=0, label=condition)
    first, second = (f"component, {share:.0%} of the variance" for share in explained)
    axes.set_xlabel(f"first principal {first}", fontsize=9, color=GREY)
    axes.set_ylabel(f"second principal {second}", fontsize=9, color=GREY)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=8, colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color("#cccccc")
    figure.legend(loc="outside right upper", fontsize=9, frameon=False, markerscale=2)
    return save(figure, path)


def figure_9(shown: Mapping[str, Tensor], notes: Sequence[str], path: Path) -> Path:
    """Draws photographs and what edits make of them, a column an edit.

    Args:
        shown: By what is shown, a picture of each photograph ``(n, 3, H, W)`` in [0, 1].
        notes: Of each photograph, what is inferred from it.
        path: The PNG.
    """
    columns = torch.stack([*shown.values()], 1)  # (photographs, columns, 3, H, W)
    strips = [Strip("", faces(row), [*shown]) for row in columns]
    said = " ".join(f"{number}: {words}." for number, words in enumerate(notes, 1))
    note = (
        "The photograph, the average face of what is inferred from it, x_mean, and for each edit "
        f"x + x'_mean − x_mean, an attribute being 2, or −2 if it is not to be shown. "
        f"Inferred, from top to bottom: {said}"
    )
    return draw(path, "Figure 9: photographs edited", note, [Block(strips)])
