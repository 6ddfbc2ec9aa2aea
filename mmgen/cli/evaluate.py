"""``mmgen evaluate``: likelihoods of held-out observations, in every direction."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen.cli.common import (
    MOST,
    Device,
    Iterations,
    RunFolder,
    Seed,
    Settings,
    reachable,
    storable,
)
from mmgen.console import progress, stderr, stdout
from mmgen.errors import ConfigError, DataError, GenerationError, listed, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmgen.data.store import Dataset, Split
    from mmgen.evaluation.directions import Direction
    from mmgen.evaluation.likelihood.estimates import SamplingBudget
    from mmgen.run import Run


def evaluate(
    context: typer.Context,
    run: RunFolder,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME ...: what to predict, together. If left out, each modality by itself."
        ),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME ...: what to predict it from. If left out, every subset of the others."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Which rows of the data set: train, validation or test.")
    ] = "test",
    rows: Annotated[
        int | None,
        typer.Option(
            min=1, max=2**31 - 1, help="Measure only so many rows, evenly spread over the split."
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "-n",
            "--samples",
            min=0,
            max=MOST,
            help="Samples of z per row for the paper's estimator; 0 leaves it out.",
        ),
    ] = 10,
    importance: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST,
            help="Samples of z per row for the importance-sampled estimator; 0 leaves it out.",
        ),
    ] = 100,
    iterations: Iterations = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=0,
            help="How much z varies in the paper's estimator: 1 as learned, 0 not at all.",
        ),
    ] = 1.0,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A file for the tables: .md, .csv, .json or .tex.",
            callback=reachable,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder of another data set to measure on.", callback=storable),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(help="Which weights to take: best, of the lowest validation loss, or last."),
    ] = "best",
    chunk: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2**31 - 1,
            help="How many z to decode at once: fewer take less memory.",
            show_default="1000; 10000 on CUDA",
        ),
    ] = None,
    seed: Seed = 0,
    jobs: Annotated[
        int,
        typer.Option(
            min=1, max=1000, help="Processes side by side, on the CPU; the numbers stay the same."
        ),
    ] = 1,
    coherence: Annotated[
        bool,
        typer.Option(
            "--coherence",
            help="Measure instead how often what was given is recognised in what is generated.",
        ),
    ] = False,
    device: Device = None,
) -> None:
    """Measure a run on held-out rows: likelihoods in nats, or coherence, in every direction."""
    from mmgen.evaluation.coherence import tables as coherence_tables
    from mmgen.evaluation.directions import chosen_directions
    from mmgen.evaluation.likelihood import tables
    from mmgen.evaluation.likelihood.estimates import SamplingBudget
    from mmgen.evaluation.likelihood.estimators import likelihoods
    from mmgen.evaluation.likelihood.parallel import Measurement, likelihoods_in_parallel
    from mmgen.files.holding import pinned
    from mmgen.run import load
    from mmgen.tables import checked_format

    settings: Settings = context.obj
    if weights not in ("best", "last"):
        raise GenerationError(f"--weights {weights}: it is best or last")
    if not samples and not importance:
        raise ConfigError("--samples 0 --importance 0: nothing is left to estimate")
    context.with_resource(pinned(run))
    if file is not None:  # before the work
        checked_format(file, (coherence_tables if coherence else tables).FORMATS)
    if jobs > 1 and coherence:
        raise ConfigError("--coherence is measured by one process: leave out --jobs")
    loaded = load(
        run,
        weights=weights,
        device="auto" if device is None else device,
        plugin_modules=settings.plugins,
    )
    if jobs > 1 and loaded.device.type != "cpu":
        raise ConfigError(f"--jobs is for the CPU; one process fills {loaded.device}")
    if iterations is not None and loaded.model.directions is not None:
        raise GenerationError(f"a {loaded.experiment.model.kind} has one direction: no iterations")
    directions = chosen_directions(loaded, targets or [], given or [])
    _check_fits(loaded, chunk, jobs)
    dataset, chosen = _rows(loaded, data, split, rows, settings)
    budget = SamplingBudget(
        samples=samples,
        importance=importance,
        iterations=iterations,
        temperature=temperature,
        chunk=chunk or (10_000 if loaded.device.type == "cuda" else 1_000),
        seed=seed,
    )
    if coherence:
        _show_coherence(loaded, dataset, chosen, directions, budget, f"{run}, {split}", file)
        return
    with progress("{task.completed:,}/{task.total:,} rows") as bar:
        task = bar.add_task("likelihoods", total=chosen.count)

        def done(count: int) -> None:
            bar.update(task, completed=count)

        if jobs > 1:
            what = Measurement(
                run=run,
                weights=weights,
                plugins=tuple(settings.plugins),
                data=dataset.path,
                split=split,
                rows=rows,
                directions=tuple(directions),
                budget=budget,
            )
            estimates = likelihoods_in_parallel(what, loaded, chosen, jobs, done)
        else:
            estimates = likelihoods(loaded.model, chosen, directions, budget, done)
    evaluation = tables.Evaluation(
        run=str(run),
        model=loaded.experiment.model.kind,
        data=dataset.name,
        split=split,
        rows=chosen.count,
        budget=budget,
        estimates=estimates,
    )
    for table in evaluation.tables():
        stdout.print(table.rich())
    if file is not None:
        stdout.print(f"tables in {evaluation.save(file)}")


def _check_fits(run: "Run", chunk: int | None, jobs: int) -> None:
    """Checks that what is decoded at once, and that many processes, fit into memory."""
    import psutil

    from mmgen.evaluation.likelihood.estimators import DRAWS, ROWS
    from mmgen.formatting import size
    from mmgen.memory import check_fits

    if chunk is not None:
        what = f"--chunk {chunk}: decoding up to that many z at once"
        at_once = min(chunk, ROWS * DRAWS)
        check_fits(what, at_once * run.sample_memory, "a smaller one", run.device)
    if jobs > 1:
        each = psutil.Process().memory_info().rss
        check_fits(
            f"--jobs {jobs}: with this process' {size(each)} each, that", jobs * each, "fewer"
        )


def _show_coherence(
    run: "Run",
    dataset: "Dataset",
    chosen: "Split",
    directions: "Sequence[Direction]",
    budget: "SamplingBudget",
    about: str,
    file: Path | None,
) -> None:
    from mmgen.evaluation.coherence.coherence import coherence
    from mmgen.evaluation.coherence.tables import coherence_table, save_coherence

    with progress("{task.completed:,}/{task.total:,} rows") as bar:
        task = bar.add_task("coherence", total=chosen.count)
        found = coherence(
            run.model,
            dataset,
            chosen,
            directions,
            samples=budget.samples,
            iterations=budget.iterations,
            temperature=budget.temperature,
            chunk=budget.chunk,
            seed=budget.seed,
            say=lambda words: bar.update(task, description=words),
            done=lambda n: bar.update(task, completed=n, description="coherence"),
        )
    stdout.print(coherence_table(found, about).rich())
    for note in found.notes:
        stderr.print(f"note: {note}")
    if file is not None:
        stdout.print(f"table in {save_coherence(found, file, about)}")


def _rows(
    run: "Run", data: Path | None, name: str, count: int | None, settings: Settings
) -> "tuple[Dataset, Split]":
    """Returns the data set, and the rows asked for."""
    from mmgen import build
    from mmgen.checking import check_stored
    from mmgen.settings import FolderConfig
    from mmgen.training import run_folder

    experiment = run.experiment
    if data is not None:
        experiment = experiment.model_copy(update={"data": FolderConfig(path=data)})
    registry = build.registry(settings.plugins)
    dataset = build.dataset(experiment, registry)
    trained_on = run_folder.environment(run.path).get("dataset", {}).get("hash")
    if trained_on is not None and dataset.hash != trained_on:
        what = f"{experiment.data} is not the data set that {run.path} was trained on"
        if data is None:
            raise DataError(f"{what} (hashes differ). To evaluate on it: --data {dataset.path}")
        stderr.print(f"note: {what}")
    splits = {n: s for n, s in dataset.splits.items() if s.count}
    if name not in splits:
        raise DataError(
            f"--split {name}: {experiment.data} has {listed(splits)}{nearest(name, splits)}"
        )
    chosen = splits[name]
    if absent := [n for n in run.model.names if n not in chosen.names]:
        raise DataError(f"{experiment.data} has no modality {listed(absent)}")
    check_stored(dataset, run.modalities, registry)
    return dataset, chosen if count is None else chosen.spread(count, run.model.names)
