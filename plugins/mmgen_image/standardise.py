"""Pixels standardised one by one: the mean and deviation of each over the training pictures.

Both are pictures of 8 bits, kept as base64 text: a setting of a run, which needs no other file.
"""

import base64
import binascii
from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

BLOCK = 1024
"""Pictures that are summed at a time."""


def measure(stored: Tensor) -> tuple[str, str]:
    """Returns the mean and standard deviation of each pixel of ``(N, C, H, W)`` uint8, as texts."""
    total = torch.zeros(stored.shape[1:], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for block in stored.split(BLOCK):
        values = block.to(torch.float64) / 255
        total += values.sum(0)
        squares += values.square().sum(0)
    mean = total / len(stored)
    deviation = (squares / len(stored) - mean.square()).clamp_min(0).sqrt()
    # Numbers in [0, 1] deviate by 1/2 at most; a pixel that is constant, by the least there is.
    return _text(255 * mean), _text(512 * deviation - 1)


def means(text: str, shape: Sequence[int]) -> Tensor:
    """Returns the means ``(C, H, W)``, in [0, 1].

    Raises:
        ValueError: If the text does not hold a byte for each pixel.
    """
    return _bytes(text, tuple(shape)) / 255


def deviations(text: str, shape: Sequence[int]) -> Tensor:
    """Returns the deviations ``(C, H, W)``, in (0, 1/2]; raises as :func:`means` does."""
    return (_bytes(text, tuple(shape)) + 1) / 512


def _text(values: Tensor) -> str:
    whole = values.round().clamp(0, 255).to(torch.uint8)
    return base64.b64encode(whole.numpy().tobytes()).decode()


@lru_cache(maxsize=16)
def _bytes(text: str, shape: tuple[int, ...]) -> Tensor:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"statistics of pixels are base64 text: {error}") from None
    if len(content) != prod(shape):
        raise ValueError(
            f"statistics of pixels have {len(content):,} of the {prod(shape):,} bytes of {shape}"
        )
    with torch.device("cpu"):
        return torch.tensor([*content], dtype=torch.float32).reshape(shape)
