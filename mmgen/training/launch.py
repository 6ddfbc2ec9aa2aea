"""Whether this process is one of several that were launched together: torchrun says so.

Nothing here imports torch, so that whatever a command does first may ask.
"""

import os
from dataclasses import dataclass

from mmgen.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """One of several processes.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        local_rank: Its number on this machine, from 0.
        local_size: How many there are on this machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int


def launched() -> Launch | None:
    """Returns which process this is, as torchrun's environment tells; ``None`` if there is one.

    Raises:
        ConfigError: If the environment tells no numbers.
    """
    if not all(os.environ.get(name) for name in VARIABLES):
        return None
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", rank))
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    except ValueError as error:
        raise ConfigError(f"RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE: {error}") from None
    return Launch(rank, size, local, beside) if size > 1 else None
