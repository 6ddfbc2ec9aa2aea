"""Picture files: recognised by name, read and resized."""

import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmgen.data import pixels, raster
from mmgen.modality import Modality

LONGEST = 64
"""What the longer side of a picture becomes, in pixels, if nothing else is asked for."""

SEEN = 16
"""How many pictures are looked at before a table is read."""


def read_picture(path: str, shape: tuple[int, int, int]) -> Tensor:
    """Reads a picture file of any size as uint8 ``(C, H, W)``, antialiased.

    See :func:`mmgen.data.pixels.pixels` for what becomes of its pixels.

    Args:
        path: The file.
        shape: C (1 is grey, 3 is colour), H and W in pixels.

    Raises:
        ValueError: If it cannot be read as a picture, or is too large.
    """
    channels, height, width = shape
    return resized(pixels.decoded(path, channels, max(height, width)), shape)


def resized(values: np.ndarray, shape: tuple[int, int, int]) -> Tensor:
    """Resizes uint8 ``(H', W', C)`` to uint8 ``(C, H, W)``, antialiased."""
    from torchvision.transforms.v2 import functional  # not before a picture is read: it is slow

    whole = torch.from_numpy(values).permute(2, 0, 1)
    if whole.shape == shape:
        return whole.contiguous()
    bicubic = functional.InterpolationMode.BICUBIC
    fitted: Tensor = functional.resize(whole, [*shape[1:]], bicubic, antialias=True)
    return fitted.contiguous()


class PictureFiles(Modality):
    """A kind whose values are picture files: what tables need to know of it."""

    cells_are_paths: ClassVar[bool] = True
    stored_with: ClassVar[tuple[str, ...]] = ("channels", "height", "width")

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""

    def accept(self, value: Any) -> Tensor:
        """Takes a file name, a picture in memory, or an array of pixels, of any size.

        Pixels are whole numbers from 0 to 255, or other numbers from 0 to 1, as ``(H, W)``,
        ``(H, W, C)`` with one, three or four channels, or just :attr:`shape`.
        """
        if isinstance(value, str | PathLike):
            return self.parse(str(fspath(value)))
        wanted = self.shape[0], max(self.shape[1:])
        module = sys.modules.get("PIL.Image")  # who has a picture has imported it
        if module is not None and isinstance(value, module.Image):
            raster.check_listed(value)
            return resized(pixels.pixels(value, *wanted), self.shape)
        if not isinstance(value, np.ndarray | Tensor | list | tuple):
            raise ValueError(
                f"a {type(value).__name__} is no picture: give a file's name, a PIL picture or "
                "an array of pixels"
            )
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        if array.shape == self.shape:
            array = array.transpose(1, 2, 0)
        return resized(pixels.pixels(pixels.from_array(array), *wanted), self.shape)

    @classmethod
    def match_score(cls, cells: Sequence[str]) -> float:
        """Returns the share of cells that are names of picture files, by their suffix."""
        named = sum(Path(cell).suffix.lower() in raster.SUFFIXES for cell in cells)
        return named / max(1, len(cells))

    @classmethod
    def infer_settings(cls, columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Reads height and width off the first picture that can be read, channels off several.

        Returns:
            Settings for a net: the longer side at most :data:`LONGEST`, convolutions above 32
            pixels; nothing if no file can be read.
        """
        paths = list(chain(*columns.values()))
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
            return {}
        scale = min(1.0, LONGEST / max(size))
        width, height = (max(1, round(side * scale)) for side in size)
        large = max(width, height) > 32 and min(width, height) >= 4
        return {
            "channels": 1 if grey else 3,
            "height": height,
            "width": width,
            "net": "convolution" if large else "mlp",
            # Black or white by chance suits drawings; densities of grey values that grow without
            # bound near black and white outweigh all other modalities.
            "likelihood": "gaussian",
            "standard_deviation": 0.3,
        }
