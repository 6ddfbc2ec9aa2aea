"""``mmgen encode``: z of every row, given any modalities."""

from pathlib import Path
from typing import Annotated

import typer

from mmgen import denormals
from mmgen.cli import common, rows
from mmgen.console import stderr, stdout


def encode(
    context: typer.Context,
    run: common.RunFolder,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A data set's folder, or a table: a CSV or a Parquet file.",
            callback=common.storable,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The file to write: .parquet, .csv, .npz or .safetensors.",
            callback=common.reachable,
        ),
    ],
    given: Annotated[
        list[str] | None,
        typer.Option(help="NAME ...: the modalities to look at. If left out, all that a row has."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Which rows of a data set: train, validation or test. If left out, all of them, "
            "split by split."
        ),
    ] = None,
    likelihood: Annotated[
        bool,
        typer.Option("--likelihood", help="Estimate log p of what each row has, too, in nats."),
    ] = False,
    outliers: Annotated[
        bool,
        typer.Option(
            "--outliers",
            help="Say of each row how unusual it is among held-out rows of the run's data set.",
        ),
    ] = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the data set whose rows --outliers compares with, where it is not "
            "where the run was trained on it.",
            callback=common.storable,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "-n", "--samples", min=1, max=common.MOST, help="Draws of z per row for log p."
        ),
    ] = 50,
    missing: common.Missing = "",
    config: rows.Config = None,
    delimiter: rows.Delimiter = None,
    encoding: rows.Encoding = "utf-8",
    iterations: common.Iterations = None,
    weights: common.Weights = "best",
    seed: common.Seed = 0,
    device: common.Device = None,
) -> None:
    """Write mean and deviation of z for every row of a data set or a table."""
    settings: common.Settings = context.obj
    context.with_resource(denormals.flushed())
    from mmgen import build
    from mmgen.encoding.rows import Request, encode_to
    from mmgen.encoding.writing import check_format

    check_format(out)
    columns = rows.wanted_columns(config)
    loaded = common.load_run(context, run, weights, device)
    request = Request(
        data=data,
        out=out,
        given=given,
        split=split,
        likelihood=likelihood,
        outliers=outliers,
        reference=reference,
        samples=samples,
        columns=columns,
        missing=common.missing_words(missing),
        delimiter=delimiter,
        encoding=encoding,
        iterations=iterations,
        seed=seed,
        say=stderr.print,
    )
    with rows.share_done("encoding") as done:
        count = encode_to(loaded, build.registry(settings.plugins), request, done)
    stdout.print(f"{out}: {count:,} rows")
