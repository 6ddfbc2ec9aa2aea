"""Denormal numbers, the smallest ones there are, on which a CPU is many times slower.

Adam's moments of units that no longer learn decay into them, and weights of theirs.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def flushing() -> bool:
    """Returns whether this thread takes denormal numbers for zero; machine code may set it."""
    return sys.float_info.min / 2 == 0


@contextmanager
def flushed() -> Iterator[None]:
    """Takes denormal numbers for zero, and as before afterwards.

    It must come before torch starts its threads, which inherit it.

    Examples:
        >>> with flushed():
        ...     flushing()
        True
    """
    import torch  # by then: the command line's help does without

    before = flushing()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
