"""Commands that messages tell to type: they work as they are printed, whatever a path is called."""

import shlex
from collections.abc import Sequence
from pathlib import Path


def command(*words: str | Path, plugins: Sequence[str] = (), debug: bool = False) -> str:
    """Returns a command of mmgen, quoted for a shell.

    Args:
        words: The verb, and what follows it. Of a :class:`~pathlib.Path` that begins like an
            option, ``./`` says that it is none.
        plugins: One-file plugins that it needs, as with ``mmgen -p``.
        debug: Whether an error should show its traceback.

    Examples:
        >>> command("train", Path("-a b"), "--resume", plugins=["mine.py"])
        "mmgen -p mine.py train './-a b' --resume"
    """
    options = ["--debug"] * debug
    options += [word for plugin in plugins for word in ("-p", _path(plugin))]
    rest = [_path(str(word)) if isinstance(word, Path) else word for word in words]
    return shlex.join(["mmgen", *options, *rest])


def resume(run: Path, *more: str, plugins: Sequence[str] = (), device: str | None = None) -> str:
    """Returns the command that goes on with a run.

    Args:
        run: Its folder.
        more: Settings to change, such as ``train.learning_rate=1e-4``.
        plugins: One-file plugins that it needs.
        device: Where to train, if elsewhere than the run says.
    """
    where = [] if device is None else ["--device", device]
    return command("train", run, "--resume", *where, *more, plugins=plugins)


def _path(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path
