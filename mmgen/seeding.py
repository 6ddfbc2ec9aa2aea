"""Random streams that depend on a key alone: the same numbers whatever else was drawn before.

Of several processes that train together (:mod:`mmgen.training.ranks`) each has noise of its own,
torch's random state; what decides which terms a step computes is drawn by all alike, from
:func:`decisions`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import torch

from mmgen.brief import OneLine


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


@dataclass(frozen=True, repr=False)
class Streams(OneLine):
    """The random streams of one of several processes, beside torch's own state.

    Attributes:
        rank: The number of the process, from 0.
        decisions: In the same state in all processes.
    """

    rank: int
    decisions: torch.Generator = field(default_factory=torch.Generator)


class _Process:
    """What this process draws from."""

    streams: Streams | None = None


def join(rank: int | None) -> Streams | None:
    """Gives this process the streams of one of several, by its rank; of one alone for ``None``."""
    _Process.streams = None if rank is None else Streams(rank)
    return _Process.streams


def decisions() -> torch.Generator | None:
    """Returns what a draw is made from that decides which terms a training step computes.

    A model that trains a few of its subsets in a step draws them so, on the CPU. Of several
    processes each computes a part of one batch, and their gradients are added up: they must have
    drawn the same subsets, while the noise of their rows must differ. In one process it is
    ``None``, for which torch takes its own random state.

    Examples:
        >>> int(torch.randint(3, (), generator=decisions(), device="cpu")) in range(3)
        True
    """
    return None if _Process.streams is None else _Process.streams.decisions


def begin(*key: int | str) -> None:
    """Seeds the noise of this process, and what all processes decide by, with a key.

    Args:
        *key: As of :func:`generator`; the rank of the process is added for the noise.
    """
    ours = _Process.streams
    torch.manual_seed(generator("noise", *key, ours.rank if ours else 0).initial_seed())
    if ours:
        ours.decisions.manual_seed(generator("decisions", *key).initial_seed())


@contextmanager
def random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Seeds torch for a while, on CPU and the device, and puts its random state back.

    Of several processes each has another noise of one seed, and all the same decisions.
    """
    accelerator = device.type in ("cuda", "mps")
    kind = device.type if accelerator else "cuda"
    ours = _Process.streams
    with torch.random.fork_rng([device] if accelerator else [], device_type=kind):
        if ours is None:
            torch.manual_seed(seed)
            yield
            return
        before = ours.decisions.get_state()
        begin(seed)
        try:
            yield
        finally:
            ours.decisions.set_state(before)
