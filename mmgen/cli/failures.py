"""What ended a command, as one message and an exit code."""

import traceback

from mmgen.console import stderr, styled
from mmgen.errors import MmgenError

USER, FAULT = 2, 1
"""Exit codes: of what a user or the machine can do something about, and of a fault of mmgen."""


def code(error: BaseException) -> int:
    """Returns the exit code of a command that an error ends."""
    return _explained(error)[1]


def report(error: BaseException, *, debug: bool) -> int:
    """Prints one message, and returns the exit code.

    Args:
        error: What ended the command.
        debug: Whether to print where it comes from.
    """
    if debug:
        stderr.print("".join(traceback.format_exception(error)), end="")
    message, ended = _explained(error)
    if message:
        label = "internal error:" if ended == FAULT else "error:"
        stderr.print(styled((label, "bold red"), f" {message}"))
    return ended


def _explained(error: BaseException) -> tuple[str, int]:
    if type(error).__name__ == "Abort" and error.__cause__ is not None:
        error = error.__cause__  # typer hides that no more could be read
    if isinstance(error, MmgenError):
        return str(error), USER
    if hasattr(error, "format_message"):  # typer's, which has it of click or of its own
        return _usage(error), USER
    if isinstance(error, RecursionError):
        return "something is nested too deeply. See where: mmgen --debug ...", USER
    if _out_of_memory(error):
        return (
            f"there is not enough memory: {_words(error)}.\n"
            "  Ask for less at once: a smaller train.batch_size, fewer samples, a smaller --chunk",
            USER,
        )
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or _words(error)}", USER
    return (
        f"{type(error).__name__}: {_words(error)}.\n"
        "  This is a fault of mmgen or of a plugin. See where, and report it: mmgen --debug ...",
        FAULT,
    )


def _usage(error: BaseException) -> str:
    message = str(error.format_message())  # type: ignore[attr-defined]
    command = getattr(getattr(error, "ctx", None), "command_path", "mmgen")
    return f"{message}\n  See: {command} --help" if message else ""


def _out_of_memory(error: BaseException) -> bool:
    # Not of their type, which is torch's: it may not be imported yet.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in _words(error)
    )


def _words(error: BaseException) -> str:
    """Returns the first line of what an error says, even if it cannot say it."""
    try:
        return (str(error).strip().splitlines() or ["no word why"])[0].rstrip(".")
    except Exception as second:
        return f"no word why, for {type(second).__name__}"
