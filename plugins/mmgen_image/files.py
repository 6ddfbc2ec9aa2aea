"""Pictures as people have them: files, PIL pictures, arrays of pixels; read and resized."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import Tensor

from mmgen.data import crops, pixels, raster
from mmgen.errors import listed
from mmgen.modality import Box

LONGEST = 64
"""The longer side of stored pictures in pixels, at most, if nothing else is asked for."""

SEEN = 16
"""The most pictures that are opened to infer settings."""


def read_picture(path: str, shape: tuple[int, int, int], crop: crops.Crop = "none") -> Tensor:
    """Reads a picture file of any size as uint8 ``(C, H, W)``, antialiased.

    See :func:`mmgen.data.pixels.pixels` for what becomes of its pixels.

    Args:
        path: The file.
        shape: C (1 is grey, 3 is colour), H and W in pixels.
        crop: Which part of it is seen; of one that has this size already, all.

    Raises:
        ValueError: If it cannot be read as a picture, is too large, or has no face to crop.
    """
    channels, height, width = shape
    longest = max(height, width) * (1 if crop == "none" else crops.FINER)
    return _fitted(pixels.decoded(path, channels, longest), shape, crop, repr(path))


def from_memory(value: Any, shape: tuple[int, int, int], crop: crops.Crop = "none") -> Tensor:
    """Turns a picture in memory, of any size, into uint8 ``(C, H, W)``.

    Args:
        value: A PIL picture, or an array of pixels ``(H', W')``, ``(H', W', C')`` with one, three
            or four channels, or just ``(C, H, W)``: whole numbers from 0 to 255, or other numbers
            from 0 to 1.
        shape: C (1 is grey, 3 is colour), H and W in pixels.
        crop: Which part of it is seen; of one that has this size already, all.

    Raises:
        ValueError: If it is no picture, its numbers are out of range, or it has no face to crop.
    """
    wanted = shape[0], max(shape[1:]) * (1 if crop == "none" else crops.FINER)
    module = sys.modules.get("PIL.Image")  # who has a picture has imported it
    if module is not None and isinstance(value, module.Image):
        raster.check_listed(value)
        return _fitted(pixels.pixels(value, *wanted), shape, crop, "the picture")
    if not isinstance(value, np.ndarray | Tensor | list | tuple):
        raise ValueError(
            f"a {type(value).__name__} is no picture: give a file's name, a PIL picture or "
            "an array of pixels"
        )
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if array.shape == shape:
        array = array.transpose(1, 2, 0)
    return _fitted(pixels.pixels(pixels.from_array(array), *wanted), shape, crop, "the picture")


def located(values: np.ndarray, shape: tuple[int, int, int], crop: str) -> tuple[Tensor, Box]:
    """Returns uint8 ``(C, H, W)`` of a photograph ``(H', W', 3)``, and the part that it shows.

    Raises:
        ValueError: If it has no face to crop, or there is no such crop.
    """
    words: tuple[crops.Crop, ...] = get_args(crops.Crop)
    if crop not in words:
        raise ValueError(f"no crop {crop!r}: there are {listed(words)}")
    part = _part(values, shape, crop, "the photograph")
    seen = crops.cut(values, part)
    if shape[0] == 1:
        seen = pixels.pixels(pixels.from_array(seen), 1, max(shape[1:]))
    return crops.resized(seen, *shape[1:]), part


def _fitted(values: np.ndarray, shape: tuple[int, int, int], crop: crops.Crop, name: str) -> Tensor:
    """Crops uint8 ``(H', W', C)``, unless it has the shape already, and resizes it."""
    return crops.resized(crops.cut(values, _part(values, shape, crop, name)), *shape[1:])


def _part(values: np.ndarray, shape: tuple[int, int, int], crop: crops.Crop, name: str) -> Box:
    """Returns the part of a picture that is seen: all of it if it has the shape already."""
    whole = values.shape[:2] == shape[1:]
    part = crops.box(values, "none" if whole else crop)
    if part is None:
        raise ValueError(
            f"no face is found in {name} that lies inside it and is large enough; cut it out "
            "by hand, or take another crop"
        )
    return part


def column_score(cells: Sequence[str]) -> float:
    """Returns the share of cells that are names of picture files, by their suffix."""
    named = sum(Path(cell).suffix.lower() in raster.SUFFIXES for cell in cells)
    return named / max(1, len(cells))


def infer_shape(paths: Sequence[str]) -> tuple[int, int, int] | None:
    """Returns a shape ``(C, H, W)`` for picture files, with sides of at most :data:`LONGEST`.

    Height and width are those of the first file that can be read; C is 1 if some from the whole
    list are all grey, else 3. ``None`` if no file can be read.
    """
    size: tuple[int, int] | None = None
    grey = True
    for number, path in enumerate(paths):
        # Until one can be read; then a few from the whole column.
        if size is not None and number % (1 + len(paths) // SEEN):
            continue
        # Whatever is wrong with it: another file will do.
        with suppress(ValueError), raster.opened(path) as file:
            size = size or pixels.upright_size(file)
            grey = grey and pixels.is_grey(file)
    if size is None:
        return None
    scale = min(1.0, LONGEST / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    return 1 if grey else 3, height, width
