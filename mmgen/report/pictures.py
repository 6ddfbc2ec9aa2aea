"""Pictures as the page holds them: PNG in data URIs, shown magnified by a whole number."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import torch.nn.functional as F
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.modality import Modality

SIDE = 96
"""About what the longer side of a small picture is magnified to, in CSS pixels."""

LARGEST = 144
"""Larger pictures are made smaller, by a whole factor."""

BUDGET = 1_500_000
"""About how many bytes of pixels one section may hold: the page is to stay light."""


@dataclass(frozen=True, repr=False)
class Picture(OneLine):
    """One picture.

    Attributes:
        source: A data URI.
        alt: What was given, what is shown, and how z came about.
        width: In CSS pixels, a whole multiple of the picture's own.
        height: Likewise.
    """

    source: str
    alt: str
    width: int
    height: int


def affordable(modality: Modality, most: int) -> int:
    """Returns how many pictures of a modality a section may hold: at least 6, at most ``most``."""
    pixels = modality.shape[-1] * modality.shape[-2] if len(modality.shape) > 1 else 1
    longer = max(modality.shape)
    return max(6, min(most, BUDGET // (3 * pixels // max(1, _shrunk(longer)) ** 2 + 1)))


def picture(drawn: Tensor, alt: str) -> Picture:
    """Encodes one picture ``(3, H, W)`` in [0, 1]."""
    from PIL import Image

    drawn = drawn.detach().float().nan_to_num().clamp(0, 1).cpu()
    factor = _shrunk(max(drawn.shape[-2:]))
    if factor > 1:
        drawn = F.avg_pool2d(drawn, factor, ceil_mode=True)
    pixels = (drawn * 255).round().byte().permute(1, 2, 0).numpy()
    grey = (pixels[..., :1] == pixels).all()
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    content = BytesIO()
    image.save(content, "PNG", optimize=True)
    height, width = pixels.shape[:2]
    scale = max(1, int(SIDE / max(height, width) + 0.5))
    source = f"data:image/png;base64,{b64encode(content.getvalue()).decode()}"
    return Picture(source, alt, scale * width, scale * height)


def _shrunk(longer: int) -> int:
    return -(-longer // LARGEST)
