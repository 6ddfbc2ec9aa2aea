"""Makes synthetic paired data for any modalities: all modalities of a row share a class."""

import hashlib
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmgen.data.store import Dataset, Split
from mmgen.errors import DataError
from mmgen.memory import check_fits
from mmgen.modality import Modality
from mmgen.seeding import generator

MAKING = 16
"""Bytes of memory per number of an observation: centre, noise, sum, stored value."""


def synthetic(
    modalities: Mapping[str, Modality],
    counts: Mapping[str, int],
    classes: int = 10,
    seed: int = 0,
) -> dict[str, dict[str, Tensor]]:
    """Makes splits in which the modalities of a row are examples of one class.

    Each row has a uniform class c; modality k then shows ``example(c)``, independent of the other
    modalities given c. So the mutual information of two modalities is at most log(``classes``)
    nats.

    Every split and modality has a random stream of its own: adding one leaves the others' values
    as they were.

    Args:
        modalities: The modalities, by name.
        counts: Rows of each split: ``{"train": 1000, "test": 100}``.
        classes: The number of classes.
        seed: The seed of everything that is random.

    Returns:
        Stored values ``(count, ...)`` by split and modality, as the store writes them.

    Raises:
        DataError: If they do not fit into memory.
    """
    rows = sum(counts.values())
    check_fits(
        f"making up {rows:,} rows",
        rows * (sum(MAKING * prod(m.shape) for m in modalities.values()) + 8),
        "fewer data.rows, smaller observations",
        error=DataError,
    )
    splits = {}
    for split, count in counts.items():
        drawn = torch.randint(classes, (count,), generator=generator(seed, split))
        splits[split] = {
            name: modality.example(drawn, generator(seed, split, name))
            for name, modality in modalities.items()
        }
    return splits


def synthetic_dataset(
    modalities: Mapping[str, Modality], rows: int, classes: int = 10, seed: int = 0
) -> Dataset:
    """Makes a data set in memory: ``rows`` to train on, a fifth to validate and to test.

    Args:
        modalities: The modalities, by name; each is fitted to its examples.
        rows: Rows of the training split.
        classes: The number of classes.
        seed: The seed of everything that is random.
    """
    held_out = max(1, rows // 5)
    counts = {"train": rows, "validation": held_out, "test": held_out}
    splits = synthetic(modalities, counts, classes, seed)
    settings = {n: m.fit(splits["train"][n]).to_config() for n, m in modalities.items()}
    return Dataset(
        path=Path("synthetic"),
        name="synthetic",
        about=f"Made up: rows of one of {classes} classes show examples of it, seed {seed}.",
        modalities=settings,
        splits={split: Split((values,)) for split, values in splits.items()},
        hash=digest(settings, splits),
    )


def digest(
    settings: Mapping[str, Mapping[str, Any]], splits: Mapping[str, Mapping[str, Tensor]]
) -> str:
    """Returns SHA-256 over the configurations of modalities and the values of all splits.

    Without ``likelihood_weight``, which is a matter of training, and which older runs do not name.
    """
    told = {
        name: {key: value for key, value in own.items() if key != "likelihood_weight"}
        for name, own in settings.items()
    }
    content = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for values in splits.values():
        for value in values.values():
            content.update(value.contiguous().numpy().tobytes())
    return content.hexdigest()
