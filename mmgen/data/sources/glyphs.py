"""The built-in data set Glyphs, drawn from the fonts that come with matplotlib.

Each row is a character, A–Z or 0–9, in one of three typefaces, as a picture with a label and with
attributes that can be seen in the picture. Character and attributes are drawn independently and
evenly: any of them can be asked for with any other, and nothing but the picture relates them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgen.errors import DataError
from mmgen.seeding import generator

SIDE = 28
"""Height and width of a picture in pixels."""

CLASSES = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")

ATTRIBUTES = ("bold", "italic", "serif", "large", "high")

FACES = {
    # (serif, bold, italic): one file for each of two typefaces; there is one without serifs.
    (0, 0, 0): ("DejaVuSans.ttf", "DejaVuSans.ttf"),
    (0, 0, 1): ("DejaVuSans-Oblique.ttf", "DejaVuSans-Oblique.ttf"),
    (0, 1, 0): ("DejaVuSans-Bold.ttf", "DejaVuSans-Bold.ttf"),
    (0, 1, 1): ("DejaVuSans-BoldOblique.ttf", "DejaVuSans-BoldOblique.ttf"),
    (1, 0, 0): ("DejaVuSerif.ttf", "STIXGeneral.ttf"),
    (1, 0, 1): ("DejaVuSerif-Italic.ttf", "STIXGeneralItalic.ttf"),
    (1, 1, 0): ("DejaVuSerif-Bold.ttf", "STIXGeneralBol.ttf"),
    (1, 1, 1): ("DejaVuSerif-BoldItalic.ttf", "STIXGeneralBolIta.ttf"),
}

SMALL, LARGE = (11.0, 13.0), (15.5, 17.5)
"""Height of a capital H in pixels: from, to. The gap keeps small and large apart at sight."""

RISE = (1.5, 3.0)
"""How far the glyph's centre is above (``high``) or below the middle, in pixels: from, to."""

SWAY, LEAN = 2.0, 0.06
"""Most shift to a side in pixels and most shear; italics lean by about 0.2, so they still show."""

ROOM = 25.0
"""Widest glyph in pixels: the widest of the large ones (W) are narrowed to it."""

MODALITIES: Mapping[str, dict[str, Any]] = {
    "image": {"kind": "image", "channels": 1, "height": SIDE, "width": SIDE},
    "label": {"kind": "label", "classes": list(CLASSES)},
    "attributes": {"kind": "attributes", "names": list(ATTRIBUTES)},
}
"""The modalities of a row, and their configurations."""

_CANVAS, _CAPITAL = 96, 48  # side of a mask and height of its H, in the mask's pixels
_OVERSAMPLING = 3  # per side and pixel of the picture: makes the edges smooth
CHUNK = 500
"""The rows that are drawn at once: some tens of megabytes."""


def drawn(counts: Mapping[str, int], seed: int) -> dict[str, Iterator[dict[str, Tensor]]]:
    """Draws the data set. The same seed and counts give the same bits on the same installation.

    Each split has a random stream of its own, and placement, size and slant are continuous: no
    picture of one split is in another.

    Args:
        counts: The number of rows of each split.
        seed: The seed of everything that is random.

    Returns:
        By split, chunks of stored values, drawn when they are asked for: ``image``
        ``(n, 1, 28, 28)`` uint8, ``label`` ``(n,)`` uint8 class numbers, ``attributes`` ``(n, 5)``
        uint8, 0 or 1.

    Raises:
        DataError: If matplotlib came without its fonts.
    """
    masks = _masks()
    return {
        split: _chunks(masks, n, generator("glyphs", seed, split)) for split, n in counts.items()
    }


def _chunks(masks: Tensor, count: int, stream: torch.Generator) -> Iterator[dict[str, Tensor]]:
    for first in range(0, count, CHUNK):
        yield _draw(masks, min(CHUNK, count - first), stream)


def _draw(masks: Tensor, count: int, stream: torch.Generator) -> dict[str, Tensor]:
    label = torch.randint(len(CLASSES), (count,), generator=stream)
    attributes = torch.randint(2, (count, len(ATTRIBUTES)), generator=stream)
    typeface = torch.randint(2, (count,), generator=stream)
    bold, italic, serif, large, high = attributes.unbind(1)
    mask = masks[serif, bold, italic, typeface, label]

    size_draw, rise_draw, sway_draw, lean_draw = torch.rand(4, count, generator=stream)
    height = torch.where(large == 1, _between(LARGE, size_draw), _between(SMALL, size_draw))
    rise = _between(RISE, rise_draw) * (2 * high - 1)
    lean = LEAN * (2 * lean_draw - 1)
    width = _width(mask) * height / _CAPITAL
    narrowing = (ROOM / width).clamp(max=1)
    space = (SIDE - 1 - width * narrowing) / 2
    sway = space.clamp(max=SWAY) * (2 * sway_draw - 1)

    centre = torch.stack([sway, -rise], 1)
    pixels = _place(mask, centre, height, narrowing, lean)
    return {
        "image": (255 * pixels).round().to(torch.uint8),
        "label": label.to(torch.uint8),
        "attributes": attributes.to(torch.uint8),
    }


def _place(mask: Tensor, centre: Tensor, height: Tensor, narrowing: Tensor, lean: Tensor) -> Tensor:
    """Scales, shears and shifts masks ``(B, C, C)`` into pictures ``(B, 1, 28, 28)`` in [0, 1].

    For a pixel (x, y) of the picture, from its centre in half sides, the glyph is read at
    v = (y − y₀) · s and u = (x − x₀) · s / narrowing + lean · (y − y₀) · s, where (x₀, y₀) is
    ``centre`` and s is half a picture against half a mask, at the wanted ``height``.
    """
    half = SIDE / 2
    scale = (half / height) * (_CAPITAL / (_CANVAS / 2))
    zero = torch.zeros_like(scale)
    x, y = (centre / half).unbind(1)
    across, along = scale / narrowing, lean * scale
    theta = torch.stack(
        [
            torch.stack([across, along, -x * across - y * along], 1),
            torch.stack([zero, scale, -y * scale], 1),
        ],
        1,
    )
    side = SIDE * _OVERSAMPLING
    grid = F.affine_grid(theta, [len(mask), 1, side, side], align_corners=False)
    fine = F.grid_sample(mask.unsqueeze(1), grid, align_corners=False)
    return F.avg_pool2d(fine, _OVERSAMPLING)


def _between(bounds: tuple[float, float], draw: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * draw


def _width(mask: Tensor) -> Tensor:
    return mask.amax(dim=1).gt(0).sum(dim=1)


def _masks() -> Tensor:
    """Draws all characters of all faces once: ``(serif, bold, italic, typeface, class, C, C)``."""
    import matplotlib as mpl

    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    faces = {file: _face(fonts / file) for files in FACES.values() for file in files}
    stacked = torch.stack([faces[file] for key in sorted(FACES) for file in FACES[key]])
    return stacked.view(2, 2, 2, 2, len(CLASSES), _CANVAS, _CANVAS)


def _face(file: Path) -> Tensor:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    def font(points: float) -> ImageFont.FreeTypeFont:
        # The basic layout is always there; the other one depends on the machine.
        return ImageFont.truetype(str(file), points, layout_engine=ImageFont.Layout.BASIC)

    try:
        _, top, _, bottom = font(100).getbbox("H")
    except OSError as error:
        raise DataError(
            f"cannot read the font {file} ({error}): the glyphs are drawn with the fonts that "
            "matplotlib ships; `pip install --force-reinstall matplotlib` brings them back"
        ) from error
    scaled = font(100 * _CAPITAL / (bottom - top))
    masks = []
    for character in CLASSES:
        left, top, right, bottom = scaled.getbbox(character)
        canvas = Image.new("L", (_CANVAS, _CANVAS))
        corner = ((_CANVAS - left - right) / 2, (_CANVAS - top - bottom) / 2)
        ImageDraw.Draw(canvas).text(corner, character, fill=255, font=scaled)
        masks.append(torch.from_numpy(np.array(canvas)))
    return torch.stack(masks).float() / 255
