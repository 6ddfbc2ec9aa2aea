"""The command line: puts the verbs together, and turns whatever happens into an exit code."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen import __version__, stopping
from mmgen.cli import (
    coherence,
    data,
    edit,
    encode,
    evaluate,
    failures,
    fill,
    generate,
    growth,
    init,
    plugins,
    report,
    streams,
    together,
    train,
)
from mmgen.cli.common import Settings, group
from mmgen.cli.words import Words
from mmgen.console import stderr
from mmgen.distribution import COMMANDS

if TYPE_CHECKING:
    from mmgen.registry.loading import Registry


class Commands(Words):
    """The verbs; plugins add some."""

    group, plural, title = COMMANDS, "commands", "Commands of plugins"

    def found(self, registry: "Registry", word: str) -> typer.Typer:
        """Returns an app with a plugin's command."""
        command = registry.command(word)
        made = group()
        if isinstance(command.app, typer.Typer):
            made.add_typer(command.app, name=word, help=command.help)
        else:
            made.command(word, help=command.app.__doc__ or command.help)(command.app)
        return made

    def told(self, registry: "Registry", word: str) -> str:
        """Returns the command's own line."""
        return registry.commands[word].help if word in registry.commands else ""


app = group(
    name="mmgen",
    cls=Commands,
    help="Deep generative models over K modalities: any subset generates any other.",
    no_args_is_help=True,
)
app.add_typer(data.app, name="data")
app.command()(init.init)
app.command()(train.train)
app.command()(generate.generate)
app.command()(edit.edit)
app.command()(encode.encode)
app.command()(fill.fill)
app.command()(evaluate.evaluate)
app.command()(coherence.coherence)
app.command()(report.report)
app.command()(growth.growth)
app.add_typer(plugins.app, name="plugins")

SPREADING = ("--given", "--targets", "--set")
"""Options that take several values in a row: ``--given label=7 attributes=thick``."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"mmgen {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--plugin",
            metavar="FILE|MODULE",
            help="Load a one-file plugin: the path of a .py file, or a module. May be repeated.",
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error was raised: its traceback.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version of mmgen."
        ),
    ] = False,
) -> None:
    """Take the options that stand before the verb."""
    settings: Settings = context.obj
    settings.plugins.extend(plugin or [])
    settings.debug = debug


def spread(words: Sequence[str]) -> list[str]:
    """Repeats an option before each of its values, which is what the parser reads.

    Examples:
        >>> spread(["RUN", "--given", "label=7", "attributes=thick", "-n", "4"])
        ['RUN', '--given', 'label=7', '--given', 'attributes=thick', '-n', '4']
    """
    result: list[str] = []
    option = ""
    for word in words:
        if word.startswith("-"):
            option = word if word in SPREADING else ""
        elif option and result[-1] != option:
            result.append(option)
        result.append(word)
    return result


def main() -> None:
    """Runs the command line, and exits: with 0, 2 for an error, 130 if stopped, 1 for a fault."""
    streams.outlast()
    settings = Settings()
    stopped: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    error: BaseException | None = None
    code = 0
    try:
        with stopping.handled(stop):
            code = (
                app(spread(sys.argv[1:]), prog_name="mmgen", obj=settings, standalone_mode=False)
                or 0
            )
    except SystemExit as exit_:
        error = exit_.__context__ if isinstance(exit_.__context__, OSError) else None
        code = exit_.code if isinstance(exit_.code, int) else 2
    except BaseException as raised:
        error = raised
    # Whatever it was that Ctrl-C broke: an import that is cut may raise anything.
    if isinstance(error, KeyboardInterrupt) or (stopped and (error is not None or code)):
        code = stopping.CODE
        together.say(error, code, lambda: stderr.print("stopped"))
    elif error is not None:
        code = failures.code(error)
        together.say(error, code, partial(failures.report, error, debug=settings.debug))
    if (failed := streams.failure()) is not None:
        code = code or failures.report(failed, debug=False)
    raise SystemExit(code)
