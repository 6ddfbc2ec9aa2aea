"""What ended one of several processes that were launched together is said by one of them."""

from collections.abc import Callable
from contextlib import suppress

from mmgen.errors import ConfigError
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
    launch = None
    with suppress(ConfigError):  # which is then what is told
        launch = launched()
    if launch is None:
        tell()
        return
    from mmgen.training import ranks

    ranks.last_word(launch, error, code, tell)
