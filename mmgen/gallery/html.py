"""Groups, curves and all else of a report as HTML, in which every word of a run is escaped."""

import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.formatting import amount, joined, number
from mmgen.gallery.curves import SETTLED, Panel
from mmgen.gallery.groups import spread
from mmgen.gallery.recognition import per_cent
from mmgen.modality import Modality

SIDE = 96
"""About what the longer side of a small picture is magnified to, in CSS pixels."""

LARGEST = 144
"""Larger pictures are made smaller, by a whole factor."""

BUDGET = 1_500_000
"""About how many bytes of pixels one section may hold: the page is to stay light."""

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 12, 26


@dataclass(frozen=True, repr=False)
class Picture(OneLine):
    """One picture.

    Attributes:
        source: A data URI.
        width: In CSS pixels, a whole multiple of the picture's own.
        height: Likewise.
    """

    source: str
    width: int
    height: int


def affordable(modality: Modality, most: int) -> int:
    """Returns how many pictures of a modality a section may hold: at least 6, at most ``most``."""
    pixels = modality.shape[-1] * modality.shape[-2] if len(modality.shape) > 1 else 1
    longer = max(modality.shape)
    return max(6, min(most, BUDGET // (3 * pixels // max(1, _shrunk(longer)) ** 2 + 1)))


def picture(drawn: Tensor) -> Picture:
    """Encodes one picture ``(3, H, W)`` in [0, 1] as a PNG in a data URI."""
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
    return Picture(source, scale * width, scale * height)


def _shrunk(longer: int) -> int:
    return -(-longer // LARGEST)


def spread_of(items: Sequence[Any], most: int) -> list[Any]:
    """Returns up to ``most`` of some items, evenly spread, in order."""
    return [items[i] for i in spread(len(items), most).tolist()]


def place(panel: Panel, epoch: float, value: float) -> tuple[float, float]:
    """Returns the coordinates of a point of a panel."""
    across, down = panel.place(epoch, value)
    x = LEFT + 6 + across * (WIDTH - LEFT - RIGHT - 12)
    return round(x, 1), round(TOP + down * (HEIGHT - TOP - BOTTOM), 1)


def shares(values: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Returns words, values and the lengths of their bars, from 0 to 100 of the longest."""
    longest = max([0.0, *filter(math.isfinite, values.values())]) or 1
    bounded = {w: min(max(v / longest, 0), 1) if math.isfinite(v) else 0 for w, v in values.items()}
    return [(word, value, round(100 * bounded[word], 1)) for word, value in values.items()]


def subscripts(part: str) -> list[tuple[str, str]]:
    """Splits ``x_k`` and ``x_{S}`` into text and the subscript that follows it.

    A word with an underscore, such as ``subset_gradient``, is none.

    Examples:
        >>> subscripts("log p(x_k | z_{l+1})")
        [('log p(x', 'k'), (' | z', 'l+1'), (')', '')]
    """
    pieces = [*re.split(r"_(\{[^{}]*\}|\w\b)", part), ""]
    return [(text, sub.strip("{}")) for text, sub in zip(pieces[::2], pieces[1::2], strict=True)]


def html(page: Mapping[str, Any]) -> str:
    """Writes a page as HTML; every word that comes from a run is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mmgen.gallery", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "amount": amount,
        "joined": joined,
        "per_cent": per_cent,
        "picture": picture,
        "spread": spread_of,
        "shares": shares,
        "subscripts": subscripts,
    }
    environment.globals |= {
        "place": place,
        "settled": SETTLED,
        "plot": {
            "width": WIDTH,
            "height": HEIGHT,
            "left": LEFT,
            "right": WIDTH - RIGHT,
            "top": TOP,
            "bottom": HEIGHT - BOTTOM,
        },
    }
    return environment.get_template("page.html.jinja").render(page=page)
