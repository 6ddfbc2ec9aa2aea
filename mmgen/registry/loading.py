"""Loads plugins one by one, records what became of each, and looks up modality kinds.

A plugin is a module named in the entry-point group ``mmgen``, or by hand, with one hook:
:func:`mmgen.hooks.mmgen_modalities`. One that breaks is a record with a cause, never an
exception, until a configuration needs its kind: the healthy ones beside it keep working.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mmgen.brief import OneLine
from mmgen.console import stderr
from mmgen.errors import ConfigError, PluginError, listed, nearest
from mmgen.experiment import explain
from mmgen.isolation import attempt
from mmgen.modality import Modality
from mmgen.model import Model, ModelSettings
from mmgen.registry.contracts import CONTRACTS, offered
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

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

Offer = tuple[str, str]
"""What is provided: the noun of a contract, and a kind."""

Offers = Mapping[Offer, type]

PATIENCE = 5.0
"""The seconds after which a note names the plugin that is still being imported."""


@dataclass(frozen=True, repr=False)
class Registry(OneLine):
    """The classes that can be used, by kind, and a record of every plugin. Immutable.

    Attributes:
        records: One per plugin, in the order of loading.
        kinds: The modality class of each kind.
        models: The model class of each kind.
        modules: The plugins named by hand, as with ``mmgen -p``.
    """

    records: tuple[Record, ...]
    kinds: Mapping[str, type[Modality]] = field(default_factory=dict)
    models: Mapping[str, type[Model]] = field(default_factory=dict)
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for contract in CONTRACTS:
            classes = dict(getattr(self, contract.plural))
            object.__setattr__(self, contract.plural, MappingProxyType(classes))

    def get(self, kind: str) -> type[Modality]:
        """Returns the modality class of a kind.

        Raises:
            PluginError: If no working plugin provides it; the message lists why others do not work.
        """
        return self._get("modality", self.kinds, kind)

    def model(self, kind: str) -> type[Model]:
        """Returns the model class of a kind.

        Raises:
            PluginError: If no working plugin provides it; the message lists why others do not work.
        """
        return self._get("model", self.models, kind)

    def _get(self, noun: str, classes: Mapping[str, T], kind: str) -> T:
        if kind in classes:
            return classes[kind]
        lines = [f"no plugin provides {noun} kind {kind!r}{nearest(kind, classes)}"]
        lines += [f"kinds: {listed(sorted(classes))}"]
        lines += [f"{r.status} plugin {r}: {r.cause}" for r in self.records if r.status != "ok"]
        lines += ["a plugin in a file of its own is named before the verb: mmgen -p FILE.py ..."]
        raise PluginError("\n  ".join(lines))

    def provider(self, kind: str) -> Record:
        """Returns the record of the plugin that provides a modality kind.

        Raises:
            PluginError: If none does.
        """
        made_by_hand = Record(self.get(kind).__module__, kinds=(kind,))
        return next((record for record in self.records if kind in record.kinds), made_by_hand)

    def model_provider(self, kind: str) -> Record:
        """Returns the record of the plugin that provides a model kind.

        Raises:
            PluginError: If none does.
        """
        made_by_hand = Record(self.model(kind).__module__, models=(kind,))
        return next((record for record in self.records if kind in record.models), made_by_hand)

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
        return _made(cls, settings, where, f"kind {kind!r} of plugin {self.provider(kind)}")

    def model_settings(self, settings: Mapping[str, Any]) -> ModelSettings:
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


def _made(cls: type[M], settings: Mapping[str, Any], where: str, plugin: str) -> M:
    """Builds what a class makes of settings, whose key ``kind`` is left out."""
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
    owners: dict[Offer, dict[type, list[Record]]] = {}
    for record, offers in loaded:
        for offer, cls in offers.items():
            owners.setdefault(offer, {}).setdefault(cls, []).append(record)
    winners = {offer: _winner(classes) for offer, classes in sorted(owners.items())}
    used = {offer: cls for offer, cls in winners.items() if cls}
    records = tuple(_settle(record, offers, owners, used) for record, offers in loaded)
    return Registry(records, modules=tuple(modules), **_by_contract(used))


def _by_contract(offers: Mapping[Offer, T]) -> dict[str, dict[str, T]]:
    """Sorts what is offered by the registry's attributes."""
    return {
        contract.plural: {
            kind: cls for (noun, kind), cls in offers.items() if noun == contract.noun
        }
        for contract in CONTRACTS
    }


def _winner(classes: Mapping[type, Sequence[Record]]) -> type | None:
    """Returns the class of a kind: the only one, else the one that ships with mmgen, else none."""
    if len(classes) > 1:
        classes = {cls: rs for cls, rs in classes.items() if any(map(first_party, rs))}
    return next(iter(classes)) if len(classes) == 1 else None


def _settle(
    record: Record,
    offers: Offers,
    owners: Mapping[Offer, Mapping[type, Sequence[Record]]],
    used: Offers,
) -> Record:
    """Returns a plugin's record without the kinds that it lost to another, which it names."""
    lost = [offer for offer, cls in offers.items() if used.get(offer) is not cls]
    causes = []
    for offer in lost:
        rivals = [cls for cls in owners[offer] if cls is not offers[offer]]
        if offer in used:
            rivals = [used[offer]]
            fix = ", which comes with mmgen and is used: give this one another kind, or list all"
            fix += f" other plugins in {ALLOW_LIST}"
        else:
            fix = f"; neither is used: uninstall one, or list the plugins to load in {ALLOW_LIST}"
        others = listed(str(other) for cls in rivals for other in owners[offer][cls])
        causes.append(f"kind {offer[1]!r} is also provided by {others}{fix}")
    if not causes:
        return record
    left = {offer: cls for offer, cls in offers.items() if offer not in lost}
    return replace(_with_offers(record, left), status="broken", cause="; ".join(causes))


def _with_offers(record: Record, offers: Offers) -> Record:
    kinds: dict[str, Any] = {n: tuple(classes) for n, classes in _by_contract(offers).items()}
    return replace(record, **kinds)


def _load(record: Record, source: Source | None) -> tuple[Record, Offers]:
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
    return _with_offers(record, done.value), done.value


def _collect(plugin: object) -> Offers:
    return {(contract.noun, cls.kind): cls for contract, cls in offered(plugin)}  # type: ignore[attr-defined]
