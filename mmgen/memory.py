"""What memory is free, and whether something fits, asked before any of it is taken."""

from typing import TYPE_CHECKING

from mmgen.errors import ConfigError, MmgenError
from mmgen.formatting import size

if TYPE_CHECKING:
    import torch


def free_memory(device: "torch.device | str" = "cpu") -> float:
    """Returns the bytes that are free on a device; on a CPU, those that can be made free."""
    import psutil
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    if device.type == "cpu":
        return float(psutil.virtual_memory().available)
    return float("inf")


def check_fits(
    what: str,
    needed: float,
    advice: str,
    device: "torch.device | str" = "cpu",
    error: type[MmgenError] = ConfigError,
) -> None:
    """Checks that there is memory enough for a piece of work.

    Args:
        what: The work, in words: ``"generating 1,000 samples"``.
        needed: Bytes that it takes.
        advice: What to try where they are not there.
        device: Where they are taken.
        error: What to raise.

    Raises:
        MmgenError: If it does not fit, an ``error``; says what is needed and what is free.
    """
    free = free_memory(device)
    if needed > free:
        raise error(
            f"{what} needs about {size(needed)} on {device}, where {size(free)} are free.\n"
            f"  Try {advice}"
        )
