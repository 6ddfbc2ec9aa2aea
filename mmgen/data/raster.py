"""The one place that opens pictures: which formats, how large, and what their pixels mean.

A picture may come from anywhere, so what is opened is bounded before it is decoded: only formats
on a list, only regular files, only so many bytes and pixels. Others of Pillow's formats start
programs (EPS runs Ghostscript), whatever the name of the file says.
"""

import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {
    "PNG": "Png",  # of animations, the first frame, here and below
    "JPEG": "Jpeg",  # with the first picture of MPO, as phones write it
    "WEBP": "WebP",
    "AVIF": "Avif",
    "BMP": "Bmp",
    "GIF": "Gif",
    "TIFF": "Tiff",
    "PPM": "Ppm",  # PBM, PGM and PFM too
}
"""The formats that are opened, and Pillow's modules that read them: decoders and nothing else."""

MOST_PIXELS = 100_000_000
"""Pixels of one picture, and of all that are decoded at a time: under 2 GB, as WEBP needs most."""

MOST_BYTES = 2**28
"""Bytes of one picture file, and of all that are held at a time."""

LARGE = 2**22
"""Pixels above which a picture is averaged in squares before it is resized, to save memory."""


MOST_SCANS = 100
"""Scans of a progressive JPEG; programs write some ten."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd8]")


class _Budget:
    """What several threads may hold together; one that asks for more than is free waits."""

    def __init__(self, total: int) -> None:
        self._free, self._changed = total, Condition()

    @contextmanager
    def lend(self, amount: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


# Taken in this order, so that no two threads wait for each other.
_BYTES, _PIXELS = _Budget(MOST_BYTES), _Budget(MOST_PIXELS)


class _Quiet:
    """Silences Pillow's warnings while any thread reads a picture: what is wrong is an error."""

    def __init__(self) -> None:
        self._threads, self._changed = 0, Condition()
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._changed:
            self._threads += 1
            if self._threads == 1:  # filters belong to the process
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._threads -= 1
            if not self._threads:
                self._caught.__exit__(None, None, None)


_QUIET = _Quiet()


@contextmanager
def opened(path: str | Path) -> Iterator["Image"]:
    """Opens a picture file: size and mode are known, nothing is decoded yet.

    Raises:
        ValueError: If it is no picture of a format on the list, is damaged or too large, or if
            what is done with it raises for such a reason. The message names the file.
    """
    name = os.fspath(path)
    try:
        with _content(name) as content, _QUIET, _identified(content) as picture:
            check_size(picture)
            if picture.format in {"JPEG", "MPO"}:
                _check_scans(content.getvalue())
            yield picture
    except MemoryError:
        raise
    except _TooLargeError as error:
        raise ValueError(f"{name!r} {error}") from None
    except Exception as error:  # damaged files make decoders raise whatever they meet
        raise ValueError(f"{name!r} is no picture (PNG, JPEG, ...): {_cause(error)}") from None


def decoded(path: str | Path, channels: int, longest: int) -> np.ndarray:
    """Reads a picture file as :func:`pixels` does.

    Raises:
        ValueError: As :func:`opened`, and as :func:`pixels`.
    """
    with opened(path) as picture:
        whole = picture.width * picture.height
        # A JPEG is decoded at a fraction of its size, still twice as large as it will be.
        picture.draft("L" if channels == 1 else "RGB", (2 * longest, 2 * longest))
        held = picture.width * picture.height
        if picture.info.get("progressive"):  # all of it is held nevertheless
            held = whole
        elif picture.format == "AVIF":  # what is coded in it may be larger than it says
            held = MOST_PIXELS
        with _PIXELS.lend(held):
            return pixels(picture, channels, longest)


def check_size(picture: "Image") -> None:
    """Refuses more than :data:`MOST_PIXELS`.

    Raises:
        ValueError: With the numbers.
    """
    # A TIFF is decoded tile by tile, and a tile may be larger than the whole.
    tags = getattr(picture, "tag_v2", {})
    tile = [int(tags.get(tag) or 1) for tag in (322, 323)]
    for what, (width, height) in (("has", picture.size), ("has tiles of", tile)):
        if width * height > MOST_PIXELS:
            raise _TooLargeError(
                f"{what} {width:,} × {height:,} = {width * height:,} pixels, more than the "
                f"{MOST_PIXELS:,} that are read; make it smaller"
            )


def _check_scans(jpeg: bytes) -> None:
    """Refuses a JPEG of very many scans: each takes a pass over all pixels, and a few bytes."""
    if jpeg.count(b"\xff\xda") <= MOST_SCANS:
        return
    scans, at = 0, 2
    while (found := _MARKER.search(jpeg, at)) and found[0] != b"\xff\xd9":
        scans += found[0] == b"\xff\xda"
        if scans > MOST_SCANS:
            raise _TooLargeError(f"has more than {MOST_SCANS} scans; save it anew")
        at = found.end() + int.from_bytes(jpeg[found.end() : found.end() + 2], "big")


class _TooLargeError(ValueError):
    """What is said of a picture that could be read, but for its size."""


@contextmanager
def _content(name: str) -> Iterator[BytesIO]:
    # Neither waits for the writer of a pipe, nor becomes the terminal's process. What is open
    # cannot be exchanged any more, as what is under a name can.
    extra = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    with open(
        name, "rb", buffering=0, opener=lambda path, flags: os.open(path, flags | extra)
    ) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is a pipe or a device, not a file")
        if found.st_size > MOST_BYTES:
            raise _TooLargeError(
                f"has {found.st_size:,} bytes, more than the {MOST_BYTES:,} that are read"
            )
        with _BYTES.lend(found.st_size):
            # In memory: a file that is cut off while it is mapped would end the process.
            yield BytesIO(file.read(found.st_size) or b"")


def _identified(content: BytesIO) -> "Image":
    import PIL.Image

    modules = {name: f"PIL.{module}ImagePlugin" for name, module in FORMATS.items()}
    for module in modules.values():
        with suppress(ImportError):  # AVIF, in a Pillow that has none
            import_module(module)
    known = [name for name in FORMATS if name in PIL.Image.OPEN]
    try:
        return PIL.Image.open(content, formats=known)
    except PIL.UnidentifiedImageError:
        raise ValueError(f"its content is none of {', '.join(known)}") from None
    except PIL.Image.DecompressionBombError as error:
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        many = f"{int(pixels[1]):,}" if pixels else "too many"
        raise _TooLargeError(
            f"has {many} pixels, more than the {MOST_PIXELS:,} that are read; make it smaller"
        ) from None


def _cause(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    words = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return words[:200] or type(error).__name__


def upright_size(picture: "Image") -> tuple[int, int]:
    """Returns width and height as the picture stands when it is looked at."""
    from PIL import ExifTags

    turned = picture.format != "TIFF" and picture.getexif().get(ExifTags.Base.Orientation, 1)
    width, height = picture.size
    return (height, width) if turned in {5, 6, 7, 8} else (width, height)


def is_grey(picture: "Image") -> bool:
    """Tells whether a picture has no colours, by its mode."""
    return picture.mode in {"1", "L", "LA"} or picture.mode.startswith(("I", "F"))


def pixels(picture: "Image", channels: int, longest: int) -> np.ndarray:
    """Returns a picture's pixels as uint8 ``(H, W, C)``, grey or in colour, as it is looked at.

    It stands as its camera says (EXIF), transparent pixels are white, and 16 bits become 8.
    Floating-point numbers reach from 0, black, to 1, white.

    Args:
        picture: Opened or in memory; it is left as it is.
        channels: 1 is grey, 3 is colour.
        longest: About what its longer side becomes, in pixels: of a very large picture, the means
            of squares are returned, still at least twice as long.

    Raises:
        ValueError: If its numbers have no meaning as grey values.
    """
    import PIL.Image
    from PIL import ImageOps

    picture.load()
    flat = _eight_bits(picture)
    transparent = flat.has_transparency_data
    flat = flat.convert("RGBA" if transparent else "L" if channels == 1 else "RGB")
    times = min(flat.size) // (2 * longest)
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


def check_listed(picture: "Image") -> None:
    """Refuses a picture that was opened elsewhere and is of no format on the list, or too large.

    Raises:
        ValueError: Such a picture may not be decoded yet, and that may start a program.
    """
    if picture.format not in {None, "MPO", *FORMATS}:
        raise ValueError(
            f"a picture that was opened as {picture.format} is not read; if its file is yours, "
            'give picture.convert("RGB")'
        )
    check_size(picture)


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
    check_size(picture)
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
