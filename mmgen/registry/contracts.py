"""What plugins may provide: one contract per hook, and what an item must be to enter by it."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pluggy

from mmgen import distribution, hooks
from mmgen.brief import OneLine
from mmgen.errors import PluginError, listed

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mmgen.command import Command
    from mmgen.modality import Modality
    from mmgen.model import Model
    from mmgen.source import Source

WORD = re.compile("[a-z][a-z0-9_-]*")


@dataclass(frozen=True, repr=False)
class Contract(OneLine):
    """What one hook provides.

    Attributes:
        noun: ``"modality"``: what an item is called in messages.
        plural: The attribute of records and of the registry: ``"kinds"``.
        hook: The hook's name.
        home: The module of :attr:`base`, and its name there.
        check: Raises ``PluginError`` if an item cannot be used.
        group: The entry-point group of words of the command line, where items are such words.
        key: The attribute of an item that is its name.
        items: What the hook returns a list of.
    """

    noun: str
    plural: str
    hook: str
    home: tuple[str, str]
    check: Callable[[Any], None]
    group: str = ""
    key: str = "kind"
    items: str = "classes"

    @property
    def base(self) -> type:
        """The class that authors derive theirs from, or make an object of.

        It is imported when it is asked for: a plugin that adds a command needs no torch.
        """
        module, name = self.home
        return getattr(import_module(module), name)  # type: ignore[no-any-return]

    def name(self, item: Any) -> str:
        """Returns an item's name: the kind of a class, the verb of a command."""
        return str(getattr(item, self.key))


def offered(plugin: object) -> Iterator[tuple[Contract, Any]]:
    """Calls a plugin's hooks, in a manager of its own, and yields what they return, checked.

    Raises:
        PluginError: If it has no hook, or one returns what is no use.
    """
    manager = pluggy.PluginManager(distribution.GROUP)
    manager.add_hookspecs(hooks)
    manager.register(plugin)
    manager.check_pending()
    found = 0
    for contract in CONTRACTS:
        hook = getattr(manager.hook, contract.hook)
        if not hook.get_hookimpls():
            continue
        found += 1
        yield from ((contract, item) for item in _returned(contract, hook()))
    if not found:
        raise PluginError(f"it has no function such as {CONTRACTS[0].hook}() marked @hookimpl")


def _returned(contract: Contract, results: Iterable[Any]) -> Iterator[Any]:
    hook, names = f"{contract.hook}()", set()
    for items in results or [None]:  # pluggy leaves out None
        if not isinstance(items, list | tuple):
            raise PluginError(f"{hook} must return a list of {contract.items}, not {items!r}")
        for item in items:
            contract.check(item)
            name = contract.name(item)
            if name in names:
                raise PluginError(f"{hook} returns {contract.key} {name!r} twice")
            names.add(name)
            yield item
    if not names:
        raise PluginError(f"{hook} returns no {'class' if contract.key == 'kind' else 'command'}")


def _check_class(cls: Any, contract: Contract) -> None:
    """Checks that it is a class of the contract, which says itself what that one leaves open."""
    base = contract.base
    if not (isinstance(cls, type) and issubclass(cls, base)):
        hook = f"{contract.hook}()"
        raise PluginError(f"{hook} returns {cls!r}, which is no class of {base.__name__}")
    who = f"class {cls.__name__}"
    own = cls.__mro__[: cls.__mro__.index(base)]
    declared = {name: value for parent in reversed(own) for name, value in vars(parent).items()}
    for line in ("kind: ClassVar[str]", "api_version: ClassVar[int]"):
        if line.split(":")[0] not in declared:
            raise PluginError(f"{who} does not declare {line} = ...")
    kind, version = declared["kind"], declared["api_version"]
    if not (isinstance(kind, str) and WORD.fullmatch(kind)):
        raise PluginError(f"{who} has kind {kind!r}; it is made of lower-case letters, digits, - _")
    if type(version) is not int or version != hooks.API_VERSION:
        fix = f"this mmgen has {hooks.API_VERSION}: install versions of the two that fit"
        raise PluginError(f"{who} is written for api_version {version!r}, but {fix}")


def _check_whole(cls: Any) -> None:
    if inspect.isabstract(cls):
        missing = listed(sorted(cls.__abstractmethods__))
        raise PluginError(f"class {cls.__name__} is abstract: it lacks {missing}")


def _check_modality(cls: "type[Modality]") -> None:
    _check_class(cls, MODALITY)
    for flag in ("multi_column", "cells_are_paths"):
        if type(getattr(cls, flag)) is not bool:
            given = getattr(cls, flag)
            raise PluginError(f"class {cls.__name__} has {flag} = {given!r}; give True or False")
    _check_whole(cls)
    _check_defaults(cls, cls.from_examples)


def _check_model(cls: "type[Model]") -> None:
    from mmgen.model import ModelSettings

    _check_class(cls, MODEL)
    _check_whole(cls)
    settings = cls.Settings
    if not (isinstance(settings, type) and issubclass(settings, ModelSettings)):
        raise PluginError(f"class {cls.__name__}: Settings is no class of ModelSettings")
    if "kind" in settings.model_fields:
        raise PluginError(f"class {cls.__name__}: Settings has a field kind, which names the model")
    _check_defaults(settings, settings)


def _check_source(cls: "type[Source]") -> None:
    from mmgen.registry.options import options
    from mmgen.source import OWN

    _check_class(cls, SOURCE)
    if cls.kind in OWN:
        raise PluginError(f"class {cls.__name__}: mmgen data has a {cls.kind} of its own")
    _check_whole(cls)
    options(cls)
    _check_defaults(cls, cls)


def _check_command(command: "Command") -> None:
    import typer

    from mmgen.command import OWN, Command

    if not isinstance(command, Command):
        raise PluginError(f"{COMMAND.hook}() returns {command!r}, which is no Command")
    name = command.name
    if not (isinstance(name, str) and WORD.fullmatch(name)):
        raise PluginError(f"command {name!r}: a name is made of lower-case letters, digits, - _")
    if name in OWN:
        raise PluginError(f"command {name!r} is one of mmgen's own: give it another name")
    if not (isinstance(command.help, str) and command.help.strip()):
        raise PluginError(f"command {name!r} has no help: say in a line what it does")
    if not (isinstance(command.app, typer.Typer) or inspect.isroutine(command.app)):
        raise PluginError(
            f"command {name!r}: app is a typer app or a function, not {command.app!r}"
        )


def _check_defaults(cls: "type[BaseModel]", make: Callable[[], object]) -> None:
    from pydantic import ValidationError

    from mmgen.experiment import explain

    try:
        make()
    except ValidationError as error:
        # A field without a default and without examples is the user's to set, and no fault.
        if any(item["type"] != "missing" for item in error.errors()):
            causes = explain(error, cls)
            raise PluginError(f"class {cls.__name__} has impossible defaults: {causes}") from error


MODALITY = Contract(
    "modality", "kinds", "mmgen_modalities", ("mmgen.modality", "Modality"), _check_modality
)
MODEL = Contract("model", "models", "mmgen_models", ("mmgen.model", "Model"), _check_model)
SOURCE = Contract(
    "source",
    "sources",
    "mmgen_sources",
    ("mmgen.source", "Source"),
    _check_source,
    distribution.SOURCES,
)
COMMAND = Contract(
    "command",
    "commands",
    "mmgen_commands",
    ("mmgen.command", "Command"),
    _check_command,
    distribution.COMMANDS,
    key="name",
    items="commands",
)
CONTRACTS = (MODALITY, MODEL, SOURCE, COMMAND)
