"""Parts of photographs: the middle square, or the square around the largest face."""

import threading
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmgen.errors import MmgenError
from mmgen.modality import Box

Crop = Literal["none", "center", "face"]
"""Which part of a photograph is seen: all of it, the largest square, or the largest face."""

AROUND, LARGE = 1.3, 0.4
"""The side of a face's square, in sides of what the detector finds; and the least height of that
square, in heights of the picture: Suzuki et al. (2018), section 4.5."""

SMALL, SURE = 0.06, 6
"""Of photographs that are no data: the least side of what is found, in shorter sides of the
photograph; and how many findings on top of each other make a face of one that is not large."""

LOOKED_AT = 1024
"""Pixels on the longer side at which faces are looked for."""

FINER = 12
"""How much larger than it will be a photograph is decoded of which a part is seen."""

_THREAD = threading.local()


def box(pixels: np.ndarray, crop: Crop, *, large: bool = False) -> Box | None:
    """Returns the part of an upright picture ``(H, W, C)`` uint8 to see; ``None`` without a face.

    Args:
        pixels: The picture.
        crop: Which part.
        large: Whether a face has to be large, and its square to lie within the picture, as in the
            paper's data. Otherwise, where there is none, smaller ones are looked for too, and the
            square is moved inside.

    Raises:
        MmgenError: If faces are looked for, and OpenCV is not installed.
    """
    height, width = pixels.shape[:2]
    if crop == "none":
        return 0, 0, width, height
    if crop == "face":
        return _face(pixels, large)
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def cut(pixels: np.ndarray, part: Box) -> np.ndarray:
    """Returns a part of a picture ``(H, W, C)``, without a copy."""
    left, top, right, bottom = part
    return pixels[top:bottom, left:right]


def resized(values: np.ndarray, height: int, width: int) -> Tensor:
    """Resizes uint8 ``(H', W', C)`` to uint8 ``(C, H, W)``, antialiased."""
    from torchvision.transforms.v2 import functional  # not before a picture is read: it is slow

    whole = torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1)
    if whole.shape[1:] == (height, width):
        return whole.contiguous()
    bicubic = functional.InterpolationMode.BICUBIC
    small: Tensor = functional.resize(whole, [height, width], bicubic, antialias=True)
    return small.contiguous()


def check_detector() -> None:
    """Checks that faces can be looked for.

    Raises:
        MmgenError: If OpenCV is not installed.
    """
    _detector()


def _face(pixels: np.ndarray, large: bool) -> Box | None:
    height, width, channels = pixels.shape
    # As OpenCV's own conversion weighs them: ITU-R BT.601.
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32) if channels == 3 else pixels[..., 0]
    grey = np.rint(grey).astype(np.uint8)
    found = _largest(grey, max(1, round(height * LARGE / AROUND) - 1), 3)
    if found is not None:
        left, top, side = found
        inside = min(left, top) >= 0 and left + side <= width and top + side <= height
        if inside and side > LARGE * height:
            return left, top, left + side, top + side
    if large:
        return None
    every = -(-max(height, width) // LOOKED_AT)
    smaller = np.ascontiguousarray(grey[::every, ::every])
    found = _largest(smaller, max(1, round(min(smaller.shape) * SMALL)), SURE)
    if found is None:
        return None
    left, top, side = (every * value for value in found)
    side = min(side, height, width)
    left, top = max(0, min(left, width - side)), max(0, min(top, height - side))
    return left, top, left + side, top + side


def _largest(grey: np.ndarray, least: int, findings: int) -> tuple[int, int, int] | None:
    """Returns left, top and side of the square around the largest face, if there is one."""
    found = _detector().detectMultiScale(
        grey, scaleFactor=1.1, minNeighbors=findings, minSize=(least, least)
    )
    if not len(found):
        return None
    x, y, w, h = (int(v) for v in max(found, key=lambda face: face[2] * face[3]))
    side = round(AROUND * max(w, h))
    return round(x + w / 2 - side / 2), round(y + h / 2 - side / 2), side


def _detector() -> Any:
    """Returns this thread's detector: one is not for several threads at a time."""
    if not hasattr(_THREAD, "detector"):
        try:
            import cv2

            cv2.setNumThreads(1)  # pictures are looked at side by side
            cascade = f"{cv2.data.haarcascades}haarcascade_frontalface_default.xml"  # type: ignore[attr-defined]
            _THREAD.detector = cv2.CascadeClassifier(cascade)
        except (ImportError, AttributeError):  # OpenCV 5 has no cascades
            raise MmgenError(
                'looking for faces needs OpenCV 4: pip install "mmgen-vae[faces]", or take '
                "another crop"
            ) from None
    return _THREAD.detector
