"""Picture files: recognised by name, read, made grey or coloured, and resized."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from torch import Tensor

from mmgen.modality import Modality

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif"),
    *(".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)
"""Of the names of picture files."""

LONGEST = 64
"""What the longer side of a picture becomes, in pixels, if nothing else is asked for."""

SEEN = 16
"""How many pictures are looked at before a table is read."""


def read_picture(path: str, shape: tuple[int, int, int]) -> Tensor:
    """Reads a picture file of any size as uint8 ``(C, H, W)``, antialiased.

    It stands as its camera says (EXIF), transparent pixels are white, and 16 bits become 8.

    Args:
        path: The file.
        shape: C (1 is grey, 3 is colour), H and W in pixels.

    Raises:
        ValueError: If it cannot be read as a picture.
    """
    from torchvision.transforms.v2 import functional  # not before a picture is read: it is slow

    channels, height, width = shape
    try:
        with PIL.Image.open(path) as file:
            # A JPEG is decoded at a fraction of its size, still twice as large as it will be.
            file.draft("L" if channels == 1 else "RGB", (2 * width, 2 * height))
            picture = _plain(PIL.ImageOps.exif_transpose(file), channels)
    except MemoryError:
        raise
    except Exception as error:  # damaged files make decoders raise whatever they meet
        raise ValueError(f"{path!r} is no picture (PNG, JPEG, ...): {_cause(error)}") from None
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    whole = pixels.view(picture.height, picture.width, channels).permute(2, 0, 1)
    if whole.shape[1:] == (height, width):
        return whole.contiguous()
    bicubic = functional.InterpolationMode.BICUBIC
    resized: Tensor = functional.resize(whole, [height, width], bicubic, antialias=True)
    return resized.contiguous()


class PictureFiles(Modality):
    """A kind whose values are picture files: what tables need to know of it."""

    reads_files: ClassVar[bool] = True
    stored_with: ClassVar[tuple[str, ...]] = ("channels", "height", "width")

    @classmethod
    def suits(cls, cells: Sequence[str]) -> float:
        """Returns the share of cells that are names of picture files, by their suffix."""
        return sum(Path(cell).suffix.lower() in SUFFIXES for cell in cells) / max(1, len(cells))

    @classmethod
    def settings_of(cls, columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Reads height and width off the first picture that can be read, channels off several.

        Returns:
            Settings for a net: the longer side at most :data:`LONGEST`, convolutions above 32
            pixels; nothing if no file can be read.
        """
        paths = list(chain(*columns.values()))
        seen: list[PIL.Image.Image] = []
        for number, path in enumerate(paths):
            # Until one can be read; then a few from the whole column.
            if seen and number % (1 + len(paths) // SEEN):
                continue
            try:
                with PIL.Image.open(path) as file:
                    seen.append(file if seen else PIL.ImageOps.exif_transpose(file))
            except Exception:  # whatever is wrong with it: another file will do
                continue
        if not seen:
            return {}
        scale = min(1.0, LONGEST / max(seen[0].size))
        width, height = (max(1, round(side * scale)) for side in seen[0].size)
        large = max(width, height) > 32 and min(width, height) >= 4
        return {
            "channels": 1 if all(map(_grey, seen)) else 3,
            "height": height,
            "width": width,
            "net": "convolution" if large else "mlp",
            # Black or white by chance suits drawings; densities of grey values that grow without
            # bound near black and white outweigh all other modalities.
            "likelihood": "gaussian",
            "standard_deviation": 0.3,
        }


def _grey(picture: PIL.Image.Image) -> bool:
    return picture.mode in {"1", "L", "LA"} or picture.mode.startswith(("I", "F"))


def _plain(picture: PIL.Image.Image, channels: int) -> PIL.Image.Image:
    if picture.mode.startswith("I"):  # 16 bits, which PIL would cut off at 255
        high = np.asarray(picture).astype(np.int64) >> 8
        picture = PIL.Image.fromarray(high.clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = PIL.Image.new("RGBA", picture.size, "white")
        picture = PIL.Image.alpha_composite(ground, picture)
    return picture.convert("L" if channels == 1 else "RGB")


def _cause(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PIL.UnidentifiedImageError):
        return "its content is of no known format"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
