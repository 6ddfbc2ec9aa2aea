"""Words of the command line that plugins add: listed without an import, loaded when typed.

What a plugin adds stands in its distribution's metadata, as names of an entry-point group. So
``--help`` lists it, and of all plugins only the one whose word is typed is imported. A plugin that
is named by hand, with ``mmgen -p``, is imported for any word that is not mmgen's own.
"""

import os
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from typer.core import TyperCommand
from typer.main import get_command

from mmgen.cli.common import Group

if TYPE_CHECKING:
    from mmgen.registry.discovery import Found, Record
    from mmgen.registry.loading import Registry


class Words(Group):
    """A group of commands to which plugins add.

    Attributes:
        group: The entry-point group of the words.
        plural: What the registry calls what stands behind them.
        title: What stands above them in the help.
    """

    group: ClassVar[str]
    plural: ClassVar[str]
    title: ClassVar[str]

    def found(self, registry: "Registry", word: str) -> typer.Typer:
        """Returns an app with the command of a word.

        Raises:
            PluginError: If no plugin provides it; the message lists those that are broken.
        """
        raise NotImplementedError

    def told(self, registry: "Registry", word: str) -> str:
        """Returns the line of help of a word whose plugin is loaded; empty if it has none."""
        raise NotImplementedError

    @cached_property
    def _installed(self) -> "list[Found]":
        from mmgen.registry.discovery import ALLOW_LIST, installed

        return [*installed(os.environ.get(ALLOW_LIST))]

    @cached_property
    def listed(self) -> "dict[str, Record]":
        """The words that plugins list, and each's plugin; it may be disabled."""
        from mmgen.registry.discovery import words

        found = words(self.group, self._installed)
        return {word: record for word, record in found.items() if word not in self.commands}

    @cached_property
    def added(self) -> "dict[str, Record]":
        """Those that can be used."""
        return {word: record for word, record in self.listed.items() if record.status == "ok"}

    @cached_property
    def lines(self) -> dict[str, str]:
        """A line of help for each of them.

        Plugins that come with mmgen are asked: they import nothing heavy. Of others, which may
        import anything, the name is told.
        """
        from mmgen.registry.discovery import first_party

        own = {word for word, record in self.added.items() if first_party(record)}
        lines = {word: f"Of the plugin {record}." for word, record in self.added.items()}
        if own:
            registry = self._registry(own)
            lines |= {word: line for word in own if (line := self.told(registry, word))}
        return lines

    def _registry(self, words: Collection[str], modules: Sequence[str] = ()) -> "Registry":
        from mmgen.registry.discovery import listing
        from mmgen.registry.loading import load

        return load(modules, found=listing(self.group, words, self._installed))

    def list_commands(self, ctx: Any) -> list[str]:
        """Lists mmgen's own commands, then those of plugins."""
        return [*super().list_commands(ctx), *(w for w in self.added if w not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns a command; of a plugin's that was not typed, just the name and the help."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in self.added:
            return own
        return TyperCommand(cmd_name, help=self.lines[cmd_name], rich_markup_mode=None)

    def sections(self, ctx: Any) -> dict[str, list[str]]:
        """Returns mmgen's own commands, then those of plugins."""
        own = super().list_commands(ctx)
        return {"Commands": own, self.title: [w for w in self.added if w not in own]}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command that was typed: of a plugin, it is imported now."""
        word = args[0]
        if word not in self.commands:
            # Not of the context's settings: they are made after the first word is resolved.
            modules: Sequence[str] = ctx.find_root().params.get("plugin") or ()
            if word in self.listed or modules:
                self._load(word, modules)
        if word not in self.commands:  # one of them may be suggested for it
            self.commands.update({other: TyperCommand(other, hidden=True) for other in self.added})
        return super().resolve_command(ctx, args)

    def _load(self, word: str, modules: Sequence[str]) -> None:
        registry = self._registry({word}, modules)
        healthy = all(record.status == "ok" for record in registry.records)
        if healthy and word not in self.listed and word not in getattr(registry, self.plural):
            return  # misspelt
        app = self.found(registry, word)
        app.callback()(lambda: None)  # a group, even of one command
        self.commands[word] = get_command(app).commands[word]  # type: ignore[attr-defined]
