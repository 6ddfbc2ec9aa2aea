"""Turns decoded pictures of any mode into the 8-bit grey values or colours that people see."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmgen.data import raster

if TYPE_CHECKING:
    from PIL.Image import Image

LARGE = 2**22
"""Pixels above which a picture is averaged in squares before it is resized, to save memory."""


def decoded(
    path: str | Path, channels: int, longest: int, content: Callable[[], bytes] | None = None
) -> np.ndarray:
    """Reads a picture file, or one in an archive by ``content``, as :func:`pixels` does.

    Raises:
        ValueError: If it cannot be read as a picture, or is too large. The message names the file.
    """
    with raster.opened(path, content) as picture:
        whole = picture.width * picture.height
        # A JPEG is decoded at a fraction of its size, still twice as large as it will be.
        picture.draft("L" if channels == 1 else "RGB", (2 * longest, 2 * longest))
        with raster.room(picture, whole):
            return pixels(picture, channels, longest)


def upright_size(picture: "Image") -> tuple[int, int]:
    """Returns width and height of the picture when it is upright (EXIF)."""
    from PIL import ExifTags

    turned = picture.format != "TIFF" and picture.getexif().get(ExifTags.Base.Orientation, 1)
    width, height = picture.size
    return (height, width) if turned in {5, 6, 7, 8} else (width, height)


def is_grey(picture: "Image") -> bool:
    """Returns whether a picture has no colours, by its mode."""
    return picture.mode in {"1", "L", "LA"} or picture.mode.startswith(("I", "F"))


def pixels(picture: "Image", channels: int, longest: int) -> np.ndarray:
    """Returns a picture's pixels as uint8 ``(H, W, C)``, grey or in colour, as people see it.

    It is turned upright (EXIF), transparent pixels are white, and 16 bits become 8.
    Floating-point numbers reach from 0, black, to 1, white.

    Args:
        picture: Opened or in memory; it is left as it is.
        channels: 1 is grey, 3 is colour.
        longest: The longer side that it is to have in the end, in pixels. A very large picture is
            averaged in squares, down to sides of at least four times that.

    Raises:
        ValueError: If its numbers have no meaning as grey values.
    """
    import PIL.Image
    from PIL import ImageOps

    picture.load()
    flat = _eight_bits(picture)
    transparent = flat.has_transparency_data
    flat = flat.convert("RGBA" if transparent else "L" if channels == 1 else "RGB")
    times = min(flat.size) // (4 * longest)
    if flat.width * flat.height > LARGE and times > 1:
        # Colours of transparent pixels count for nothing: "RGBa" is multiplied with the alpha.
        flat = (
            flat.convert("RGBa").reduce(times).convert("RGBA")
            if transparent
            else (flat.reduce(times))
        )
    if transparent:
        ground = PIL.Image.new("RGBA", flat.size, "white")
        ground.alpha_composite(flat)
        ground.info = flat.info
        flat = ground.convert("L" if channels == 1 else "RGB")
    ImageOps.exif_transpose(flat, in_place=True)
    return np.array(flat, np.uint8).reshape(flat.height, flat.width, channels)


def from_array(values: np.ndarray) -> "Image":
    """Makes a picture of pixels ``(H, W)`` or ``(H, W, C)`` with 1, 3 or 4 channels.

    Raises:
        ValueError: If they are not whole numbers from 0 to 255, or others from 0 to 1.
    """
    import PIL.Image

    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in {2, 3} or (values.ndim == 3 and values.shape[2] not in {3, 4}):
        raise ValueError(f"pixels are (H, W) or (H, W, C), with C of 1, 3 or 4: not {values.shape}")
    if values.dtype.kind not in "buif" or not values.size:
        raise ValueError("pixels are numbers, at least one of them")
    whole = values.dtype.kind in "ui"
    low, high, most = values.min(), values.max(), 255 if whole else 1
    if not (low >= 0 and high <= most):
        raise ValueError(
            f"pixels reach from {low:,} to {high:,}: whole ones are 0 to 255, others 0 to 1"
        )
    if not whole:
        values = np.rint(255 * values.astype(np.float32))
    picture = PIL.Image.fromarray(np.ascontiguousarray(values.astype(np.uint8)))
    raster.check_size(picture)
    return picture


def _eight_bits(picture: "Image") -> "Image":
    """Returns a picture whose mode Pillow converts as people expect; most are that already."""
    import PIL.Image

    if picture.mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, *profiles, outputMode="RGB")
        return converted if converted is not None else picture
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture)
    low, high = values.min(), values.max()
    whole = picture.mode.startswith("I")
    most = 65_535 if whole else 1
    if not (low >= 0 and high <= most):  # not a number: neither
        raise ValueError(
            f"its numbers reach from {low:,} to {high:,}, not from 0, black, to {most:,}, white"
        )
    eight = (values >> 8 if whole else np.rint(255 * values)).astype(np.uint8)
    grey = PIL.Image.fromarray(eight)
    grey.info = {key: value for key, value in picture.info.items() if key == "exif"}
    return grey
