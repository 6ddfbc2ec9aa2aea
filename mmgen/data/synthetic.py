"""Paired data for any modalities, made up: rows that share a class show the same thing."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmgen.data.seeding import generator
from mmgen.modality import Modality


def synthetic(
    modalities: Mapping[str, Modality],
    counts: Mapping[str, int],
    classes: int = 10,
    seed: int = 0,
) -> dict[str, dict[str, Tensor]]:
    """Makes splits in which the modalities of a row are examples of one class.

    Each row has a uniform class c; modality k then shows ``example(c)``, independent of the other
    modalities given c. So all that one modality tells about another is the class: at most
    log(``classes``) nats.

    Every split and modality has a random stream of its own: adding one leaves the others' values
    as they were.

    Args:
        modalities: By name.
        counts: Rows of each split: ``{"train": 1000, "test": 100}``.
        classes: The number of classes.
        seed: Of all that is drawn.

    Returns:
        Stored values ``(count, ...)`` by split and modality, as the store writes them.
    """
    splits = {}
    for split, count in counts.items():
        drawn = torch.randint(classes, (count,), generator=generator(seed, split))
        splits[split] = {
            name: modality.example(drawn, generator(seed, split, name))
            for name, modality in modalities.items()
        }
    return splits
