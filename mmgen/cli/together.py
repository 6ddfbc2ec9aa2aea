"""What ended one of several processes that were launched together is said by one of them."""

from collections.abc import Callable

from mmgen.errors import MmgenError
from mmgen.training.launch import launched


def meet() -> None:
    """Waits for the processes that were launched with this one, if there are some.

    Raises:
        ConfigError: If they cannot be met.
    """
    if launched() is not None:
        from mmgen.training import ranks

        ranks.join()


def say(error: BaseException | None, code: int, tell: Callable[[], object]) -> None:
    """Says what ended this process; of several, one does, and all end at once.

    Args:
        error: What it was.
        code: The exit code.
        tell: Says so.
    """
    if launched() is None:
        tell()
        return
    from mmgen.training import ranks

    try:
        several = ranks.join()  # what is wrong with a command may be found before they have met
    except MmgenError:
        tell()
        return
    several.last_word(error, code, tell)
