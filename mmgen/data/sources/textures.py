"""Patches of textures in colour: patterns that are drawn, or parts of pictures.

A family of patterns is a map from places to numbers in [0, 1], drawn anew for each patch, and a
range of hues; the numbers blend two colours that are both dark or both light, so that what is
blended over a patch can be told from it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from math import pi
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmgen.data.raster import SUFFIXES, opened
from mmgen.errors import DataError

LARGEST = 256
"""Pictures are made smaller until no side is longer: a patch then shows more than one colour."""

MOST_PICTURES = 1_000
"""More are not read: all are held in memory, at most 200 kB each."""


class Family(ABC):
    """Textures that go together.

    Attributes:
        about: What they are, in few words.
    """

    about: str

    @abstractmethod
    def patches(self, count: int, side: int, stream: torch.Generator) -> Tensor:
        """Draws patches ``(count, 3, side, side)`` in [0, 1]."""


class Pattern(Family):
    """Patterns of one sort, in colours of one range.

    Args:
        about: What they are.
        draw: Draws numbers in [0, 1] ``(count, side, side)``.
        hue: The middle of the range of hues, from 0 to 1.
    """

    def __init__(
        self, about: str, draw: Callable[[int, int, torch.Generator], Tensor], hue: float
    ) -> None:
        self.about, self.draw, self.hue = about, draw, hue

    def patches(self, count: int, side: int, stream: torch.Generator) -> Tensor:
        """Draws patches: the pattern blends two colours, both dark or both light."""
        weight = self.draw(count, side, stream).unsqueeze(1)
        light = torch.randint(2, (count, 1), generator=stream)
        # Far enough apart that the pattern shows, within the darker or the lighter part.
        least = torch.where(light == 1, torch.tensor([0.65, 0.9]), torch.tensor([0.1, 0.35]))
        value = least + 0.1 * torch.rand(count, 2, generator=stream)
        hue = (self.hue + 0.2 * (torch.rand(count, 2, generator=stream) - 0.5)) % 1
        strength = torch.rand(count, 2, generator=stream)
        saturation = torch.where(light == 1, 0.1 + 0.4 * strength, 0.6 + 0.4 * strength)
        one, other = rgb(hue, saturation, value).unbind(1)
        one, other = one[..., None, None], other[..., None, None]
        return one + weight * (other - one)


def rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Returns colours ``(..., 3)`` of hue, saturation and value in [0, 1] ``(...)``.

    Examples:
        >>> one = torch.ones(3)
        >>> rgb(torch.tensor([0.0, 1 / 3, 2 / 3]), one, one).round().tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    shift = torch.tensor([5.0, 3.0, 1.0])
    k = (shift + 6 * hue.unsqueeze(-1)) % 6
    part = torch.minimum(k, 4 - k).clamp(0, 1)
    return value.unsqueeze(-1) * (1 - saturation.unsqueeze(-1) * part)


def _places(count: int, side: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns the pixels' places along two axes that are turned anew for each patch."""
    along = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(along, along, indexing="ij")
    angle = (2 * pi * torch.rand(count, generator=stream))[:, None, None]
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


def _between(low: float, high: float, count: int, stream: torch.Generator) -> Tensor:
    return (low + (high - low) * torch.rand(count, generator=stream))[:, None, None]


def _edge(wave: Tensor) -> Tensor:
    """Makes a wave in [−1, 1] nearly square, in [0, 1]: edges of about a pixel."""
    return torch.sigmoid(6 * wave)


def stripes(count: int, side: int, stream: torch.Generator) -> Tensor:
    """Draws straight stripes of 5 to 11 pixels from one to the next."""
    u, _ = _places(count, side, stream)
    period, phase = _between(5, 11, count, stream), _between(0, 2 * pi, count, stream)
    return _edge((2 * pi * u / period + phase).sin())


def checks(count: int, side: int, stream: torch.Generator) -> Tensor:
    """Draws a chessboard, turned."""
    u, v = _places(count, side, stream)
    period = _between(9, 16, count, stream)
    phases = (_between(0, 2 * pi, count, stream) for _ in range(2))
    waves = [(2 * pi * w / period + p).sin() for w, p in zip((u, v), phases, strict=True)]
    return _edge(2 * waves[0] * waves[1])


def noise(count: int, side: int, stream: torch.Generator) -> Tensor:
    """Draws value noise: random numbers on grids of three widths, smoothly interpolated, added."""
    total = torch.zeros(count, 1, side, side)
    for cells, weight in ((4, 0.5), (8, 0.3), (14, 0.2)):
        grid = torch.rand(count, 1, cells, cells, generator=stream)
        total += weight * F.interpolate(grid, side, mode="bicubic", align_corners=True)
    low, high = total.amin((2, 3), keepdim=True), total.amax((2, 3), keepdim=True)
    return ((total - low) / (high - low)).squeeze(1)


def blobs(count: int, side: int, stream: torch.Generator) -> Tensor:
    """Draws a dozen round blobs with soft edges."""
    along = torch.arange(side, dtype=torch.float32)
    centres = side * torch.rand(count, 12, 2, generator=stream)
    radius = 1.5 + 2.5 * torch.rand(count, 12, 1, 1, generator=stream)
    x, y = (centres[..., axis, None] - along for axis in (0, 1))
    distance = (x.unsqueeze(2).square() + y.unsqueeze(3).square()).sqrt()
    return torch.sigmoid(2 * (radius - distance)).amax(1)


def gradients(count: int, side: int, stream: torch.Generator) -> Tensor:
    """Draws smooth slopes that are straight or round, from one colour to the other."""
    u, v = _places(count, side, stream)
    bend = _between(0, 1.5, count, stream)
    slope = u + bend * (u.square() + v.square()).sqrt()
    low, high = slope.amin((1, 2), keepdim=True), slope.amax((1, 2), keepdim=True)
    return (slope - low) / (high - low)


PATTERNS: tuple[Pattern, ...] = tuple(
    Pattern(draw.__name__, draw, number / 5)
    for number, draw in enumerate((stripes, checks, noise, blobs, gradients))
)
"""Five families, each with hues of its own."""


class Crops(Family):
    """Parts of pictures.

    Args:
        files: The pictures; each is read once.
        side: The side of a patch, which each must have at least.

    Raises:
        DataError: If one cannot be read, or is too small.
    """

    def __init__(self, files: Sequence[Path], side: int) -> None:
        self.about = f"{len(files)} pictures, such as {files[0].name}"
        self.pictures = [_picture(file, side) for file in files]

    def patches(self, count: int, side: int, stream: torch.Generator) -> Tensor:
        """Cuts patches out of pictures, anywhere."""
        chosen = torch.randint(len(self.pictures), (count,), generator=stream).tolist()
        places = torch.rand(count, 2, generator=stream).tolist()
        return torch.stack(list(self._cut(chosen, places, side))).float() / 255

    def _cut(
        self, chosen: Sequence[int], places: Sequence[Sequence[float]], side: int
    ) -> Iterator[Tensor]:
        for number, (down, right) in zip(chosen, places, strict=True):
            picture = self.pictures[number]
            top = int(down * (picture.shape[1] - side + 1))
            left = int(right * (picture.shape[2] - side + 1))
            yield picture[:, top : top + side, left : left + side]


def dealt(folder: Path, hands: int, side: int) -> list[Crops]:
    """Deals the pictures of a folder, in the order of their names, out to several families.

    Args:
        folder: The folder; what is in folders within it does not count.
        hands: How many families.
        side: The side of a patch.

    Raises:
        DataError: If there are fewer pictures than families, too many, or one cannot be used.
    """
    try:
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise DataError(f"--textures {folder}: cannot be read: {error.strerror}") from None
    if len(files) < hands:
        raise DataError(
            f"--textures {folder}: {hands} modalities need at least {hands} pictures (.png, .jpg, "
            f"...); there are {len(files)}"
        )
    if len(files) > MOST_PICTURES:
        raise DataError(
            f"--textures {folder}: {len(files):,} pictures are more than the {MOST_PICTURES:,} "
            "that are read; name a folder with fewer"
        )
    return [Crops(files[hand::hands], side) for hand in range(hands)]


def _picture(file: Path, side: int) -> Tensor:
    """Reads a picture ``(3, H, W)`` uint8, of at most :data:`LARGEST` pixels a side."""
    try:
        with opened(file) as picture:
            small = picture.convert("RGB")
            small.thumbnail((LARGEST, LARGEST))
            pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()
    except ValueError as error:
        raise DataError(f"--textures: {error}") from None
    if min(pixels.shape[1:]) < side:
        height, width = pixels.shape[1:]
        raise DataError(
            f"--textures: {file} is {width}×{height} pixels when its longer side is at most "
            f"{LARGEST}; a patch needs {side} each way"
        )
    return pixels
