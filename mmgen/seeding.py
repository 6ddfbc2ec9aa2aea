"""Random streams that depend on a key alone: the same numbers whatever else was drawn before."""

from collections.abc import Iterator
from contextlib import contextmanager
from zlib import crc32

import numpy as np
import torch


def generator(*key: int | str) -> torch.Generator:
    """Returns a CPU generator whose stream depends on ``key`` alone.

    Keys that differ in any part give unrelated streams, so ``("train", 0)`` and ``("test", 0)``
    share no draws, and epoch 7 can be shuffled without having shuffled epochs 0 to 6.

    Args:
        *key: Non-negative integers and words, in an order that matters.

    Raises:
        ValueError: If a number is negative.

    Examples:
        >>> int(torch.randint(10**6, (), generator=generator(0, "train"))) == int(
        ...     torch.randint(10**6, (), generator=generator(0, "train"))
        ... )
        True
    """
    # The length first: numpy takes (7,) and (7, 0) for the same.
    words = [len(key)] + [part if isinstance(part, int) else crc32(part.encode()) for part in key]
    seed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed))


@contextmanager
def random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Seeds torch for a while, on CPU and the device, and puts its random state back."""
    accelerator = device.type in ("cuda", "mps")
    kind = device.type if accelerator else "cuda"
    with torch.random.fork_rng([device] if accelerator else [], device_type=kind):
        torch.manual_seed(seed)
        yield
