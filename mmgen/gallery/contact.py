"""The contact sheet of a data set: a page of its examples, with what is said of each."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmgen.data.card import told
from mmgen.data.split import Split
from mmgen.gallery.groups import renderable
from mmgen.gallery.sheet import SIDE, Block, Pictures, Strip, beside, draw, magnified
from mmgen.modality import Modality

COLUMNS, ROWS = 8, 5
DRAWS = 64
"""How many observations of what is drawn by chance are averaged."""


def contact_sheet(
    path: Path,
    title: str,
    modalities: Mapping[str, Modality],
    rows: Split,
) -> bool:
    """Draws examples, evenly from all rows that have the pictures, and below each the words.

    Args:
        path: The PNG.
        title: In bold.
        modalities: By name.
        rows: Stored values of the same names, of which a few are read.

    Returns:
        Whether it was written: not if no modality is a picture.
    """
    pictures = [name for name, modality in modalities.items() if renderable(modality)]
    if not pictures:
        return False
    rows = rows.having(pictures)
    count = rows.count
    if not count:
        return False
    shown = torch.linspace(0, count - 1, min(count, COLUMNS * ROWS)).round().long()
    values = rows.take(shown, modalities)
    x = {n: _seen(m, values[n]) for n, m in modalities.items()}
    drawn = _large(beside([magnified(modalities[n].render(x[n])) for n in pictures]))  # type: ignore[arg-type]
    has = values.present or {}
    said = [told(m, x[n], has.get(n)) for n, m in modalities.items() if n not in pictures]
    words = ["\n".join(row) for row in zip(*said, strict=True)] if said else [""] * len(shown)
    strips = [
        Strip("", drawn[row : row + COLUMNS], words[row : row + COLUMNS])
        for row in range(0, len(shown), COLUMNS)
    ]
    draw(path, title, f"{len(shown)} of {count:,} rows to train on", [Block(strips)])
    return True


def _large(drawn: Pictures) -> Pictures:
    """Doubles pictures that leave most of their places on the page empty."""
    return drawn.repeat(2, 1).repeat(2, 2) if max(drawn.shape[1:3]) < SIDE else drawn


def _seen(modality: Modality, stored: Tensor) -> Tensor:
    """Observes stored values; what is drawn by chance, such as binarised pictures, on average."""
    draws = (modality.observe(stored, torch.Generator().manual_seed(n)) for n in range(DRAWS))
    first, second = next(draws), next(draws)
    if torch.equal(first, second):
        return first
    return (first + second + sum(draws)) / DRAWS
