"""What a path is that should be trained on: a run, a data set, or what one is made of."""

import os
from collections.abc import Iterator
from pathlib import Path

from mmgen import shell
from mmgen.data.index import INDEX
from mmgen.data.raster import SUFFIXES
from mmgen.errors import ConfigError, listed
from mmgen.experiment import EXPERIMENT

TABLES = (".csv", ".tsv", ".tab")
SEEN = 1000
"""Of how many files a folder is judged."""


def is_run(folder: Path) -> bool:
    """Tells whether a folder is a run."""
    return (folder / EXPERIMENT).is_file()


def is_dataset(folder: Path) -> bool:
    """Tells whether a folder is a data set."""
    return (folder / INDEX).is_file()


def refuse_raw(path: Path, verb: str) -> None:
    """Refuses what is raw material of a data set, or holds some; passes over other files.

    Args:
        path: A file, or a folder that is no data set.
        verb: What should be done with the data set.

    Raises:
        ConfigError: Gives the one command that makes a data set of it.
    """
    if is_run(path):
        raise ConfigError(f"{path}: is a run; what it is trained with is in it, as config.toml")
    if path.name == INDEX and path.is_file():
        raise ConfigError(
            f"{path}: a data set is named by its folder:\n  {shell.command(verb, path.parent)}"
        )
    if path.suffix.lower() in TABLES and path.is_file():
        raise ConfigError(f"{path}: is a table. Make a data set of it first:{_then('table', path)}")
    if path.is_dir():
        raise ConfigError(f"{path}: {_folder(path, verb)}")


def _folder(path: Path, verb: str) -> str:
    entries = _entries(path)
    if sets := [each for each in entries if each.is_dir() and is_dataset(each)]:
        names = listed(each.name for each in sets)
        return f"holds the data sets {names}. Name one:\n  {shell.command(verb, sets[0])}"
    if runs := [each for each in entries if each.is_dir() and is_run(each)]:
        return f"holds the runs {listed(each.name for each in runs)}, and no data set"
    if tables := [each for each in entries if each.suffix.lower() in TABLES]:
        return f"holds a table. Make a data set of it first:{_then('table', tables[0])}"
    if any(_is_picture(file) for each in entries if each.is_dir() for file in _below(each)):
        return f"holds pictures. Make a data set of them first:{_then('folder', path)}"
    if any(map(_is_picture, entries)):
        return (
            "holds pictures and nothing that is said of them, but a joint model needs at least two "
            "modalities. Sort them into a folder for each class, or write a CSV file of their "
            "names and what is on them; then: mmgen data folder, or mmgen data table"
        )
    return (
        "is no data set and no run. A data set is made by\n  mmgen data table FILE.csv --out "
        "DIR\nor, of pictures in a folder for each class, by\n  mmgen data folder DIR --out DIR"
    )


def _then(verb: str, source: Path) -> str:
    """Returns the commands that make a data set and train on it, each on a line."""
    out = free(Path("data") / (source.stem if verb == "table" else source.resolve().name))
    make = shell.command("data", verb, source, "--out", out)
    train = shell.command("train", out, "--out", free(Path("runs") / out.name))
    return f"\n  {make}\nthen\n  {train}"


def free(path: Path) -> Path:
    """Returns a path that is not there yet: itself, or with a number."""
    number, free = 2, path
    while os.path.lexists(free):
        free, number = path.with_name(f"{path.name}-{number}"), number + 1
    return free


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [Path(each.path) for each, _ in zip(entries, range(SEEN), strict=False)]
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read: {error.strerror or error}") from None
    return sorted(each for each in found if not each.name.startswith("."))


def _below(folder: Path) -> Iterator[Path]:
    """Lists the first files below a folder, as far as they can be seen."""
    number = 0
    for where, _, files in os.walk(folder):
        for name in files:
            yield Path(where, name)
        number += 1 + len(files)
        if number >= SEEN:
            return
