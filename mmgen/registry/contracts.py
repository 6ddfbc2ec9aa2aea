"""What plugins may provide: one contract per hook, and what a class must be to enter by it."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from mmgen import hooks
from mmgen.errors import PluginError, listed
from mmgen.experiment import explain
from mmgen.modality import Modality
from mmgen.model import Model, ModelSettings


@dataclass(frozen=True)
class Contract:
    """What one hook provides.

    Attributes:
        noun: ``"modality"``: what a class is called in messages.
        plural: The attribute of records and of the registry: ``"kinds"``.
        hook: The hook's name.
        base: The class that authors derive theirs from.
        check: Raises ``PluginError`` if a class of ``base`` cannot be used.
    """

    noun: str
    plural: str
    hook: str
    base: type
    check: Callable[[Any], None]


def offered(plugin: object) -> Iterator[tuple[Contract, type]]:
    """Calls a plugin's hooks, in a manager of its own, and yields what they return, checked.

    Raises:
        PluginError: If it has no hook, or one returns what is no use.
    """
    manager = pluggy.PluginManager(hooks.GROUP)
    manager.add_hookspecs(hooks)
    manager.register(plugin)
    manager.check_pending()
    found = 0
    for contract in CONTRACTS:
        hook = getattr(manager.hook, contract.hook)
        if not hook.get_hookimpls():
            continue
        found += 1
        yield from ((contract, cls) for cls in _returned(contract, hook()))
    if not found:
        raise PluginError(f"it has no function {_spoken()} marked @hookimpl")


def _spoken() -> str:
    *some, last = (f"{contract.hook}()" for contract in CONTRACTS)
    return f"{', '.join(some)} or {last}"


def _returned(contract: Contract, results: Iterable[Any]) -> Iterator[type]:
    hook, kinds = f"{contract.hook}()", set()
    for classes in results or [None]:  # pluggy leaves out None
        if not isinstance(classes, list | tuple):
            raise PluginError(f"{hook} must return a list of classes, not {classes!r}")
        for cls in classes:
            if not (isinstance(cls, type) and issubclass(cls, contract.base)):
                noun = contract.base.__name__
                raise PluginError(f"{hook} returns {cls!r}, which is no class of {noun}")
            _check_declarations(cls, contract.base)
            contract.check(cls)
            if cls.kind in kinds:  # type: ignore[attr-defined]
                raise PluginError(f"{hook} returns kind {cls.kind!r} twice")  # type: ignore[attr-defined]
            kinds.add(cls.kind)  # type: ignore[attr-defined]
            yield cls
    if not kinds:
        raise PluginError(f"{hook} returns no class")


def _check_declarations(cls: type, base: type) -> None:
    """Checks what the class itself must say, and not leave to the contract's class."""
    who = f"class {cls.__name__}"
    own = cls.__mro__[: cls.__mro__.index(base)]
    declared = {name: value for parent in reversed(own) for name, value in vars(parent).items()}
    for line in ("kind: ClassVar[str]", "api_version: ClassVar[int]"):
        if line.split(":")[0] not in declared:
            raise PluginError(f"{who} does not declare {line} = ...")
    kind, version = declared["kind"], declared["api_version"]
    if not (isinstance(kind, str) and re.fullmatch("[a-z][a-z0-9_-]*", kind)):
        raise PluginError(f"{who} has kind {kind!r}; it is made of lower-case letters, digits, - _")
    if type(version) is not int or version != hooks.API_VERSION:
        fix = f"this mmgen has {hooks.API_VERSION}: install versions of the two that fit"
        raise PluginError(f"{who} is written for api_version {version!r}, but {fix}")


def _check_whole(cls: Any) -> None:
    if inspect.isabstract(cls):
        missing = listed(sorted(cls.__abstractmethods__))
        raise PluginError(f"class {cls.__name__} is abstract: it lacks {missing}")


def _check_modality(cls: type[Modality]) -> None:
    for flag in ("multi_column", "cells_are_paths"):
        if type(getattr(cls, flag)) is not bool:
            given = getattr(cls, flag)
            raise PluginError(f"class {cls.__name__} has {flag} = {given!r}; give True or False")
    _check_whole(cls)
    _check_defaults(cls, cls.from_examples)


def _check_model(cls: type[Model]) -> None:
    _check_whole(cls)
    settings = cls.Settings
    if not (isinstance(settings, type) and issubclass(settings, ModelSettings)):
        raise PluginError(f"class {cls.__name__}: Settings is no class of ModelSettings")
    if "kind" in settings.model_fields:
        raise PluginError(f"class {cls.__name__}: Settings has a field kind, which names the model")
    _check_defaults(settings, settings)


def _check_defaults(cls: type[BaseModel], make: Callable[[], object]) -> None:
    try:
        make()
    except ValidationError as error:
        # A field without a default and without examples is the user's to set, and no fault.
        if any(item["type"] != "missing" for item in error.errors()):
            causes = explain(error, cls)
            raise PluginError(f"class {cls.__name__} has impossible defaults: {causes}") from error


CONTRACTS = (
    Contract("modality", "kinds", "mmgen_modalities", Modality, _check_modality),
    Contract("model", "models", "mmgen_models", Model, _check_model),
)
