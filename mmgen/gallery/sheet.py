"""A page of small pictures with captions, placed pixel by pixel.

Pictures are magnified by whole factors and never resampled, so that what is seen is what was
generated.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.drawing import plain_text, save
from mmgen.errors import GenerationError
from mmgen.files.atomic import deliver
from mmgen.modality import Modality

Pictures = NDArray[np.float32]
"""``(n, H, W, 3)`` in [0, 1], magnified."""

DPI = 150
SIDE = 84
"""What the longer side of a picture is magnified to, at most, in pixels: 28 threefold."""
GAP = 8
MARGIN = 30
LINE = 1.35
"""The height of a line of text, in font sizes."""
INK, GREY, EDGE = "#222222", "#6b6b6b", 204

FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "IPAexGothic")
"""The first comes with matplotlib, the others have the letters that it lacks."""


@dataclass(frozen=True, repr=False)
class Strip(OneLine):
    """A row of pictures.

    Attributes:
        caption: At its left; may be empty.
        pictures: ``(n, H, W, 3)``.
        words: Below each picture, each line of it wrapped; may be empty.
    """

    caption: str
    pictures: Pictures
    words: Sequence[str] = ()


@dataclass(frozen=True, repr=False)
class Block(OneLine):
    """Rows of pictures below each other.

    Attributes:
        strips: The rows, top down.
        title: Above the block.
        note: Below the title.
        headings: Above the first column and the second, which then stand apart; or none.
    """

    strips: Sequence[Strip]
    title: str = ""
    note: str = ""
    headings: tuple[str, str] | None = None


@dataclass(frozen=True)
class _Text:
    x: float
    y: float
    words: str
    size: float
    colour: str = INK
    across: str = "left"
    down: str = "top"
    weight: str = "normal"


def magnified(drawn: Tensor) -> Pictures:
    """Brings pictures ``(n, 3, H, W)`` in [0, 1] to the page's size, by a whole factor."""
    drawn = drawn.detach().float().clamp(0, 1).cpu()
    longer = max(drawn.shape[-2:])
    if longer > 3 * SIDE:
        drawn = F.avg_pool2d(drawn, math.ceil(longer / (3 * SIDE)), ceil_mode=True)
    factor = max(1, SIDE // longer)
    wide = drawn.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    pictures: Pictures = wide.permute(0, 2, 3, 1).numpy()
    return pictures


def beside(several: Sequence[Pictures]) -> Pictures:
    """Puts the pictures of several modalities side by side: ``(n, H, W_1 + W_2 + .., 3)``."""
    height = max(pictures.shape[1] for pictures in several)
    parts: list[Pictures] = []
    for pictures in several:
        n, h, w, _ = pictures.shape
        part = np.ones((n, height, w + (GAP // 2 if parts else 0), 3), np.float32)
        part[:, :h, -w:] = pictures
        parts.append(part)
    return np.concatenate(parts, axis=2)


def draw(path: Path, title: str, note: str, blocks: Sequence[Block]) -> Path:
    """Writes a page: title, note, and the blocks from left to right.

    Args:
        path: The PNG; its folder is made.
        title: In bold.
        note: Below, wrapped to the page.
        blocks: What is shown.

    Returns:
        ``path``.
    """
    grids = [_Grid(block) for block in blocks]
    width = max(900, sum(grid.width for grid in grids) + 2 * MARGIN + 4 * GAP * (len(blocks) - 1))
    lines = textwrap.wrap(note, int(1.15 * (width - 2 * MARGIN) / _width("n", 9)))
    texts = [_Text(MARGIN, MARGIN, title, 13, weight="bold")]
    y = MARGIN + 1.2 * _height(13)
    texts += [_Text(MARGIN, y + i * _height(9), line, 9, GREY) for i, line in enumerate(lines)]
    y += (len(lines) + 1) * _height(9)
    top = int(y)
    height = top + max(grid.height for grid in grids) + MARGIN
    page = _blank(height, width)
    x = MARGIN
    for grid in grids:
        texts += grid.place(page, x, top)
        x += grid.width + 4 * GAP
    return _write(path, page, texts)


def save_grid(pictures: Tensor, path: Path) -> Path:
    """Writes pictures as a grid about as wide as high, without words.

    Args:
        pictures: ``(n, 3, H, W)`` in [0, 1], as a modality renders them.
        path: The PNG; its folder is made.

    Returns:
        ``path``.
    """
    shown = magnified(pictures)
    n, h, w, _ = shown.shape
    height, width, columns = grid_size(n, h, w)
    page = _blank(height, width)
    for number, picture in enumerate(shown):
        row, column = divmod(number, columns)
        y, x = GAP + row * (h + GAP), GAP + column * (w + GAP)
        page[y : y + h, x : x + w, :3] = _bytes(picture)
    return save_pixels(page[:, :, :3], path)


def save_pixels(pixels: NDArray[np.uint8], path: Path) -> Path:
    """Writes ``(H, W, 3)`` as a PNG of just these pixels; its folder is made."""
    import PIL.Image  # not by matplotlib, which takes half a second to load

    content = BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(content, "PNG")
    deliver(path, content.getvalue())
    return path


def grid_size(n: int, h: int, w: int) -> tuple[int, int, int]:
    """Returns height and width in pixels of a grid of n pictures, and how many are in a row."""
    columns = math.ceil(math.sqrt(n))
    return math.ceil(n / columns) * (h + GAP) + GAP, columns * (w + GAP) + GAP, columns


MOST_PIXELS = 50_000_000
"""Of a grid: drawing it takes up to 40 bytes each."""


def check_grid(modality: Modality, count: int) -> None:
    """Checks that a grid of so many pictures is small enough to be drawn and looked at.

    Raises:
        GenerationError: If not; says how large it would be.
    """
    picture = modality.render(torch.zeros(1, *modality.shape))
    assert picture is not None
    _, h, w, _ = magnified(picture).shape
    height, width, _ = grid_size(count, h, w)
    if height * width > MOST_PIXELS:
        raise GenerationError(
            f"--out: a grid of {count:,} pictures would have {width:,} × {height:,} pixels; "
            f"{MOST_PIXELS:,} are the most. Ask for about "
            f"{MOST_PIXELS * count // (height * width):,} samples"
        )


class _Grid:
    """The places of a block's pictures and words, in pixels."""

    def __init__(self, block: Block) -> None:
        self.block = block
        captions = [_width(strip.caption, 9) for strip in block.strips]
        self.left = int(min(max(captions), 300)) + (2 * GAP if any(captions) else 0)
        self.apart = 2 * GAP if block.headings else 0
        pictures = max(strip.pictures.shape[2] for strip in block.strips)
        words = "\n".join(word for strip in block.strips for word in strip.words)
        widest = max(_width(line, 8) for line in words.split("\n"))
        self.cell = int(max(pictures, min(widest, 2 * SIDE))) + GAP
        self.texts = [self._wrap(strip) for strip in block.strips]
        count = max(len(strip.pictures) for strip in block.strips)
        self.width = self.left + self.apart + count * self.cell - GAP
        self.head = int(
            (_height(11) if block.title else 0)
            + (_height(8) if block.note else 0)
            + (1.3 * _height(8) if block.headings else 0)
        )
        self.height = self.head + sum(self._rise(i) for i in range(len(block.strips))) - GAP

    def _wrap(self, strip: Strip) -> list[list[str]]:
        letters = int((self.cell - GAP) / _width("n", 8)) + 1
        return [
            [
                line
                for part in words.replace(" %", "\u00a0%").split("\n")
                for line in textwrap.wrap(part, letters, max_lines=3, placeholder="…")
            ]
            for words in strip.words
        ]

    def _rise(self, number: int) -> int:
        """Returns the height of a row with the words below it and the gap to the next."""
        lines = max((len(lines) for lines in self.texts[number]), default=0)
        words = int((lines + 0.6) * _height(8)) if lines else 0
        return int(self.block.strips[number].pictures.shape[1]) + words + GAP

    def place(self, page: NDArray[np.uint8], x: int, y: int) -> list[_Text]:
        """Paints the block's pictures at ``(x, y)`` and returns its words."""
        block, texts = self.block, []
        starts = y
        if block.title:
            texts.append(_Text(x + self.left, y, block.title, 11, weight="bold"))
            starts += int(_height(11))
        if block.note:
            texts.append(_Text(x + self.left, starts, block.note, 8, GREY))
        y += self.head
        if block.headings:
            for column, heading in enumerate(block.headings):
                left = x + self.left + column * (self.cell + self.apart)
                texts.append(_Text(left, y - 4, heading, 8, GREY, down="bottom"))
        for number, strip in enumerate(block.strips):
            height, width = strip.pictures.shape[1:3]
            caption, middle = _cut(strip.caption, 300), y + height / 2
            right = x + self.left - 2 * GAP
            texts.append(_Text(right, middle, caption, 9, across="right", down="center"))
            for column, picture in enumerate(strip.pictures):
                left = x + self.left + column * self.cell + (self.apart if column else 0)
                centre = left + (self.cell - GAP) // 2
                left = centre - width // 2
                # A thin edge, so that white pictures end somewhere.
                page[y - 1 : y + height + 1, left - 1 : left + width + 1, :3] = EDGE
                page[y : y + height, left : left + width, :3] = _bytes(picture)
                if self.texts[number]:
                    for i, line in enumerate(self.texts[number][column]):
                        below = y + height + (i + 0.25) * _height(8)
                        texts.append(_Text(centre, below, line, 8, across="center"))
            y += self._rise(number)
        return texts


def _height(size: float) -> float:
    return size * DPI / 72 * LINE


def _width(words: str, size: float) -> float:
    return len(words) * 0.61 * size * DPI / 72  # a wide letter of the sans serif face


def _cut(words: str, width: float) -> str:
    letters = int(width / _width("n", 9))
    return words if len(words) <= letters else words[: letters - 1] + "…"


def _blank(height: int, width: int) -> NDArray[np.uint8]:
    """Returns a white page, ``(H, W, 4)``."""
    return np.full((height, width, 4), 255, np.uint8)


def _bytes(picture: Pictures) -> NDArray[np.uint8]:
    return (picture * 255).round().astype(np.uint8)


@plain_text()
def _write(path: Path, page: NDArray[np.uint8], texts: Sequence[_Text]) -> Path:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    fonts = [font for font in FONTS if font in installed]
    height, width = page.shape[:2]
    # Half a pixel more, because the size in pixels is rounded down.
    figure = Figure(((width + 0.5) / DPI, (height + 0.5) / DPI), DPI, facecolor="white")

    class Page(Artist):
        # figimage() would take 100 bytes for each pixel, to resample the page to itself.
        def draw(self, renderer: Any) -> None:
            renderer.draw_image(renderer.new_gc(), 0, 0, np.flipud(page).copy())

    figure.add_artist(Page())
    for text in texts:
        figure.text(
            text.x / width,
            1 - text.y / height,
            text.words,
            fontsize=text.size,
            family=fonts,
            color=text.colour,
            ha=text.across,
            va=text.down,
            weight=text.weight,
        )
    return save(figure, path)
