"""Reads MNIST and sets of the same form through torchvision, with measured attributes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets

from mmgen.data.sources.measure import ATTRIBUTES, measured
from mmgen.errors import DataError, listed, nearest
from mmgen.seeding import generator

SOURCES: dict[str, Any] = {
    "mnist": datasets.MNIST,
    "fashion-mnist": datasets.FashionMNIST,
    "kmnist": datasets.KMNIST,
}
"""The sets that can be read: 28×28 grey pictures of ten classes, 60,000 and 10,000 to test."""


def idx_dataset(
    name: str,
    root: Path,
    *,
    download: bool = False,
    validation: int = 10_000,
    seed: int | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Tensor]]]:
    """Reads a set of MNIST's form as three modalities.

    Args:
        name: One of :data:`SOURCES`.
        root: The folder that torchvision calls root; it holds ``MNIST/raw`` or the like.
        download: Let torchvision fetch the set into ``root`` if it is not there.
        validation: Rows of the training set that become the split ``validation``.
        seed: The seed of the permutation whose last rows become ``validation``. ``None``, as
            is the custom, takes the last rows in the stored order.

    Returns:
        The modalities' configurations, and by split (``train``, ``validation``, ``test``) and name
        the stored values: ``image`` ``(count, 1, 28, 28)`` uint8, ``label`` ``(count,)`` uint8
        class numbers, ``attributes`` ``(count, 5)`` uint8 as :mod:`mmgen.data.sources.measure`
        defines them. Their thresholds are made for digits.

    Raises:
        DataError: If the name is unknown, the set is not in ``root`` or cannot be read, or
            ``validation`` leaves no rows to train on.
    """
    if name not in SOURCES:
        raise DataError(f"no set {name!r}{nearest(name, SOURCES)}; there are {listed(SOURCES)}")
    source = SOURCES[name]
    pictures, labels = read_idx(name, root, train=True, download=download)
    if not 0 < validation < len(pictures):
        raise DataError(
            f"{name} has {len(pictures)} rows to train on; validation={validation} is not a part"
        )
    order = torch.arange(len(pictures))
    if seed is not None:
        order = torch.randperm(len(pictures), generator=generator(seed, name))
    parts = {"train": order[:-validation], "validation": order[-validation:]}
    splits = {split: _values(pictures[rows], labels[rows]) for split, rows in parts.items()}
    splits["test"] = _values(*read_idx(name, root, train=False, download=download))
    height, width = pictures.shape[1:]
    modalities: dict[str, dict[str, Any]] = {
        "image": {"kind": "image", "channels": 1, "height": height, "width": width},
        # MNIST's names are "0 - zero" ...: the digit is what a user types.
        "label": {"kind": "label", "classes": [word.split(" - ")[0] for word in source.classes]},
        "attributes": {"kind": "attributes", "names": list(ATTRIBUTES)},
    }
    return modalities, splits


def read_idx(name: str, root: Path, *, train: bool, download: bool) -> tuple[Tensor, Tensor]:
    """Reads the pictures ``(count, 28, 28)`` uint8 and class numbers ``(count,)`` of a set.

    Args:
        name: One of :data:`SOURCES`.
        root: The folder that torchvision calls root.
        train: Whether the 60,000 to train on, or the 10,000 to test.
        download: Let torchvision fetch the set into ``root`` if it is not there.

    Raises:
        DataError: If the set is not in ``root``, or cannot be read.
    """
    source = SOURCES[name]
    folder = root / source.__name__ / "raw"
    if not download and not folder.is_dir():
        raise DataError(
            f"no {name} in {root}: there is no folder {folder}. Name the folder that holds "
            f"{source.__name__}/raw, or fetch the set with --download"
        )
    try:
        values = source(root, train=train, download=download)
    except (RuntimeError, OSError, ValueError, AssertionError, LookupError) as error:
        raise DataError(
            f"cannot read {name} from {folder}: {error}. Name the folder that holds a complete "
            f"{source.__name__}/raw, or fetch the set with --download"
        ) from error
    return values.data, values.targets


def _values(pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {
        "image": pictures.unsqueeze(1).contiguous(),
        "label": labels.to(torch.uint8),
        "attributes": measured(pictures),
    }
