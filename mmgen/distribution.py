"""The distribution that this package comes in, and another project whose package is ``mmgen`` too.

That one is MMGeneration, which pip calls ``mmgen``. Python imports what it finds first; in one
folder, each of the two overwrites files of the other.
"""

import sys
import warnings
from pathlib import Path

NAME = "mmgen-vae"
"""What pip calls this project."""

FORMER = "mmgen"
"""What pip called it before, as runs and installations of that time still have it."""

GROUP = "mmgen"
"""The entry-point group of plugins, each a module with hooks; also pluggy's project name."""

COMMANDS, SOURCES = f"{GROUP}.commands", f"{GROUP}.sources"
"""The entry-point groups of the words that plugins add to the command line: verbs, and what may
follow ``mmgen data``. Each word names the module of its plugin, so that it is known without being
imported."""


def warn_of_namesake() -> None:
    """Warns once, in one line, if the other project is installed beside this one."""
    found = next(filter(None, map(_namesake, sys.path)), None)
    if found is None:
        return
    again = ""
    if (found.parent / "mmgen").resolve() == Path(__file__).resolve().parent:
        again = f", then `pip install --force-reinstall --no-deps {NAME}`: they share files"
    warnings.warn(
        f"another project whose package is called mmgen too is installed beside {NAME}, as "
        f"{found}: run `pip uninstall mmgen`{again}",
        stacklevel=3,  # the line that imports mmgen
    )


def _namesake(folder: str) -> Path | None:
    """Returns the other project's metadata in a folder of the path.

    It is looked for by hand, because to import ``importlib.metadata`` costs more than all else
    that ``import mmgen`` does.
    """
    try:
        for information in Path(folder).glob("mmgen[-.]*-info"):
            if _is_distribution(information) and not _is_ours(information):
                return information
    except Exception:  # whatever else stands on the path, imports pass over it
        pass
    return None


def _is_distribution(information: Path) -> bool:
    return any((information / name).is_file() for name in ("METADATA", "PKG-INFO"))


def _is_ours(information: Path) -> bool:
    """Tells whether it is this project under its former name: it has plugins of mmgen."""
    points = information / "entry_points.txt"
    return points.is_file() and b"[mmgen]" in points.read_bytes()
