"""The contract of a command: a verb that a plugin adds to the command line.

::

    app = typer.Typer(no_args_is_help=True)

    @app.command()
    def loudness(context: typer.Context, run: Path) -> None: ...    # mmgen audio loudness RUN

    @hookimpl
    def mmgen_commands() -> list[Command]:
        return [Command("audio", "Measure what was generated.", app)]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmgen.brief import OneLine

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer

OWN = (
    *("data", "init", "train", "generate", "edit", "encode", "fill", "evaluate", "coherence"),
    *("report", "growth", "plugins"),
)
"""The verbs that no plugin's command can have: mmgen's own."""


@dataclass(frozen=True, repr=False)
class Command(OneLine):
    """A verb of the command line: ``mmgen NAME ...``.

    An installed plugin names it in ``[project.entry-points."mmgen.commands"]`` as well, so that
    ``mmgen --help`` lists it and no other plugin is imported to run it. What the command needs
    is best imported in its functions: its help is then there at once.

    In the functions, ``context.obj.plugins`` of a ``typer.Context`` are the plugins that the user
    named with ``-p``. A :class:`~mmgen.errors.MmgenError` that is raised ends the command with its
    message and exit code 2.

    Attributes:
        name: The verb, of lower-case letters, digits and ``-``; none of :data:`OWN`.
        help: What it does, in one line.
        app: A typer app, whose commands follow the verb; or a function, of which typer makes one.
    """

    name: str
    help: str
    app: typer.Typer | Callable[..., Any]
