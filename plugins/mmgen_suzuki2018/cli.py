"""The command ``mmgen reproduce``: trains, measures, draws."""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen.cli.common import MOST, Device, Settings, group, storable
from mmgen.console import status, stderr, stdout
from mmgen.errors import ConfigError, DataError, listed, nearest

if TYPE_CHECKING:
    from mmgen_suzuki2018.folder import Reproduction
    from mmgen_suzuki2018.jobs import Job

app = group(help="Reproduce the paper's tables and figures.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Reproduce the paper's tables and figures."""


@app.command()
def mnist(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Option(
            help="A data set of mmgen data mnist, or the folder that holds MNIST/raw.",
            callback=storable,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The folder for all results; what is begun there goes on.",
            callback=storable,
        ),
    ],
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="Epochs to train each model.", show_default="100; 2 if fast"
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            help="Which version: paper; authors, with the Adam of their code; fast, a small one."
        ),
    ] = "paper",
    beyond: Annotated[
        bool,
        typer.Option(
            "--beyond",
            help="Add two models: JMVAE-kl tuned, and with a normalising flow (extra flow).",
        ),
    ] = False,
    readings: Annotated[
        bool,
        typer.Option(
            "--readings",
            help="Add three models: where the paper leaves open what it did, JMVAE-kl and the "
            "hierarchy read otherwise, such as in the authors' code.",
        ),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="How many models to train at once.", show_default="one per core"
        ),
    ] = None,
    device: Device = None,
) -> None:
    """Train the seven models of Table 1, and draw the table and Figures 3, 4 and 5.

    Every stop loses at most the epoch under way; the same command goes on.
    """
    from mmgen.files.locks import writing
    from mmgen_suzuki2018.folder import Reproduction
    from mmgen_suzuki2018.mnist import PROFILES

    settings: Settings = context.obj
    if profile not in PROFILES:
        raise ConfigError(
            f"--profile {profile}: there are {listed(PROFILES)}{nearest(profile, PROFILES)}"
        )
    if beyond:
        _check_flow()
    at_once = jobs or os.cpu_count() or 1
    dataset = data if (data / "dataset.json").exists() else out / "data"
    if dataset != data and not (data / "MNIST" / "raw").is_dir():
        raise DataError(
            f"--data {data}: neither a data set of mmgen data mnist, nor a folder with MNIST/raw. "
            "Fetch the set with: mmgen data mnist ROOT --download --out DATA"
        )
    reproduction = Reproduction(
        out=out,
        data=dataset,
        profile=profile,
        epochs=epochs or PROFILES[profile].epochs,
        beyond=beyond,
        readings=readings,
        device="auto" if device is None else device,
        plugins=tuple(settings.plugins),
    )
    reproduction.ensure_absent()
    with writing(out):
        reproduction.begin()
        try:
            if not (dataset / "dataset.json").exists():
                _import(reproduction, data)
            _train(reproduction, at_once)
            _measure(reproduction, at_once)
            _draw(reproduction)
        except KeyboardInterrupt:
            stderr.print("stopped; nothing is lost. The same command goes on")
            raise typer.Exit(130) from None


def _check_flow() -> None:
    from importlib.util import find_spec

    if find_spec("zuko") is None:
        raise ConfigError('--beyond needs zuko: pip install "mmgen-vae[flow]"')


def _import(reproduction: "Reproduction", root: Path) -> None:
    from mmgen_suzuki2018.jobs import run

    with status(f"reading {root} ..."), closing(run([reproduction.importing(root)], 1)) as looks:
        for _ in looks:
            pass


def _train(reproduction: "Reproduction", at_once: int) -> None:
    """Runs all trainings, with a bar each and one for all of them."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from mmgen_suzuki2018.jobs import run

    planned = {p.name: p for p in reproduction.runs}
    waiting = reproduction.trainings()
    if not waiting:
        return
    columns = (
        TextColumn("{task.description:<20}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>4.0f}/{task.total:.0f} epochs", markup=False),
        TextColumn("{task.fields[words]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr) as bar:
        total = sum(p.epochs(reproduction.epochs) for p in planned.values())
        everything = bar.add_task("all", total=total, words="")
        tasks = {
            p.name: bar.add_task(p.name, total=p.epochs(reproduction.epochs), words="")
            for p in planned.values()
        }

        def refresh() -> None:
            done = 0
            for name, task in tasks.items():
                epoch, words = reproduction.trained(planned[name])
                done += epoch
                bar.update(task, completed=epoch, words=words)
            bar.update(everything, completed=done)

        refresh()
        with closing(run(waiting, at_once)) as looks:
            for look in looks:
                refresh()
                for job in look.done:
                    epoch, words = reproduction.trained(planned[job.name])
                    bar.print(f"{job.name}: trained, {epoch} epochs, {words}")


def _measure(reproduction: "Reproduction", at_once: int) -> None:
    likelihoods = reproduction.likelihoods()
    _wait("likelihoods", likelihoods, at_once)
    recognitions = reproduction.recognitions()
    # The first one trains the classifier, which is then kept beside the data set.
    _wait("recognised", recognitions[:1], 1)
    _wait("recognised", recognitions[1:], at_once)


def _wait(what: str, jobs: "Sequence[Job]", at_once: int) -> None:
    from mmgen_suzuki2018.jobs import run

    if not jobs:
        return
    with status(what) as say, closing(run(jobs, at_once)) as looks:
        left = len(jobs)
        for look in looks:
            left -= len(look.done)
            for job in look.done:
                stderr.print(f"{job.name}: {what} measured")
            say(f"{what}: {listed(job.name for job in look.running)}; {left} left")


def _draw(reproduction: "Reproduction") -> None:
    from mmgen_suzuki2018.page import write_all
    from mmgen_suzuki2018.table import table

    with status("drawing") as say:
        found = write_all(reproduction, say)

    stdout.print(table(found, files=False).rich())
    stdout.print(f"{reproduction.out}: table, figures and data; see {reproduction.out}/README.md")
