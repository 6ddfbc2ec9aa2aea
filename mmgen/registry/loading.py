"""Loads plugins one by one, records what became of each, and looks up modality kinds.

A plugin is a module named in the entry-point group ``mmgen``, or by hand, with one hook:
:func:`mmgen.hooks.mmgen_modalities`. One that breaks is a record with a cause, never an
exception, until a configuration needs its kind: the healthy ones beside it keep working.
"""

import inspect
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import pluggy
from pydantic import ValidationError

from mmgen import hooks
from mmgen.brief import OneLine
from mmgen.console import stderr
from mmgen.errors import ConfigError, PluginError, listed, nearest
from mmgen.experiment import explain
from mmgen.isolation import attempt
from mmgen.modality import Modality
from mmgen.registry.discovery import (
    ALLOW_LIST,
    Record,
    Source,
    broken,
    first_party,
    installed,
    named,
    one_line,
)

Kinds = dict[str, type[Modality]]

PATIENCE = 5.0
"""The seconds after which a note names the plugin that is still being imported."""


@dataclass(frozen=True, repr=False)
class Registry(OneLine):
    """The modality kinds that can be used, and a record of every plugin. Immutable.

    Attributes:
        records: One per plugin, in the order of loading.
        kinds: The modality class of each kind that can be used.
        modules: The plugins named by hand, as with ``mmgen -p``.
    """

    records: tuple[Record, ...]
    kinds: Mapping[str, type[Modality]]
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", MappingProxyType(dict(self.kinds)))

    def get(self, kind: str) -> type[Modality]:
        """Returns the class of a kind.

        Raises:
            PluginError: If no working plugin provides it; the message lists why others do not work.
        """
        if kind in self.kinds:
            return self.kinds[kind]
        lines = [f"no plugin provides modality kind {kind!r}{nearest(kind, self.kinds)}"]
        lines += [f"kinds: {listed(sorted(self.kinds))}"]
        lines += [f"{r.status} plugin {r}: {r.cause}" for r in self.records if r.status != "ok"]
        lines += ["a plugin in a file of its own is named before the verb: mmgen -p FILE.py ..."]
        raise PluginError("\n  ".join(lines))

    def provider(self, kind: str) -> Record:
        """Returns the record of the plugin that provides a kind.

        Raises:
            PluginError: If none does.
        """
        made_by_hand = Record(self.get(kind).__module__, kinds=(kind,))
        return next((record for record in self.records if kind in record.kinds), made_by_hand)

    def create(self, name: str, settings: Mapping[str, Any]) -> Modality:
        """Builds the modality ``name`` of a configuration.

        Args:
            name: The user's name for it: ``[modalities.NAME]``.
            settings: Its ``kind``, and the fields of that kind.

        Raises:
            ConfigError: If a setting is unknown or impossible; the message names its key.
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
        fields = {str(key): value for key, value in settings.items() if key != "kind"}
        made = attempt(lambda: cls(**fields))
        if isinstance(made.error, ValidationError):
            known = f"settings of {plugin}: {listed(cls.model_fields)}"
            raise ConfigError(f"{explain(made.error, cls, where)}\n  {known}") from None
        if made.value is None:
            fault = made.error or TypeError("made nothing")
            wrong = f"{where}: {plugin} failed on these settings: {one_line(fault)}"
            raise PluginError(wrong) from fault
        return made.value


def load(modules: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> Registry:
    """Loads every installed plugin, and those named by hand.

    Args:
        modules: Importable modules, or paths of ``.py`` files: plugins that are not installed.
        environ: Where the allow-list ``MMGEN_PLUGINS`` is looked up; it does not concern
            ``modules``.

    Returns:
        The kinds that can be used, and one record per plugin. No fault of a plugin raises.
    """
    found = [*installed(environ.get(ALLOW_LIST)), *((Record(m), named(m)) for m in modules)]
    loaded = [_load(record, source) for record, source in found]
    # Two plugins may hand over the very same class: that is no conflict.
    owners: dict[str, dict[type[Modality], list[Record]]] = {}
    for record, classes in loaded:
        for kind, cls in classes.items():
            owners.setdefault(kind, {}).setdefault(cls, []).append(record)
    winners = {kind: _winner(classes) for kind, classes in sorted(owners.items())}
    kinds = {kind: cls for kind, cls in winners.items() if cls}
    records = tuple(_settle(record, classes, owners, kinds) for record, classes in loaded)
    return Registry(records, kinds, tuple(modules))


def _winner(classes: Mapping[type[Modality], Sequence[Record]]) -> type[Modality] | None:
    """Returns the class of a kind: the only one, else the one that ships with mmgen, else none."""
    if len(classes) > 1:
        classes = {cls: rs for cls, rs in classes.items() if any(map(first_party, rs))}
    return next(iter(classes)) if len(classes) == 1 else None


def _settle(
    record: Record,
    classes: Kinds,
    owners: Mapping[str, Mapping[type[Modality], Sequence[Record]]],
    kinds: Kinds,
) -> Record:
    """Returns a plugin's record without the kinds that it lost to another, which it names."""
    lost = [kind for kind, cls in classes.items() if kinds.get(kind) is not cls]
    causes = []
    for kind in lost:
        rivals = [cls for cls in owners[kind] if cls is not classes[kind]]
        if kind in kinds:
            rivals = [kinds[kind]]
            fix = ", which comes with mmgen and is used: give this one another kind, or list all"
            fix += f" other plugins in {ALLOW_LIST}"
        else:
            fix = f"; neither is used: uninstall one, or list the plugins to load in {ALLOW_LIST}"
        others = listed(str(other) for cls in rivals for other in owners[kind][cls])
        causes.append(f"kind {kind!r} is also provided by {others}{fix}")
    if not causes:
        return record
    left = tuple(kind for kind in record.kinds if kind not in lost)
    return replace(record, status="broken", kinds=left, cause="; ".join(causes))


def _load(record: Record, source: Source | None) -> tuple[Record, Kinds]:
    if source is None:
        return record, {}
    notice = threading.Timer(PATIENCE, stderr.print, [f"still importing plugin {record} ..."])
    notice.daemon = True
    notice.start()
    try:
        done = attempt(lambda: _collect(source()))
    finally:
        notice.cancel()
    record = replace(record, warnings=tuple(change.note("at import") for change in done.changes))
    if done.value is None:
        return broken(record, done.error or PluginError("it gave nothing")), {}
    return replace(record, kinds=tuple(done.value)), done.value


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
        fix = f"this mmgen has {hooks.API_VERSION}: install versions of the two that fit"
        raise PluginError(f"{who} is written for api_version {version!r}, but {fix}")
    for flag in ("multi_column", "cells_are_paths"):
        if type(getattr(cls, flag)) is not bool:
            raise PluginError(f"{who} has {flag} = {getattr(cls, flag)!r}; give True or False")
    if inspect.isabstract(cls):
        raise PluginError(f"{who} is abstract: it lacks {listed(sorted(cls.__abstractmethods__))}")
    try:
        cls.from_examples()
    except ValidationError as error:
        # A field without a default and without examples is the user's to set, and no fault.
        if any(item["type"] != "missing" for item in error.errors()):
            raise PluginError(f"{who} has impossible defaults: {explain(error, cls)}") from error
