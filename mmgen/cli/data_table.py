"""``mmgen data table`` and ``mmgen data folder``: own data, without code."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli.common import (
    Force,
    Missing,
    Seed,
    Settings,
    missing_words,
    reachable,
    storable,
)
from mmgen.console import progress, stderr, stdout
from mmgen.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mmgen.data.tables.importing import Splitting
    from mmgen.data.tables.table import Table

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="The folder to write the data set to.",
        show_default=False,
        callback=storable,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="A TOML file that says which columns make which modality, as --show prints it.",
        callback=reachable,
    ),
]
Show = Annotated[
    bool,
    typer.Option(
        "--show",
        help="Print which columns would make which modality, as TOML for --config; write nothing.",
    ),
]


def _share(purpose: str) -> typer.models.OptionInfo:
    words = f"Share of the rows to hold out for {purpose}, from 0 to 1."
    option: typer.models.OptionInfo = typer.Option(min=0, max=1, help=words, show_default="0.1")
    return option


Validation = Annotated[float | None, _share("validation")]
Test = Annotated[float | None, _share("tests")]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave out rows that cannot be used, instead of stopping; the card lists them.",
    ),
]


def table(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.csv",
            help="The table; its first line holds the headings.",
            callback=reachable,
        ),
    ],
    out: Out = None,
    config: Config = None,
    show: Show = False,
    delimiter: Annotated[
        str | None,
        typer.Option(
            help="What stands between two cells: a character, or the word tab.",
            show_default="found out",
        ),
    ] = None,
    encoding: Annotated[
        str, typer.Option(help="How the file's text is encoded, such as utf-8 or cp932.")
    ] = "utf-8",
    missing: Missing = "",
    validation: Validation = None,
    test: Test = None,
    seed: Seed = 0,
    split_column: Annotated[
        str | None,
        typer.Option(help="The column that says of each row: train, validation or test."),
    ] = None,
    skip_bad: SkipBad = False,
    force: Force = False,
) -> None:
    """Read a CSV file: columns of picture files, classes, attributes, numbers become modalities."""
    from mmgen.data.tables.table import read_table

    _check(out, show, force)
    # A mark at the start of UTF-8, as Excel writes it, is no part of the first heading.
    same = encoding.lower().replace("_", "-") in {"utf-8", "utf8"}
    marked = "utf-8-sig" if same else encoding
    read = read_table(source, delimiter, marked, missing_words(missing))
    splitting = _splitting(validation, test, seed, split_column)
    wanted = _wanted(config)
    _import(context.obj, read, wanted, splitting, source.stem, out, config, show, skip_bad, force)


def folder(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A folder of pictures: DIR/CLASS/x.png, or DIR/train/CLASS/x.png.",
            callback=reachable,
        ),
    ],
    out: Out = None,
    config: Config = None,
    show: Show = False,
    validation: Validation = None,
    test: Test = None,
    seed: Seed = 0,
    skip_bad: SkipBad = False,
    force: Force = False,
) -> None:
    """Read pictures that are sorted into a folder for each class."""
    from mmgen.data.tables.tree import FILE, FOLDER, SPLIT, read_tree

    _check(out, show, force)
    read = read_tree(source)
    splitting = _splitting(validation, test, seed, SPLIT if SPLIT in read.headings else None)
    # Other than a column's words, folders are classes even if each holds but one file.
    wanted = _wanted(config) or {
        "image": {"columns": [FILE]},
        "label": {"kind": "label", "columns": [FOLDER]},
    }
    name = source.resolve().name
    _import(context.obj, read, wanted, splitting, name, out, config, show, skip_bad, force)


def _check(out: Path | None, show: bool, force: bool) -> None:
    from mmgen.data.store import ensure_absent

    if out is None and not show:
        raise ConfigError("say where the data set goes: --out DIR; or look first: --show")
    if out is not None and not show:
        ensure_absent(out, force)


def _splitting(
    validation: float | None, test: float | None, seed: int, column: str | None
) -> "Splitting":
    from mmgen.data.tables.importing import Splitting

    if column is not None and (validation, test) != (None, None):
        raise ConfigError(
            f"the column {column!r} says which rows are held out: leave out --validation and --test"
        )
    shares = [0.1 if share is None else share for share in (validation, test)]
    return Splitting(shares[0], shares[1], seed, column)


def _wanted(config: Path | None) -> dict[str, dict[str, Any]]:
    from mmgen.data.tables.columns import read_wanted

    return {} if config is None else read_wanted(config)


def _import(
    settings: Settings,
    read: "Table",
    wanted: dict[str, dict[str, Any]],
    splitting: "Splitting",
    name: str,
    out: Path | None,
    config: Path | None,
    show: bool,
    skip_bad: bool,
    force: bool,
) -> None:
    from mmgen.build import registry
    from mmgen.cli import data_card
    from mmgen.data.tables.columns import as_toml, sources, unused
    from mmgen.data.tables.importing import counted, first_of, import_table, says_splits

    kinds = registry(settings.plugins)
    reserved = [splitting.column] if splitting.column else []
    try:
        found = sources(read, kinds, wanted, reserved)
        toml = as_toml(found, unused(read, found, reserved))
        if show or out is None:
            stdout.print(toml)
            return
        stderr.print(toml + "\n")
        for heading in says_splits(read) if splitting.column is None else []:
            stderr.print(f"{heading} seems to name splits: --split-column {heading}")
        with ExitStack() as held:
            with progress("{task.completed:,} of {task.total:,}") as bar:
                task = bar.add_task("reading rows", total=len(read.rows))
                done = held.enter_context(
                    import_table(
                        read,
                        found,
                        kinds,
                        splitting,
                        folder=next(each for each in out.absolute().parents if each.is_dir()),
                        skip_bad=skip_bad,
                        advance=lambda more: bar.advance(task, more),
                    )
                )
            if done.bad:
                stderr.print(f"left out {len(done.bad):,} rows:\n{first_of(done.bad)}")
            left = f", without {len(done.bad):,} that could not be used ({counted(done.bad)})"
            about = f"The rows of {read.path.resolve().name}{left if done.bad else ''}."
            modalities = {key: modality.to_config() for key, modality in done.modalities.items()}
            data_card.write(
                out,
                name,
                about,
                modalities,
                done.splits,
                settings,
                force=force,
                fit=True,
                bad=done.bad,
            )
    except ConfigError as error:
        raise ConfigError(f"{config}: {error}" if config else str(error)) from None
    except OSError as error:
        raise DataError(f"cannot write the data set {out}: {error}") from error
