"""``mmgen fill``: the empty cells of a table, each with how sure it is."""

from pathlib import Path
from typing import Annotated

import typer

from mmgen import denormals
from mmgen.cli import common, rows
from mmgen.console import stderr, stdout, styled
from mmgen.errors import ConfigError


def fill(
    context: typer.Context,
    run: common.RunFolder,
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="A CSV file whose first line holds the headings, or a Parquet file.",
            callback=common.reachable,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The file to write, of the same format. Pictures go into a folder beside it.",
            callback=common.reachable,
        ),
    ],
    missing: common.Missing = "",
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Draw so many values of each empty cell, instead of the most probable one: each "
            "row is there as often, and a last column, imputation, numbers it.",
        ),
    ] = None,
    config: rows.Config = None,
    delimiter: rows.Delimiter = None,
    encoding: rows.Encoding = "utf-8",
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Copy rows that cannot be used as they are, and go on."),
    ] = False,
    draws: rows.Draws = None,
    iterations: common.Iterations = None,
    weights: common.Weights = "best",
    seed: common.Seed = 0,
    device: common.Device = None,
) -> None:
    """Fill the empty cells of a table with what is most probable given the rest of the row."""
    settings: common.Settings = context.obj
    if out.exists() and table.exists() and out.samefile(table):
        raise ConfigError(f"--out {out}: is the table itself; name another file")
    context.with_resource(denormals.flushed())
    from mmgen import build
    from mmgen.data.tables.importing import first_of
    from mmgen.filling.filler import Filling
    from mmgen.filling.formats import check_formats, fill_table
    from mmgen.filling.tables import Request

    columns = rows.wanted_columns(config)
    check_formats(table, out)
    loaded = common.load_run(context, run, weights, device)
    if iterations is not None and loaded.model.directions is not None:
        raise ConfigError(f"{run}: a model of one direction takes no --iterations")
    with rows.share_done("filling") as done:
        report = fill_table(
            loaded,
            build.registry(settings.plugins),
            Request(
                table=table,
                out=out,
                how=Filling(draws, samples, iterations, seed),
                columns=columns,
                missing=common.missing_words(missing),
                delimiter=delimiter,
                encoding=encoding,
                skip_bad=skip_bad,
                say=stderr.print,
                done=done,
            ),
        )
    for heading, count in report.filled.items():
        stdout.print(styled((heading, "bold"), f": {count:,} cells filled"))
    if report.left:
        why = f"the model generates {loaded.model.direction()}"
        stderr.print(f"note: {report.left:,} rows lack what it takes to fill them: {why}")
    if report.bad:
        stderr.print(f"copied as they are, {len(report.bad):,} rows:\n{first_of(report.bad)}")
    beside = f"; pictures in {report.pictures}" if report.pictures else ""
    stdout.print(f"{out}: {report.rows:,} rows{beside}")
