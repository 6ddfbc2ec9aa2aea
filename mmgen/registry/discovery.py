"""Finds plugins: installed entry points and modules named by hand, each with a record."""

import importlib
import importlib.metadata
import inspect
import json
import os
import re
import sys
import traceback
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Literal
from urllib.parse import unquote, urlsplit

import pluggy

from mmgen import hooks
from mmgen.brief import OneLine
from mmgen.distribution import COMMANDS, FORMER, GROUP, NAME, SOURCES
from mmgen.errors import PluginError, nearest

ALLOW_LIST = "MMGEN_PLUGINS"
"""The environment variable with the entry points to load, joined by commas; unset loads all."""

Loader = Callable[[], object]
"""A function that imports a plugin's module."""

MOST_WORDS = 500
"""The most characters of a plugin's message that are shown: it may hold a file, or a tensor."""

MOST_TRACEBACK = 20_000
"""The most characters of a traceback that are kept."""


@dataclass(frozen=True, repr=False)
class Record(OneLine):
    """The outcome of finding and loading one plugin.

    Attributes:
        name: The entry point's name, or the module or file that was named by hand.
        distribution: The installed distribution it came with, if any.
        version: That distribution's version, if known.
        status: ``ok``; ``broken``, with a cause; ``disabled`` by the allow-list.
        kinds: The modality kinds that it provides.
        models: The model kinds that it provides.
        sources: The kinds of data sources that it provides.
        commands: The commands that it adds to the command line.
        cause: Why it is not ``ok``, in one line.
        warnings: What it does that it should not, although its kinds can be used.
        traceback: The traceback of what it raised, for authors; empty if nothing was raised.
    """

    name: str
    distribution: str | None = None
    version: str | None = None
    status: Literal["ok", "broken", "disabled"] = "ok"
    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    cause: str = ""
    warnings: tuple[str, ...] = ()
    traceback: str = field(default="", repr=False)

    def __str__(self) -> str:
        origin = " ".join(filter(None, (self.distribution, self.version)))
        return f"{self.name} ({origin})" if origin else self.name


@dataclass(frozen=True, eq=False, repr=False)
class Found(OneLine):
    """A plugin that was found.

    Attributes:
        record: Where it comes from, and why it is not loaded if it is not.
        load: Imports it; ``None`` if it is not to be loaded.
        listed: The words of the command line that its distribution lists for it, by entry-point
            group; ``None`` of a plugin that was named by hand, which need not list any, and of
            a distribution whose list is damaged.
    """

    record: Record
    load: Loader | None
    listed: Mapping[str, Collection[str]] | None = None


def installed(allow: str | None) -> Iterator[Found]:
    """Yields the installed plugins, in the order of distributions, then of names.

    Args:
        allow: The names of the entry points to load, joined by commas; ``None`` loads all.
    """
    allowed = None if allow is None else {word.strip() for word in allow.split(",")} - {""}
    names = set()
    for origin, points in _distributions():
        if isinstance(points, Exception):  # a damaged entry_points.txt
            yield Found(broken(replace(origin, name="entry_points.txt"), points), None)
            continue
        for point in sorted(points.select(group=GROUP)):
            names.add(point.name)
            listed = {
                group: {p.name for p in points.select(group=group) if p.value == point.value}
                for group in (SOURCES, COMMANDS)
            }
            record = replace(origin, name=point.name)
            if allowed is None or point.name in allowed:
                yield Found(record, point.load, listed)
                continue
            cause = f"not listed in {ALLOW_LIST}={allow}"
            yield Found(replace(record, status="disabled", cause=cause), None, listed)
    for name in sorted((allowed or set()) - names):
        cause = f"{ALLOW_LIST} lists it, but no installed plugin has that name"
        cause += nearest(name, sorted(names))
        yield Found(Record(name, status="broken", cause=cause), None, {})


def words(group: str, found: Iterable[Found]) -> dict[str, Record]:
    """Returns the words that plugins list in an entry-point group, and each's plugin.

    Nothing is imported. A word that several list is here the first one's that is not disabled.
    """
    result: dict[str, Record] = {}
    for each in found:
        for word in sorted((each.listed or {}).get(group, ())):
            if word not in result or result[word].status == "disabled":
                result[word] = each.record
    return result


def listing(group: str, words: Collection[str], found: Iterable[Found]) -> list[Found]:
    """Returns the plugins that list one of these words, or whose list is damaged."""
    return [
        each for each in found if each.listed is None or {*words} & {*each.listed.get(group, ())}
    ]


def _distributions() -> Iterator[tuple[Record, importlib.metadata.EntryPoints | Exception]]:
    """Yields a record of each distribution that has plugins, and its entry points, by name.

    Distributions are read one by one: one damaged ``entry_points.txt`` must not hide the others.
    """
    distributions: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        if not _mentions_mmgen(distribution):
            continue  # reading the names of all that is installed would take a fifth of a second
        name = re.sub("[-_.]+", "-", _header(distribution, "Name") or "").lower()
        if not name or _is_found_first(distribution, name):
            distributions.setdefault(name or f"nameless {len(distributions)}", distribution)
    if NAME in distributions:  # to install it editable leaves the one of its former name in place
        distributions.pop(FORMER, None)
    for _, distribution in sorted(distributions.items()):
        origin = Record("", _header(distribution, "Name"), _header(distribution, "Version"))
        points: importlib.metadata.EntryPoints | Exception
        try:
            points = distribution.entry_points
        except Exception as error:
            points = error
        yield origin, points


def _mentions_mmgen(distribution: importlib.metadata.Distribution) -> bool:
    try:
        return f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or "")
    except Exception:  # not UTF-8, or not for us to read: nobody can say whose fault it hides
        return True


def _is_found_first(distribution: importlib.metadata.Distribution, name: str) -> bool:
    """Returns whether an import finds this distribution, and no other of its name before it."""
    try:
        first = importlib.metadata.distribution(name)
        return first.locate_file("") == distribution.locate_file("")
    except Exception:  # a finder that fails at some other distribution
        return True


def first_party(record: Record) -> bool:
    """Returns whether a plugin is in the distribution that provides this very package.

    That is the one that lists this file, or that is installed editable from the folder around it.
    Where neither holds, as with a source tree on ``PYTHONPATH``, it is the one of mmgen's name, or
    of its former name.
    """
    if record.distribution is None:
        return False
    try:
        distribution = importlib.metadata.distribution(record.distribution)
        here = Path(__file__).resolve()
        files = (file for file in distribution.files or () if file.name == here.name)
        if any(Path(str(distribution.locate_file(file))).resolve() == here for file in files):
            return True
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            path = unquote(urlsplit(origin["url"]).path)
            root = Path(path.removeprefix("/") if os.name == "nt" else path).resolve()
            if here.parents[2] in (root, root / "src"):
                return True
    except Exception:  # damaged, and so not the one that works here
        return False
    return record.distribution in (NAME, FORMER)


def _header(distribution: importlib.metadata.Distribution, key: str) -> str | None:
    try:
        return str(distribution.metadata[key] or "") or None
    except Exception:  # no METADATA file, or one that cannot be read
        return None


def named(module: str) -> Loader:
    """Returns a function that imports a module, or a ``.py`` file."""
    path = Path(module)
    if path.suffix == ".py":
        return lambda: _import_file(path.resolve())
    return lambda: importlib.import_module(module)


def _import_file(path: Path) -> ModuleType:
    for module in list(sys.modules.values()):
        if _file(module) == str(path):
            return module  # loaded twice, its class would be in conflict with itself
    name = re.sub(r"\W", "_", f"mmgen_file{path}")
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    try:
        SourceFileLoader(name, str(path)).exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _file(module: ModuleType) -> object:
    try:
        return vars(module).get("__file__")
    except Exception:  # anything may stand there, put by another plugin
        return None


def broken(record: Record, error: BaseException) -> Record:
    """Returns the record of a plugin that raised."""
    try:
        trace = shortened("".join(traceback.format_exception(error)), MOST_TRACEBACK)
    except Exception:  # what it raised may raise again when it is asked for its words
        trace = "Traceback: cannot be read"
    return replace(record, status="broken", cause=one_line(error), traceback=trace)


def one_line(error: BaseException) -> str:
    """Returns in one line what was raised, and on which line of which file; never raises itself."""
    # By its type: `__class__`, `__str__` and `__traceback__` of an exception may be overridden.
    kind = type(error)
    words = short_message(error)
    if issubclass(kind, PluginError):
        return words
    if issubclass(kind, pluggy.PluginValidationError):
        return f"{words}; see mmgen.hooks for what there is"
    return " ".join(f"{kind.__name__}: {words}{_place(error)}".splitlines())


def short_message(error: BaseException) -> str:
    """Returns an exception's message, shortened, in one line; never raises itself."""
    try:
        words = shortened(" ".join(str(error)[: 2 * MOST_WORDS].split()), MOST_WORDS)
        if issubclass(type(error), BaseExceptionGroup):
            words += f"; the first is {one_line(error.exceptions[0])}"  # type: ignore[attr-defined]
    except BaseException as another:
        return f"(its message cannot be read: {type(another).__name__})"
    return words


@cache
def _loaders() -> tuple[str, ...]:
    """Returns how file names of traceback frames start that are not the plugin author's."""
    import pydantic

    files = [inspect.getfile(module) for module in (hooks, importlib, pluggy, pydantic)]
    folders = [f"{Path(file).parent}{os.sep}" for file in files]
    return (typing.__file__, "<frozen", "<string>", *folders)


def _place(error: BaseException) -> str:
    try:
        trace = traceback.extract_tb(error.__traceback__)
        frames = [frame for frame in trace if not frame.filename.startswith(_loaders())]
        return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    except Exception:
        return ""


def shortened(text: str, most: int) -> str:
    """Leaves out the middle of a long text.

    Examples:
        >>> shortened("from the first to the last", 18)
        'from the …the last'
    """
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half + 1 :]}"
