"""What the verbs share: global options, and the options that several of them take."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mmgen.errors import ConfigError, GenerationError

if TYPE_CHECKING:
    from mmgen.run import Run


@dataclass
class Settings:
    """The options that stand before the verb.

    Attributes:
        plugins: One-file plugins: module names or paths of ``.py`` files.
        debug: Whether errors show their traceback.
    """

    plugins: list[str] = field(default_factory=list)
    debug: bool = False


class Group(TyperGroup):
    """A group of commands, of which the help shows a line each, whole."""

    def sections(self, ctx: Any) -> dict[str, list[str]]:
        """Returns the commands by the title that stands above them."""
        return {"Commands": self.list_commands(ctx)}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the sections that are not empty."""
        for title, words in self.sections(ctx).items():
            commands = [(word, self.get_command(ctx, word)) for word in words]
            shown = [(word, made) for word, made in commands if made and not made.hidden]
            lines = [(word, made.get_short_help_str(limit=1_000)) for word, made in shown]
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)


def group(*, cls: type[Group] = Group, **options: Any) -> typer.Typer:
    """Returns an app to which commands are added, whose help is plain text.

    Typer's boxes are drawn by rich, which takes longer to import than all of the help to write.
    """
    return typer.Typer(
        cls=cls,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        **options,
    )


def reachable(path: Path | None) -> Path | None:
    """Passes on a path that the system can look at, whether or not something is there.

    Raises:
        ConfigError: If its name is too long, or it lies below a file or in a barred folder.
    """
    if path is not None:
        try:
            path.stat()
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # a ValueError if the name holds a null character
            cause = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path}: cannot be reached: {cause}") from None
    return path


def all_reachable(paths: list[Path] | None) -> list[Path] | None:
    """Passes on paths as :func:`reachable` does each."""
    for path in paths or ():
        reachable(path)
    return paths


def storable(path: Path | None) -> Path | None:
    """Passes on a path of a run or a data set, as :func:`reachable` does.

    Raises:
        ConfigError: If it cannot be reached, or files of weights and data cannot be opened there.
    """
    if reachable(path) is not None:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"{path}: the name is no UTF-8, and weights and data cannot be opened there: "
                "rename it, or choose another"
            ) from None
    return path


def _weights(name: str) -> str:
    if name not in ("best", "last"):
        raise GenerationError(f"--weights {name}: it is best or last")
    return name


RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run's folder.", callback=storable)
]

MOST = 1_000_000
"""The most draws per row, iterations and the like that anyone would wait for."""

Seed = Annotated[
    int,
    typer.Option(min=0, max=2**63 - 1, help="Fixes all that is random: same seed, same numbers."),
]
Iterations = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST,
        help="Sample iteratively, in so many rounds, even where a subset has an encoder.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where to compute: auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:1 or mps.",
        show_default="auto",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        help="Which weights to take: best, of the lowest validation loss, or last.",
        callback=_weights,
    ),
]
PRESETS = ("default", "paper")


def _preset(value: str | None) -> str | None:
    if value is not None and value not in PRESETS:
        raise typer.BadParameter(f"it is {' or '.join(PRESETS)}")
    return value


Preset = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(PRESETS),
        help="Which settings a data set's folder is trained with: those that measurements "
        "chose, or the paper's.",
        show_default="default",
        callback=_preset,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Missing = Annotated[
    str,
    typer.Option(
        metavar="WORDS", help='Words that count as an empty cell, joined by commas: "NA,?".'
    ),
]


def missing_words(words: str) -> list[str]:
    """Returns the words that count as an empty cell."""
    return [word.strip() for word in words.split(",") if word.strip()]


def load_run(context: typer.Context, run: Path, weights: str, device: str | None) -> "Run":
    """Loads a run, whose folder stays where it is."""
    from mmgen.files.holding import pinned
    from mmgen.run import load

    settings: Settings = context.obj
    context.with_resource(pinned(run))
    return load(
        run,
        weights=weights,
        device="auto" if device is None else device,
        plugin_modules=settings.plugins,
    )
