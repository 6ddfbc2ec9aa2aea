"""Reads CelebA, or a part of it, in the layout in which it is handed out.

References:
    Z. Liu, P. Luo, X. Wang, X. Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
"""

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import finalize

import numpy as np
import torch
from torch import Tensor

from mmgen.data import crops, raster
from mmgen.errors import DataError, listed
from mmgen.files.reading import open_regular
from mmgen.seeding import generator

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES, ATTRIBUTES, PARTITION = (
    "img_align_celeba",
    "list_attr_celeba.txt",
    "list_eval_partition.txt",
)
SPLITS = ("train", "validation", "test")
"""The official partition's numbers 0, 1 and 2; no person is in two of them."""

TERMS = "For research that is not commercial only; not to be passed on."

CHUNK = 256
"""Pictures that are decoded at once."""

LONGEST_LINE = 10_000
"""The most letters of a line of an annotation file; there are 120."""

MOST_ATTRIBUTES = 1_000

LARGEST = 2**24
"""The most bytes of a picture in a zip file, of which eight may be unpacked at a time."""


class CelebA:
    """The pictures and attributes of a folder; what becomes of them is counted while they are read.

    Args:
        root: The folder with the pictures, as a folder or a zip file, and the annotations.
        crop: Which part of each picture is taken.
        size: Height and width in pixels of what is stored.

    Attributes:
        names: The attributes.
        rows: The attributes, one byte each, of every picture that is there, by its name.
        annotated: How many pictures have attributes, there or not.

    Raises:
        DataError: If a file is missing, or is not what it should be.
    """

    def __init__(self, root: Path, crop: crops.Crop, size: int) -> None:
        self.root, self.crop, self.size = root, crop, size
        self.faceless = 0
        self.damaged: list[str] = []
        folder, packed = root / PICTURES, root / f"{PICTURES}.zip"
        if folder.is_dir():
            self.zip: zipfile.ZipFile | None = None
            there = {entry.name for entry in os.scandir(folder)}
        elif packed.is_file():
            self.zip = _opened(packed)
            finalize(self, self.zip.fp.close)  # type: ignore[union-attr]
            within = f"{PICTURES}/"
            inside = (n for n in self.zip.namelist() if n.startswith(within))
            there = {name.removeprefix(within) for name in inside}
        else:
            raise DataError(f"{root}: there is neither {PICTURES}/ nor {PICTURES}.zip")
        self.names, self.rows, self.annotated = _attributes(root / ATTRIBUTES, there)
        if not self.rows:
            raise DataError(f"{root}: none of its pictures is in {ATTRIBUTES}")

    def official(self) -> dict[str, list[str]]:
        """Returns the pictures of each split by the official partition, in the order of names."""
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        path = self.root / PARTITION
        for number, line in _lines(path):
            words = line.split()
            if len(words) != 2 or words[1] not in {"0", "1", "2"}:
                raise DataError(f"{path}, line {number}: needs a picture and 0, 1 or 2")
            if words[0] in self.rows:
                splits[SPLITS[int(words[1])]].append(words[0])
        return {split: sorted(set(names)) for split, names in splits.items() if names}

    def drawn(self, counts: Mapping[str, int], seed: int) -> dict[str, list[str]]:
        """Returns splits drawn at random: so many rows of each, all others to train on.

        Raises:
            DataError: If no rows are left to train on.
        """
        names = sorted(self.rows)
        if sum(counts.values()) >= len(names):
            raise DataError(
                f"{self.root} has {len(names):,} pictures, so that {sum(counts.values()):,} to "
                "hold out leave none to train on"
            )
        order = torch.randperm(len(names), generator=generator("celeba", seed)).tolist()
        shuffled, splits = [names[i] for i in order], {}
        for split, count in counts.items():
            splits[split], shuffled = shuffled[:count], shuffled[count:]
        return {split: sorted(part) for split, part in {"train": shuffled, **splits}.items()}

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Yields the pictures of these names, and their attributes, that can be used."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            for start in range(0, len(names), CHUNK):
                part = names[start : start + CHUNK]
                read = [*zip(part, threads.map(self._read, part), strict=True)]
                kept = [(name, image) for name, image in read if isinstance(image, Tensor)]
                self.faceless += sum(image is None for _, image in read)
                self.damaged += [name for name, image in read if isinstance(image, ValueError)]
                if kept:
                    rows = b"".join(self.rows[name] for name, _ in kept)
                    on = torch.frombuffer(bytearray(rows), dtype=torch.uint8)
                    yield {
                        "image": torch.stack([image for _, image in kept]),
                        "attributes": on.reshape(len(kept), len(self.names)),
                    }

    def about(self) -> str:
        """Says what was found, and what was left out."""
        what = f"CelebA: {len(self.rows):,} of the {self.annotated:,} pictures that have attributes"
        told = [f"{what}, the {self.crop} of each, {self.size}×{self.size} pixels."]
        if self.faceless:
            told.append(f"{self.faceless:,} were left out: no face was found that is large enough.")
        if self.damaged:
            few = self.damaged[:3] + ["…"] * (len(self.damaged) > 3)
            told.append(f"{len(self.damaged):,} could not be read: {listed(few)}.")
        return " ".join([*told, TERMS])

    def _read(self, name: str) -> Tensor | ValueError | None:
        try:
            with self._content(name) as picture:
                picture.load()
                pixels = np.array(picture.convert("RGB"), np.uint8)
        except ValueError as error:
            return error
        part = crops.box(pixels, self.crop)
        if part is None:
            return None
        return crops.resized(crops.cut(pixels, part), self.size, self.size)

    def _content(self, name: str) -> AbstractContextManager["Image"]:
        if self.zip is None:
            return raster.opened(self.root / PICTURES / name)
        return raster.opened(name, partial(_member, self.zip, name))


def _member(packed: zipfile.ZipFile, name: str) -> bytes:
    info = packed.getinfo(f"{PICTURES}/{name}")
    if info.file_size > LARGEST:
        raise ValueError(f"has {info.file_size:,} bytes")
    with packed.open(info) as file:
        return file.read(info.file_size)


def _opened(path: Path) -> zipfile.ZipFile:
    """Opens a zip file, which does not close what it reads from."""
    with ExitStack() as opened:
        try:
            file = opened.enter_context(os.fdopen(open_regular(path), "rb"))
            packed = zipfile.ZipFile(file)
        except (ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
        opened.pop_all()
        return packed


def _attributes(path: Path, there: set[str]) -> tuple[list[str], dict[str, bytes], int]:
    """Reads the names of attributes; of each picture that is there, which it has; and how many."""
    lines = _lines(path)
    next(lines, None)  # how many pictures there are
    names = next(lines, (2, ""))[1].split()
    if not 0 < len(names) <= MOST_ATTRIBUTES or len({*names}) < len(names):
        raise DataError(f"{path}, line 2: needs the names of attributes, each once")
    rows, annotated = {}, 0
    for number, line in lines:
        name, *values = line.split()
        if len(values) != len(names) or {*values} - {"1", "-1"}:
            raise DataError(
                f"{path}, line {number}: needs a picture and 1 or -1 for each of "
                f"{len(names)} attributes"
            )
        annotated += 1
        if name in there:
            rows[name] = bytes(value == "1" for value in values)
    return names, rows, annotated


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a text that are not empty, and their numbers."""
    try:
        file = os.fdopen(open_regular(path), "rb")
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    with file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise DataError(f"{path}, line {number}: is longer than an annotation")
            if text := line.decode("utf-8", "replace").strip():
                yield number, text
