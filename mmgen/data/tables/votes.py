"""Asks the kinds how well they match a table's columns, and for the settings they infer.

A kind whose plugin fails at this has no vote, and the columns go to the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from mmgen import shell
from mmgen.brief import OneLine
from mmgen.console import stderr
from mmgen.errors import MmgenError, PluginError, listed
from mmgen.isolation import attempt
from mmgen.modality import Modality
from mmgen.registry.discovery import one_line
from mmgen.registry.loading import Registry

SAMPLE = 5000
"""The most cells of a column, evenly spaced, from which its kind is guessed."""


class NoVoteError(Exception):
    """A failure of a kind to judge a column, where the user did not ask for the kind by name."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


@dataclass(frozen=True, repr=False)
class Voters(OneLine):
    """The kinds that are asked how well they match a column.

    Attributes:
        registry: The registry of the kinds.
        kinds: Those that have a vote.
        notes: The notes that were printed.
    """

    registry: Registry
    kinds: dict[str, type[Modality]]
    notes: set[str] = field(default_factory=set)

    def leave_out(self, fault: NoVoteError) -> None:
        """Takes a kind's vote away, and prints a note."""
        del self.kinds[fault.kind]
        self._note(f"{fault}; it has no say in which columns are whose")

    def match_score(self, cls: type[Modality], cells: Sequence[str]) -> float:
        """Returns a kind's score of a column.

        Raises:
            NoVoteError: If it raises, or gives no number from 0 to 1.
        """
        if not cells:
            return 0.0
        sample = cells[:: max(1, len(cells) // SAMPLE)]
        asked = attempt(lambda: _share(cls.match_score(sample)))
        who = f"kind {cls.kind!r} of plugin {self.registry.provider(cls.kind)}"
        for change in asked.changes:
            self._note(f"{who} {change.note('when it judges a column')}")
        if asked.value is None:
            fault = asked.error or TypeError("it gave nothing")
            words = f"{who} failed to judge a column: {one_line(fault)}"
            raise NoVoteError(cls.kind, words) from fault
        return asked.value

    def infer_settings(
        self, cls: type[Modality], cells: Mapping[str, Sequence[str]], *, guessed: bool
    ) -> dict[str, Any]:
        """Returns the settings that a kind infers from columns.

        Raises:
            NoVoteError: If it fails, and nobody asked for it by its name.
            PluginError: If it fails otherwise.
        """
        doing = f"read settings off {listed(cells)}"
        asked = attempt(lambda: _fields(cls.infer_settings(cells)))
        for change in asked.changes:
            self._note(f"kind {cls.kind!r} {change.note(f'when it is to {doing}')}")
        if asked.value is None:
            fault = asked.error or TypeError("it gave nothing")
            failed = _failed(cls, self.registry, doing, fault)
            if guessed:
                raise NoVoteError(cls.kind, str(failed).splitlines()[0]) from fault
            raise failed from fault
        return asked.value

    def _note(self, note: str) -> None:
        """Prints a note once, however many columns there are."""
        if note not in self.notes:
            self.notes.add(note)
            stderr.print(f"note: {note}")


@contextmanager
def blaming(cls: type[Modality], registry: Registry, doing: str) -> Iterator[None]:
    """Turns what a plugin raises into an error that names it and what it failed to do."""
    try:
        yield
    except MmgenError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(cls, registry, doing, error) from error


def _failed(
    cls: type[Modality], registry: Registry, doing: str, error: BaseException
) -> PluginError:
    check = shell.command("plugins", "check", cls.kind, plugins=registry.modules)
    return PluginError(
        f"kind {cls.kind!r} of plugin {registry.provider(cls.kind)} failed to {doing}: "
        f"{one_line(error)}\nTry: {check}"
    )


def _share(score: Any) -> float:
    if not isinstance(score, Real) or not 0 <= float(score) <= 1:
        raise PluginError(f"match_score() gave {score!r}; give a number from 0 to 1")
    return float(score)


def _fields(settings: Any) -> dict[str, Any]:
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        raise PluginError(
            f"infer_settings() gave {settings!r}; give a dictionary of the kind's fields"
        )
    return dict(settings)
