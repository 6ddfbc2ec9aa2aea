"""Plugins: found, loaded one by one, recorded, looked up by kind.

A plugin is a module named in the entry-point group ``mmgen``, or by hand, with one hook:
:func:`mmgen.hooks.mmgen_modalities`. One that breaks is a :class:`Record` with a cause, never an
exception, until a configuration needs its kind: the healthy ones beside it keep working.
"""

import importlib
import importlib.metadata
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Literal

import pluggy
from pydantic import ValidationError

from mmgen import hooks
from mmgen.config import explain
from mmgen.errors import ConfigError, PluginError, listed, nearest
from mmgen.modality import Modality

ALLOW_LIST = "MMGEN_PLUGINS"
"""The environment variable that lists the entry points to load, by commas; unset loads all."""

Kinds = dict[str, type[Modality]]
Source = Callable[[], object]
FOLDERS = [str(Path(inspect.getfile(module)).parent) for module in (importlib, pluggy)]
LOADERS = (__file__, "<frozen", *FOLDERS)


@dataclass(frozen=True)
class Record:
    """What became of one plugin.

    Attributes:
        name: The entry point's name, or the module or file that was named by hand.
        distribution: The installed distribution it came with, if any.
        version: That distribution's version, if known.
        status: ``ok``; ``broken``, with a cause; ``disabled`` by the allow-list.
        kinds: The modality kinds that it does provide.
        cause: Why it is not ``ok``, in one line.
        traceback: Where it broke, for authors; empty if nothing was raised.
    """

    name: str
    distribution: str | None = None
    version: str | None = None
    status: Literal["ok", "broken", "disabled"] = "ok"
    kinds: tuple[str, ...] = ()
    cause: str = ""
    traceback: str = field(default="", repr=False)

    def __str__(self) -> str:
        origin = " ".join(filter(None, (self.distribution, self.version)))
        return f"{self.name} ({origin})" if origin else self.name


@dataclass(frozen=True)
class Registry:
    """The modality kinds that there are, and what became of every plugin. Immutable.

    Attributes:
        records: One for each plugin, in the order of loading.
        kinds: The modality class of each kind that can be used.
    """

    records: tuple[Record, ...]
    kinds: Mapping[str, type[Modality]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", MappingProxyType(dict(self.kinds)))

    def get(self, kind: str) -> type[Modality]:
        """Returns the class of a kind.

        Raises:
            PluginError: If no healthy plugin provides it; lists those that do not work, and why.
        """
        if kind in self.kinds:
            return self.kinds[kind]
        lines = [f"no plugin provides modality kind {kind!r}{nearest(kind, self.kinds)}"]
        lines += [f"kinds: {listed(sorted(self.kinds))}"]
        lines += [f"{r.status} plugin {r}: {r.cause}" for r in self.records if r.status != "ok"]
        raise PluginError("\n  ".join(lines))

    def provider(self, kind: str) -> Record:
        """Returns the record of the plugin that provides a kind.

        Raises:
            PluginError: If none does.
        """
        made_by_hand = Record(self.get(kind).__module__, kinds=(kind,))
        return next((record for record in self.records if kind in record.kinds), made_by_hand)

    def create(self, name: str, settings: Mapping[str, Any]) -> Modality:
        """Makes the modality ``name`` of a configuration.

        Args:
            name: The user's name for it: ``[modalities.NAME]``.
            settings: Its ``kind``, and the fields of that kind.

        Raises:
            ConfigError: If a setting is unknown or impossible; names its key.
            PluginError: If no plugin provides the kind, or the plugin itself fails.
        """
        where = f"modalities.{name}"
        kind = settings.get("kind")
        if not isinstance(kind, str):
            raise ConfigError(f"{where}.kind must be one of {listed(self.kinds)}, not {kind!r}")
        try:
            cls = self.get(kind)
        except PluginError as error:
            raise PluginError(f"{where}.kind: {error}") from None
        plugin = f"kind {kind!r} of plugin {self.provider(kind)}"
        try:
            return cls(**{str(key): value for key, value in settings.items() if key != "kind"})
        except ValidationError as error:
            known = f"settings of {plugin}: {listed(cls.model_fields)}"
            raise ConfigError(f"{explain(error, cls, where)}\n  {known}") from None
        except Exception as error:
            wrong = f"{where}: {plugin} failed on these settings: {_line(error)}"
            raise PluginError(wrong) from error


def load(modules: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> Registry:
    """Loads every installed plugin, and those named by hand.

    Args:
        modules: Importable modules, or paths of ``.py`` files: plugins that are not installed.
        environ: Where the allow-list ``MMGEN_PLUGINS`` is looked up; it does not concern
            ``modules``.

    Returns:
        The kinds to use and a record for each plugin. No fault of a plugin raises.
    """
    found = [*_installed(environ.get(ALLOW_LIST)), *((Record(m), _named(m)) for m in modules)]
    loaded = [_load(record, source) for record, source in found]
    # Two plugins may hand over the very same class: that is no conflict.
    owners: dict[str, dict[type[Modality], list[Record]]] = {}
    for record, classes in loaded:
        for kind, cls in classes.items():
            owners.setdefault(kind, {}).setdefault(cls, []).append(record)
    disputed = {kind: classes for kind, classes in owners.items() if len(classes) > 1}
    records = tuple(_settle(record, disputed) for record, _ in loaded)
    kinds = {kind: next(iter(c)) for kind, c in sorted(owners.items()) if kind not in disputed}
    return Registry(records, kinds)


def _settle(record: Record, disputed: Mapping[str, Mapping[Any, list[Record]]]) -> Record:
    causes = []
    for kind in filter(disputed.__contains__, record.kinds):
        others = [o for same in disputed[kind].values() if record not in same for o in same]
        causes.append(f"kind {kind!r} is also provided by {listed(map(str, others))}")
    if not causes:
        return record
    left = tuple(kind for kind in record.kinds if kind not in disputed)
    mend = f"neither is used: uninstall one, or list the plugins to load in {ALLOW_LIST}"
    return replace(record, status="broken", kinds=left, cause=f"{'; '.join(causes)}; {mend}")


def _installed(allow: str | None) -> Iterator[tuple[Record, Source | None]]:
    """Finds the entry points, in the order of their distributions' and their own names.

    Distributions are read one by one: one damaged ``entry_points.txt`` must not hide the others.
    """
    allowed = None if allow is None else {word.strip() for word in allow.split(",")} - {""}
    distributions: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        name = re.sub("[-_.]+", "-", _header(distribution, "Name") or "").lower()
        # The first on the path is the one that an import finds.
        distributions.setdefault(name or f"nameless {len(distributions)}", distribution)
    names = set()
    for _, distribution in sorted(distributions.items()):
        origin = Record("", _header(distribution, "Name"), _header(distribution, "Version"))
        try:
            points = sorted(distribution.entry_points.select(group=hooks.GROUP))
        except Exception as error:
            points = []
            if f"[{hooks.GROUP}]" in (distribution.read_text("entry_points.txt") or ""):
                yield _broken(replace(origin, name="entry_points.txt"), error), None
        for point in points:
            names.add(point.name)
            record = replace(origin, name=point.name)
            if allowed is None or point.name in allowed:
                yield record, point.load
                continue
            cause = f"not listed in {ALLOW_LIST}={allow}"
            yield replace(record, status="disabled", cause=cause), None
    for name in sorted((allowed or set()) - names):
        cause = f"{ALLOW_LIST} lists it, but no installed plugin has that name"
        yield Record(name, status="broken", cause=cause + nearest(name, sorted(names))), None


def _header(distribution: importlib.metadata.Distribution, key: str) -> str | None:
    try:
        return str(distribution.metadata[key] or "") or None
    except Exception:  # no METADATA file, or one that cannot be read
        return None


def _named(module: str) -> Source:
    path = Path(module)
    if path.suffix == ".py":
        return lambda: _import_file(path.resolve())
    return lambda: importlib.import_module(module)


def _import_file(path: Path) -> ModuleType:
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get("__file__") == str(path):
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


def _load(record: Record, source: Source | None) -> tuple[Record, Kinds]:
    if source is None:
        return record, {}
    try:
        kinds = _collect(source())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and panics of extension modules, included
        return _broken(record, error), {}
    return replace(record, kinds=tuple(kinds)), kinds


def _broken(record: Record, error: BaseException) -> Record:
    trace = "".join(traceback.format_exception(error))
    return replace(record, status="broken", cause=_line(error), traceback=trace)


def _line(error: BaseException) -> str:
    """Says in one line what was raised, and on which line of whose file."""
    words = " ".join(str(error).split())
    if isinstance(error, PluginError):
        return words
    if isinstance(error, pluggy.PluginValidationError):
        return f"{words}; the one hook is mmgen_modalities()"
    trace = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in trace if not frame.filename.startswith(LOADERS)]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {words}{place}"


def _collect(plugin: object) -> Kinds:
    """Calls a plugin's hook, in a manager of its own, and checks what it returns."""
    manager = pluggy.PluginManager(hooks.GROUP)
    manager.add_hookspecs(hooks)
    manager.register(plugin)
    manager.check_pending()
    if not manager.hook.mmgen_modalities.get_hookimpls():
        raise PluginError("it has no function mmgen_modalities() marked @hookimpl")
    kinds: Kinds = {}
    for classes in manager.hook.mmgen_modalities() or [None]:  # pluggy leaves out None
        if not isinstance(classes, list | tuple):
            raise PluginError(f"mmgen_modalities() must return a list of classes, not {classes!r}")
        for cls in classes:
            _check(cls)
            if cls.kind in kinds:
                raise PluginError(f"mmgen_modalities() returns kind {cls.kind!r} twice")
            kinds[cls.kind] = cls
    if not kinds:
        raise PluginError("mmgen_modalities() returns no class")
    return kinds


def _check(cls: Any) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Modality)):
        raise PluginError(f"mmgen_modalities() returns {cls!r}, which is no class of Modality")
    who = f"class {cls.__name__}"
    own = cls.__mro__[: cls.__mro__.index(Modality)]
    declared = {name: value for base in reversed(own) for name, value in vars(base).items()}
    for line in ("kind: ClassVar[str]", "api_version: ClassVar[int]"):
        if line.split(":")[0] not in declared:
            raise PluginError(f"{who} does not declare {line} = ...")
    kind, version = declared["kind"], declared["api_version"]
    if not (isinstance(kind, str) and re.fullmatch("[a-z][a-z0-9_-]*", kind)):
        raise PluginError(f"{who} has kind {kind!r}; it is made of lower-case letters, digits, - _")
    if type(version) is not int or version != hooks.API_VERSION:
        mend = f"this mmgen has {hooks.API_VERSION}: install versions of the two that fit"
        raise PluginError(f"{who} is written for api_version {version!r}, but {mend}")
    if inspect.isabstract(cls):
        raise PluginError(f"{who} is abstract: it lacks {listed(sorted(cls.__abstractmethods__))}")
