"""Measures attributes of pictures of one light shape on black, such as digits.

A data set of labelled pictures becomes one of three modalities: the attributes are functions of the
pictures, so whether a generated picture has the attributes asked for can be measured again.

All measures take pictures ``(B, 1, H, W)`` or ``(B, H, W)``, uint8 in [0, 255] or floating point in
[0, 1], light ink on a dark ground, from any device, and return ``(B,)`` float32 on the CPU.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

INK = 0.5
"""The least value of a pixel that counts as ink, where a measure needs a yes or no."""

_CHUNK = 4_000  # pictures measured at once: tens of megabytes, and few calls


def stroke_width(pictures: Tensor) -> Tensor:
    """Returns the strokes' mean width in pixels: twice the ink's area over its outline's length.

    A bar of length l and width w has area l·w and an outline of 2(l + w): 2·l·w / 2(l + w) is w for
    a long bar. The outline's length is the total variation Σ |∇x|, which by the co-area formula is
    the mean length over all levels, so grey edges and diagonals need no threshold.
    """
    x = _grey(pictures)
    padded = F.pad(x, (1, 1, 1, 1))
    down = padded[:, 1:, :-1] - padded[:, :-1, :-1]
    right = padded[:, :-1, 1:] - padded[:, :-1, :-1]
    outline = (down.square() + right.square()).sqrt().sum(dim=(1, 2))
    return 2 * x.sum(dim=(1, 2)) / outline.clamp(min=1)


def slant(pictures: Tensor) -> Tensor:
    """Returns the lean to the right, in pixels to the side per pixel up: −μ₁₁ / μ₀₂.

    μ are the central moments of the grey values with rows counted downwards: the shear that makes
    columns and rows uncorrelated. 0 is upright, 1 is 45°.
    """
    x = _grey(pictures)
    height, width = x.shape[1:]
    rows, columns = torch.arange(height, dtype=x.dtype), torch.arange(width, dtype=x.dtype)
    mass = x.sum(dim=(1, 2)).clamp(min=1e-6)
    v = rows - (x.sum(dim=2) @ rows / mass)[:, None]
    u = columns - (x.sum(dim=1) @ columns / mass)[:, None]
    mixed = torch.einsum("bhw,bh,bw->b", x, v, u)
    vertical = torch.einsum("bhw,bh->b", x, v.square())
    return -mixed / vertical.clamp(min=1e-6)


def aspect(pictures: Tensor) -> Tensor:
    """Returns width over height of the smallest upright box around the ink; 0 without ink."""
    ink = _ink(pictures)
    return _extent(ink.any(dim=1)) / _extent(ink.any(dim=2)).clamp(min=1)


def hole_area(pictures: Tensor) -> Tensor:
    """Returns the area that ink encloses, in pixels: what steps to the four sides cannot leave."""
    padded = F.pad(~_ink(pictures), (1, 1, 1, 1), value=True)
    # Pictures last: a line of pixels is then one block of memory over all pictures. The steps are
    # too small to be worth the threads that torch would start for each.
    ground = np.ascontiguousarray(padded.permute(1, 2, 0).numpy())
    reached = np.zeros_like(ground)
    reached[0, 0] = True
    before = -1
    while (now := int(np.count_nonzero(reached))) != before:
        before = now
        _sweep(reached, ground)
        _sweep(reached.swapaxes(0, 1), ground.swapaxes(0, 1))
    return torch.from_numpy(np.count_nonzero(ground & ~reached, axis=(0, 1))).float()


def balance(pictures: Tensor) -> Tensor:
    """Returns how far the ink's mean is above the middle of the box around the ink.

    In heights of that box, from −0.5 (all at the bottom) to 0.5 (all at the top); 0 without ink.
    """
    ink = _ink(pictures)
    lines = ink.any(dim=2)
    number = torch.arange(ink.shape[1], dtype=torch.float32)
    top = lines.float().argmax(dim=1)
    height = _extent(lines)
    weight = ink.sum(dim=2).float()
    mean = weight @ number / weight.sum(dim=1).clamp(min=1)
    above = (top + (height - 1) / 2 - mean) / height.clamp(min=1)
    return torch.where(height > 0, above, 0.0)


def _grey(pictures: Tensor) -> Tensor:
    flat = pictures.detach().cpu().reshape(-1, *pictures.shape[-2:])
    return flat.float() if flat.is_floating_point() else flat.float() / 255


def _ink(pictures: Tensor) -> Tensor:
    return _grey(pictures) >= INK


def _sweep(reached: NDArray[np.bool_], ground: NDArray[np.bool_]) -> None:
    """Floods ``ground`` from what is ``reached``, line by line, forth and back."""
    for line in range(1, len(ground)):
        reached[line] |= reached[line - 1] & ground[line]
    for line in range(len(ground) - 2, -1, -1):
        reached[line] |= reached[line + 1] & ground[line]


def _extent(lines: Tensor) -> Tensor:
    first = lines.float().argmax(dim=1)
    last = lines.shape[1] - 1 - lines.flip(1).float().argmax(dim=1)
    return torch.where(lines.any(dim=1), last - first + 1, 0).float()


THRESHOLDS: Mapping[str, tuple[Callable[[Tensor], Tensor], float]] = MappingProxyType(
    {
        "thick": (stroke_width, 2.5),
        "slanted": (slant, 0.2),
        "wide": (aspect, 0.8),
        "loop": (hole_area, 3.0),
        "top_heavy": (balance, 0.05),
    }
)
"""Each attribute's measure, and the least value of a picture that has the attribute.

Chosen on MNIST so that an attribute can be seen and none is rare (in brackets, the share of the
60,000 training pictures that have it):

- ``thick``: 2.5 pixels, a little above the median of 2.4 (41 %).
- ``slanted``: 0.2, which is 11° to the right, about the slope of an italic typeface (36 %).
- ``wide``: four fifths of the height; the median is three quarters (47 %).
- ``loop``: 3 enclosed pixels, as 1 or 2 are gaps of a blotted stroke (38 %).
- ``top_heavy``: a twentieth of the height, one pixel of a digit's twenty (25 %).
"""

ATTRIBUTES = tuple(THRESHOLDS)
"""The names of the measured attributes, in the order of the columns of :func:`measured`."""


def measured(pictures: Tensor) -> Tensor:
    """Measures all of :data:`ATTRIBUTES` of ``pictures``: ``(B, 5)`` uint8, 0 or 1."""
    columns = [
        torch.stack([measure(part) >= least for measure, least in THRESHOLDS.values()], dim=1)
        for part in pictures.split(_CHUNK)
    ]
    return torch.cat(columns).to(torch.uint8)
