"""``mmgen evaluate``: likelihoods of held-out observations, in every direction."""

from pathlib import Path
from typing import Annotated

import typer

from mmgen import denormals, shell
from mmgen.cli import common, measuring
from mmgen.console import stdout
from mmgen.errors import ConfigError


def evaluate(
    context: typer.Context,
    run: common.RunFolder,
    targets: measuring.Targets = None,
    given: measuring.Given = None,
    split: measuring.SplitName = "test",
    rows: measuring.Rows = None,
    samples: Annotated[
        int,
        typer.Option(
            "-n",
            "--samples",
            min=0,
            max=common.MOST,
            help="Samples of z per row for Monte Carlo, the paper's eq. 11; 0 leaves it out.",
        ),
    ] = 10,
    importance: Annotated[
        int,
        typer.Option(
            min=0,
            max=common.MOST,
            help="Samples of z per row for importance sampling (IWAE), of each distribution that "
            "they are drawn from; 0 leaves it out.",
        ),
    ] = 100,
    iterations: common.Iterations = None,
    temperature: Annotated[
        float,
        typer.Option(min=0, help="How much z varies in Monte Carlo: 1 as learned, 0 not at all."),
    ] = 1.0,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A file for the tables: .md, .csv, .json or .tex.",
            callback=common.reachable,
        ),
    ] = None,
    data: measuring.Data = None,
    weights: common.Weights = "best",
    chunk: measuring.Chunk = None,
    seed: common.Seed = 0,
    jobs: Annotated[
        int,
        typer.Option(
            min=1, max=1000, help="Processes side by side, on the CPU; the numbers stay the same."
        ),
    ] = 1,
    device: common.Device = None,
    coherence: Annotated[bool, typer.Option("--coherence", hidden=True)] = False,
) -> None:
    """Measure likelihoods of held-out rows in nats, in every direction."""
    settings: common.Settings = context.obj
    if coherence:
        command = shell.command("coherence", run, plugins=settings.plugins)
        raise ConfigError(f"--coherence is a command of its own: {command}")
    context.with_resource(denormals.flushed())
    from mmgen.evaluation.likelihood.tables import FORMATS
    from mmgen.evaluation.measure import Request, measure_likelihoods

    request = Request(
        targets=targets or (),
        given=given or (),
        data=data,
        split=split,
        rows=rows,
        samples=samples,
        importance=importance,
        iterations=iterations,
        temperature=temperature,
        chunk=chunk,
        seed=seed,
        plugins=settings.plugins,
    )
    loaded = measuring.opened(context, run, weights, device, file, FORMATS)
    with measuring.rows_done("likelihoods") as (_, done):
        found = measure_likelihoods(loaded, request, jobs=jobs, weights=weights, done=done)
    measuring.tell(found.notes)
    for table in found.tables():
        stdout.print(table.rich())
    if file is not None:
        stdout.print(f"tables in {found.save(file)}")
