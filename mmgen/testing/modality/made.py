"""Values to check a modality with, the same each time."""

import torch
from torch import Tensor

from mmgen.modality import Modality

LATENT = 5
"""The size of z that decoders are built for."""


def generator() -> torch.Generator:
    """Makes a generator, the same each time."""
    return torch.Generator().manual_seed(0)


def stored(modality: Modality, rows: int) -> Tensor:
    """Makes stored values ``(rows, ...)``, each of another class."""
    return modality.example(torch.arange(rows), generator())


def observed(modality: Modality, rows: int) -> Tensor:
    """Makes observations ``(rows, *shape)``."""
    return modality.observe(stored(modality, rows), generator())


def latent(rows: int) -> Tensor:
    """Makes z ``(rows, LATENT)``, wide of the prior so that nets leave their middle."""
    return 5 * torch.randn(rows, LATENT, generator=generator())
