"""Opens picture files, within limits of format and size. Nothing else in mmgen opens them.

A picture may come from anywhere, so it is checked before it is decoded: only formats on a list,
only regular files, only so many bytes and pixels. Some of Pillow's other formats start programs
(EPS runs Ghostscript), whatever the file is called.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING

from mmgen.files.reading import open_regular

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
"""The formats that are opened, and Pillow's modules that read them: these only decode."""

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif"),
    *(".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)
"""The suffixes of picture files."""

MOST_PIXELS = 100_000_000
"""The most pixels of one picture, and of all decoded at a time: under 2 GB, as WEBP needs most."""

MOST_BYTES = 2**28
"""The most bytes of one picture file, and of all that are held at a time."""

MOST_IN_TILE = 2**24
"""The most pixels of a TIFF's tile, which is decoded whole, however small the picture."""

MOST_SCANS = 100
"""The most scans of a progressive JPEG; programs write some ten."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd8]")


class _Budget:
    """An amount that several threads share; one that asks for more than is free waits."""

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
    """Silences Pillow's warnings while any thread reads a picture: faults are raised as errors."""

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
def opened(path: str | Path, content: Callable[[], bytes] | None = None) -> Iterator["Image"]:
    """Opens a picture file: size and mode are known, nothing is decoded yet.

    Args:
        path: The file.
        content: Reads it where it is no file by itself, but in an archive; ``path`` is then its
            name in messages.

    Raises:
        ValueError: If it is no picture of a format on the list, is damaged or too large, or if
            what is done with it raises for such a reason. The message names the file.
    """
    name = os.fspath(path)
    try:
        with _content(name, content) as held, _QUIET, _identified(held) as picture:
            check_size(picture)
            if picture.format in {"JPEG", "MPO"}:
                _check_scans(held.getvalue())
            yield picture
    except MemoryError:
        raise
    except _TooLargeError as error:
        raise ValueError(f"{name!r} {error}") from None
    except Exception as error:  # damaged files make decoders raise whatever they meet
        raise ValueError(f"{name!r} is no picture (PNG, JPEG, ...): {_cause(error)}") from None


@contextmanager
def room(picture: "Image", whole: int) -> Iterator[None]:
    """Waits until there is memory for the pixels of one more picture, and keeps it.

    Args:
        picture: Opened, and maybe asked for a fraction of its size.
        whole: Its pixels before that.
    """
    held = picture.width * picture.height
    if picture.info.get("progressive"):  # all of a JPEG is held nevertheless
        held = whole
    elif picture.format == "AVIF":  # the coded frame may be larger than the declared size
        held = MOST_PIXELS
    with _PIXELS.lend(held):
        yield


def check_size(picture: "Image") -> None:
    """Refuses more pixels than :data:`MOST_PIXELS`, or tiles of more than :data:`MOST_IN_TILE`.

    Raises:
        ValueError: With the numbers.
    """
    tags = getattr(picture, "tag_v2", {})
    tile = (int(tags.get(322) or 1), int(tags.get(323) or 1))
    for what, (width, height), most in (
        ("has", picture.size, MOST_PIXELS),
        ("has tiles of", tile, MOST_IN_TILE),
    ):
        if width * height > most:
            raise _TooLargeError(
                f"{what} {width:,} × {height:,} = {width * height:,} pixels, more than the "
                f"{most:,} that are read; make it smaller"
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
    """A picture that could be read, but for its size."""


@contextmanager
def _content(name: str, read: Callable[[], bytes] | None) -> Iterator[BytesIO]:
    if read is not None:
        yield BytesIO(read())
        return
    with os.fdopen(open_regular(Path(name)), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise _TooLargeError(f"has {size:,} bytes, more than the {MOST_BYTES:,} that are read")
        with _BYTES.lend(size):
            # In memory: a file that is cut off while it is mapped would end the process.
            yield BytesIO(file.read(size) or b"")


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
    words = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return words[:200] or type(error).__name__


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
