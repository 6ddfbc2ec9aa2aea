"""Loads plugins one by one, records what became of each, and looks up what they provide.

A plugin is a module named in the entry-point group ``mmgen``, or by hand, with one or several
hooks of :mod:`mmgen.hooks`. One that breaks is a record with a cause, never an exception, until
something that it provides is needed: the healthy ones beside it keep working.

Nothing here imports torch, or pydantic: a plugin that needs neither is loaded without.
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from mmgen.brief import OneLine
from mmgen.console import stderr
from mmgen.errors import ConfigError, PluginError, listed, nearest
from mmgen.isolation import attempt
from mmgen.registry.contracts import CONTRACTS, offered
from mmgen.registry.discovery import (
    ALLOW_LIST,
    Found,
    Record,
    broken,
    first_party,
    installed,
    named,
    one_line,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mmgen.command import Command
    from mmgen.modality import Modality
    from mmgen.model import Model, ModelSettings
    from mmgen.source import Source

T = TypeVar("T")
M = TypeVar("M", bound="BaseModel")

Offer = tuple[str, str]
"""What is provided: the noun of a contract, and a name."""

Offers = Mapping[Offer, Any]

PATIENCE = 5.0
"""The seconds after which a note names the plugin that is still being imported."""


@dataclass(frozen=True, repr=False)
class Registry(OneLine):
    """What can be used, by name, and a record of every plugin. Immutable.

    Attributes:
        records: One per plugin, in the order of loading.
        kinds: The modality class of each kind.
        models: The model class of each kind.
        modules: The plugins named by hand, as with ``mmgen -p``.
        sources: The class of each kind of data source.
        commands: The commands that plugins add to the command line, by verb.
    """

    records: tuple[Record, ...]
    kinds: "Mapping[str, type[Modality]]" = field(default_factory=dict)
    models: "Mapping[str, type[Model]]" = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    sources: "Mapping[str, type[Source]]" = field(default_factory=dict)
    commands: "Mapping[str, Command]" = field(default_factory=dict)

    def __post_init__(self) -> None:
        for contract in CONTRACTS:
            classes = dict(getattr(self, contract.plural))
            object.__setattr__(self, contract.plural, MappingProxyType(classes))

    def get(self, kind: str) -> "type[Modality]":
        """Returns the modality class of a kind.

        Raises:
            PluginError: If no working plugin provides it; the message lists why others do not work.
        """
        return self._get("modality kind", self.kinds, kind)

    def model(self, kind: str) -> "type[Model]":
        """Returns the model class of a kind.

        Raises:
            PluginError: If no working plugin provides it; the message lists why others do not work.
        """
        return self._get("model kind", self.models, kind)

    def source(self, kind: str) -> "type[Source]":
        """Returns the class of a kind of data source.

        Raises:
            PluginError: If no working plugin provides it; the message lists why others do not work.
        """
        return self._get("source kind", self.sources, kind)

    def command(self, name: str) -> "Command":
        """Returns the command of a verb.

        Raises:
            PluginError: If no working plugin provides it; the message lists why others do not work.
        """
        return self._get("command", self.commands, name)

    def _get(self, noun: str, items: Mapping[str, T], name: str) -> T:
        if name in items:
            return items[name]
        what, _, kind = noun.partition(" ")
        lines = [f"no plugin provides {noun} {name!r}{nearest(name, items)}"]
        lines += [f"{'kinds' if kind else f'{what}s'}: {listed(sorted(items))}"]
        lines += [f"{r.status} plugin {r}: {r.cause}" for r in self.records if r.status != "ok"]
        lines += ["a plugin in a file of its own is named before the verb: mmgen -p FILE.py ..."]
        raise PluginError("\n  ".join(lines))

    def provider(self, kind: str) -> Record:
        """Returns the record of the plugin that provides a modality kind.

        Raises:
            PluginError: If none does.
        """
        return self._provider("kinds", kind, self.get(kind))

    def model_provider(self, kind: str) -> Record:
        """Returns the record of the plugin that provides a model kind.

        Raises:
            PluginError: If none does.
        """
        return self._provider("models", kind, self.model(kind))

    def source_provider(self, kind: str) -> Record:
        """Returns the record of the plugin that provides a kind of data source.

        Raises:
            PluginError: If none does.
        """
        return self._provider("sources", kind, self.source(kind))

    def _provider(self, plural: str, kind: str, cls: type) -> Record:
        names: dict[str, Any] = {plural: (kind,)}
        made_by_hand = Record(cls.__module__, **names)
        return next((r for r in self.records if kind in getattr(r, plural)), made_by_hand)

    def create(self, name: str, settings: Mapping[str, Any]) -> "Modality":
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
        return _made(cls, settings, where, f"kind {kind!r} of plugin {self.provider(kind)}")

    def model_settings(self, settings: Mapping[str, Any]) -> "ModelSettings":
        """Builds the settings of a configuration's model.

        Args:
            settings: Its ``kind``, and the fields of that kind's ``Settings``.

        Raises:
            ConfigError: If a setting is unknown or impossible; the message names its key.
            PluginError: If no plugin provides the kind, or the plugin itself fails.
        """
        kind = str(settings.get("kind"))
        try:
            cls = self.model(kind)
        except PluginError as error:
            raise PluginError(f"model.kind: {error}") from None
        plugin = f"model {kind!r} of plugin {self.model_provider(kind)}"
        return _made(cls.Settings, settings, "model", plugin)

    def make_source(self, kind: str, options: Mapping[str, Any]) -> "Source":
        """Builds a data source of the values of its fields.

        Raises:
            ConfigError: If an option is unknown or impossible; the message names it.
            PluginError: If no plugin provides the kind, or the plugin itself fails.
        """
        cls = self.source(kind)
        plugin = f"source {kind!r} of plugin {self.source_provider(kind)}"
        return _made(cls, options, "", plugin)


def _made(cls: type[M], settings: Mapping[str, Any], where: str, plugin: str) -> M:
    """Builds what a class makes of settings, whose key ``kind`` is left out."""
    from pydantic import ValidationError

    from mmgen.experiment import explain

    fields = {str(key): value for key, value in settings.items() if key != "kind"}
    made = attempt(lambda: cls(**fields))
    if isinstance(made.error, ValidationError):
        known = f"settings of {plugin}: {listed(cls.model_fields)}"
        raise ConfigError(f"{explain(made.error, cls, where)}\n  {known}") from None
    if made.value is None:
        fault = made.error or TypeError("made nothing")
        wrong = f"{where and f'{where}: '}{plugin} failed on these settings: {one_line(fault)}"
        raise PluginError(wrong) from fault
    return made.value


def load(
    modules: Sequence[str | Path] = (),
    environ: Mapping[str, str] = os.environ,
    found: Iterable[Found] | None = None,
) -> Registry:
    """Loads every installed plugin, and those named by hand.

    Args:
        modules: Importable modules, or paths of ``.py`` files: plugins that are not installed.
        environ: Where the allow-list ``MMGEN_PLUGINS`` is looked up; it does not concern
            ``modules``.
        found: The installed ones to load, instead of all that the allow-list leaves.

    Returns:
        What can be used, and one record per plugin. No fault of a plugin raises.
    """
    named_by_hand = tuple(map(str, modules))  # in Python, files are often a Path
    found = [*(installed(environ.get(ALLOW_LIST)) if found is None else found)]
    found += [Found(Record(module), named(module)) for module in named_by_hand]
    loaded = [_load(each) for each in found]
    # Two plugins may hand over the very same class: that is no conflict.
    owners: dict[Offer, dict[Any, list[Record]]] = {}
    for record, offers in loaded:
        for offer, item in offers.items():
            owners.setdefault(offer, {}).setdefault(item, []).append(record)
    winners = {offer: _winner(items) for offer, items in sorted(owners.items())}
    used = {offer: item for offer, item in winners.items() if item}
    records = tuple(_settle(record, offers, owners, used) for record, offers in loaded)
    return Registry(records, modules=named_by_hand, **_by_contract(used))


def _by_contract(offers: Mapping[Offer, T]) -> dict[str, dict[str, T]]:
    """Sorts what is offered by the registry's attributes."""
    return {
        contract.plural: {
            name: item for (noun, name), item in offers.items() if noun == contract.noun
        }
        for contract in CONTRACTS
    }


def _winner(items: Mapping[Any, Sequence[Record]]) -> Any:
    """Returns the item of a name: the only one, else the one that ships with mmgen, else none."""
    if len(items) > 1:
        items = {item: rs for item, rs in items.items() if any(map(first_party, rs))}
    return next(iter(items)) if len(items) == 1 else None


def _settle(
    record: Record,
    offers: Offers,
    owners: Mapping[Offer, Mapping[Any, Sequence[Record]]],
    used: Offers,
) -> Record:
    """Returns a plugin's record without what it lost to another, which it names."""
    lost = [offer for offer, item in offers.items() if used.get(offer) != item]
    causes = []
    for offer in lost:
        rivals = [item for item in owners[offer] if item != offers[offer]]
        if offer in used:
            rivals = [used[offer]]
            fix = ", which comes with mmgen and is used: give this one another name, or list all"
            fix += f" other plugins in {ALLOW_LIST}"
        else:
            fix = f"; neither is used: uninstall one, or list the plugins to load in {ALLOW_LIST}"
        others = listed(str(other) for item in rivals for other in owners[offer][item])
        what = "command" if offer[0] == "command" else "kind"
        causes.append(f"{what} {offer[1]!r} is also provided by {others}{fix}")
    if not causes:
        return record
    left = {offer: item for offer, item in offers.items() if offer not in lost}
    return replace(_with_offers(record, left), status="broken", cause="; ".join(causes))


def _with_offers(record: Record, offers: Offers) -> Record:
    kinds: dict[str, Any] = {n: tuple(items) for n, items in _by_contract(offers).items()}
    return replace(record, **kinds)


def _load(found: Found) -> tuple[Record, Offers]:
    record, load = found.record, found.load
    if load is None:
        return record, {}
    words = f"still importing plugin {record} ..."
    notice = threading.Timer(PATIENCE, lambda: stderr.print(words))
    notice.daemon = True
    notice.start()
    try:
        done = attempt(lambda: _collect(load()))
    finally:
        notice.cancel()
    notes = [change.note("at import") for change in done.changes]
    if done.value is None:
        record = replace(record, warnings=tuple(notes))
        return broken(record, done.error or PluginError("it gave nothing")), {}
    record = replace(record, warnings=(*notes, *_unlisted(found, done.value)))
    return _with_offers(record, done.value), done.value


def _unlisted(found: Found, offers: Offers) -> list[str]:
    """Says which words an installed plugin does not list, so that the command line lacks them."""
    if found.listed is None:
        return []
    return [
        f"{contract.noun} {name!r} is not found by mmgen --help: add {name} with this plugin's "
        f'module to [project.entry-points."{contract.group}"]'
        for contract in CONTRACTS
        if contract.group
        for noun, name in offers
        if noun == contract.noun and name not in found.listed[contract.group]
    ]


def _collect(plugin: object) -> Offers:
    return {(contract.noun, contract.name(item)): item for contract, item in offered(plugin)}
