"""Reads CelebA, or a part of it, in the layout in which it is handed out.

References:
    Z. Liu, P. Luo, X. Wang, X. Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
"""

import io
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from mmgen.data import crops, pixels
from mmgen.errors import DataError, listed
from mmgen.files.reading import open_regular
from mmgen.seeding import generator

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

DIRECTORY = 2**25
"""The most bytes of a zip file's list of members, which is read whole; CelebA's takes 20 MB."""

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
        self.members: dict[str, zipfile.ZipInfo] = {}
        folder, packed = root / PICTURES, root / f"{PICTURES}.zip"
        if folder.is_dir():
            self.zip: Path | None = None
            there = {entry.name for entry in os.scandir(folder)}
        elif packed.is_file():
            self.zip = packed
            with _opened(packed) as file:
                self.members = _pictures(file)
            there = {*self.members}
        else:
            raise DataError(
                f"{root}: there is neither {PICTURES}/ nor {PICTURES}.zip; name the folder that "
                f"holds it, {ATTRIBUTES} and {PARTITION}, as they are handed out"
            )
        self.names, self.rows, self.annotated = _attributes(root / ATTRIBUTES, there)
        if not self.rows:
            raise DataError(f"{root}: none of its pictures is in {ATTRIBUTES}")

    def official(self) -> dict[str, list[str]]:
        """Returns the pictures of each split by the official partition, in the order of names."""
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        left = {*self.rows}
        path = self.root / PARTITION
        for number, line in _lines(path):
            words = line.split()
            if len(words) != 2 or words[1] not in {"0", "1", "2"}:
                raise DataError(f"{path}, line {number}: needs a picture and 0, 1 or 2")
            if words[0] in left:
                left.remove(words[0])
                splits[SPLITS[int(words[1])]].append(words[0])
        if left:
            raise DataError(
                f"{path}: has no line for {len(left):,} of the pictures, such as {min(left)}; "
                "use the file that was handed out with them, or --split random"
            )
        if not splits["train"]:
            raise DataError(f"{path}: none of the pictures is one to train on; use --split random")
        return {split: sorted(names) for split, names in splits.items() if names}

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
        """Yields the pictures of these names, and their attributes, that can be used.

        Raises:
            DataError: If none of them can.
        """
        used = 0
        with ExitStack() as opened:
            packed = None if self.zip is None else opened.enter_context(_opened(self.zip))
            threads = opened.enter_context(ThreadPoolExecutor(min(8, os.cpu_count() or 1)))
            for start in range(0, len(names), CHUNK):
                part = names[start : start + CHUNK]
                read = [*zip(part, threads.map(partial(self._read, packed), part), strict=True)]
                kept = [(name, image) for name, image in read if isinstance(image, Tensor)]
                self.faceless += sum(image is None for _, image in read)
                self.damaged += [name for name, image in read if isinstance(image, ValueError)]
                used += len(kept)
                if kept:
                    rows = b"".join(self.rows[name] for name, _ in kept)
                    on = torch.frombuffer(bytearray(rows), dtype=torch.uint8)
                    yield {
                        "image": torch.stack([image for _, image in kept]),
                        "attributes": on.reshape(len(kept), len(self.names)),
                    }
        if not used:
            why = f"{read[0][1]}" if read[0][1] is not None else "no face is found in any of them"
            raise DataError(f"{self.root}: none of {len(names):,} pictures can be used: {why}")

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

    def _read(self, packed: zipfile.ZipFile | None, name: str) -> Tensor | ValueError | None:
        content = None if packed is None else partial(_member, packed, self.members[name])
        try:  # as a photograph is read that a user gives
            whole = pixels.decoded(self.root / PICTURES / name, 3, crops.FINER * self.size, content)
        except ValueError as error:
            return error
        part = crops.box(whole, self.crop, large=True)
        if part is None:
            return None
        return crops.resized(crops.cut(whole, part), self.size, self.size)


class _Limited(io.BufferedReader):
    """A file of which nothing large is read at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        whole = size is None or size < 0
        content = super().read(DIRECTORY + 1 if whole else min(size or 0, DIRECTORY + 1))
        if len(content) > DIRECTORY:
            raise zipfile.BadZipFile(f"its list of members has more than {DIRECTORY:,} bytes")
        return content


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with ExitStack() as held:
        try:
            file = held.enter_context(_Limited(io.FileIO(open_regular(path))))
            packed = held.enter_context(zipfile.ZipFile(file))
        except Exception as error:  # damaged ones make it raise whatever it meets
            raise DataError(f"{path}: is no zip file that can be read: {error}") from None
        yield packed


def _pictures(packed: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Returns the pictures of a zip file by name, without their folder; nothing is unpacked."""
    found = {PurePosixPath(info.filename): info for info in packed.infolist()}
    within = (PurePosixPath(PICTURES), PurePosixPath())
    return {path.name: info for path, info in found.items() if path.parent in within}


def _member(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("is neither stored nor deflated")  # others unpack without a bound
    if info.file_size > LARGEST:
        raise ValueError(f"has {info.file_size:,} bytes, more than the {LARGEST:,} that are read")
    with packed.open(info) as file:
        return file.read(info.file_size)


def _attributes(path: Path, there: set[str]) -> tuple[list[str], dict[str, bytes], int]:
    """Reads the names of attributes; of each picture that is there, which it has; and how many."""
    lines = _lines(path)
    _, said = next(lines, (1, ""))
    if not said.isdecimal() or len(said) > 12:
        raise DataError(f"{path}, line 1: needs the number of pictures")
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
    if annotated != int(said):
        raise DataError(
            f"{path}: has {annotated:,} pictures, but line 1 says {int(said):,}; fetch it again"
        )
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
