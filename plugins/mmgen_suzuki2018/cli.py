"""The command ``mmgen reproduce``: trains, measures, draws."""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmgen.cli.common import MOST, Device, Settings, group, reachable, storable
from mmgen.console import status, stderr, stdout
from mmgen.errors import ConfigError, DataError, listed, nearest

if TYPE_CHECKING:
    from mmgen_suzuki2018.folder import Reproduction
    from mmgen_suzuki2018.jobs import Job
    from mmgen_suzuki2018.study import Study

Precision = Literal["auto", "float32", "bfloat16"]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="The folder for all results; what is begun there goes on.",
        callback=storable,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1, max=1000, help="How many models to train at once.", show_default="one per core"
    ),
]

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
    out: Out,
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
    jobs: Jobs = None,
    device: Device = None,
) -> None:
    """Train the seven models of Table 1, and draw the table and Figures 3, 4 and 5.

    Every stop loses at most the epoch under way; the same command goes on.
    """
    from mmgen_suzuki2018.mnist import MNIST

    if beyond:
        _check_flow()
    extras = [name for name, chosen in (("beyond", beyond), ("readings", readings)) if chosen]
    _reproduce(context, MNIST, data, out, epochs, profile, jobs, device, extras=tuple(extras))


@app.command()
def celeba(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Option(
            help="A data set of mmgen data celeba, or the folder of list_attr_celeba.txt.",
            callback=storable,
        ),
    ],
    out: Out,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="Epochs to train each model.", show_default="50; 1 if fast"
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="Which version: paper; fast, a small one.")
    ] = "paper",
    only: Annotated[
        list[str] | None,
        typer.Option(help="Make only this run, such as jmvae-kl. May be repeated."),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="The numbers that the nets are trained in: bfloat16 is faster where the processor "
            "or card has units for it, many times slower where not. Left out, it is measured.",
            show_default="auto",
        ),
    ] = None,
    portraits: Annotated[
        list[Path] | None,
        typer.Option(
            "--portrait",
            help="A photograph of a face for Figure 9, instead of test pictures. May be repeated.",
        ),
    ] = None,
    photographs: Annotated[
        bool,
        typer.Option(
            help="Show pictures of the data set in figures, beside what is generated. CelebA may "
            "not be passed on."
        ),
    ] = True,
    jobs: Jobs = None,
    device: Device = None,
) -> None:
    """Train the models of Table 2 and one with a critic; draw the table and Figures 6 to 9.

    Every stop loses at most the epoch under way; the same command goes on.
    """
    from mmgen_suzuki2018.celeba import CELEBA

    chosen = tuple(dict.fromkeys(only or ()))
    names = [planned.name for planned in CELEBA.runs if not planned.weights]
    for name in chosen:
        if name not in names:
            raise ConfigError(f"--only {name}: there are {listed(names)}{nearest(name, names)}")
    for portrait in portraits or ():
        if reachable(portrait) is not None and not portrait.is_file():
            raise ConfigError(f"--portrait {portrait}: there is no such file")
    _reproduce(
        *(context, CELEBA, data, out, epochs, profile, jobs, device),
        train={} if precision is None else {"precision": precision},
        only=chosen,
        portraits=tuple(portraits or ()),
        photographs=photographs,
    )


def _reproduce(
    context: typer.Context,
    study: "Study",
    data: Path,
    out: Path,
    epochs: int | None,
    profile: str,
    jobs: int | None,
    device: str | None,
    **more: Any,
) -> None:
    """Makes a reproduction, or goes on with one."""
    from mmgen.files.locks import writing
    from mmgen_suzuki2018.folder import Reproduction

    settings: Settings = context.obj
    if profile not in study.profiles:
        raise ConfigError(
            f"--profile {profile}: there are {listed(study.profiles)}"
            f"{nearest(profile, study.profiles)}"
        )
    at_once = jobs or os.cpu_count() or 1
    dataset = data if (data / "dataset.json").exists() else out / "data"
    if dataset != data and not (data / study.source.holds).exists():
        raise DataError(
            f"--data {data}: neither a data set of mmgen data {study.name}, nor a folder with "
            f"{study.source.holds}. {study.source.hint}"
        )
    reproduction = Reproduction(
        study=study,
        out=out,
        data=dataset,
        profile=profile,
        epochs=epochs or study.profiles[profile].epochs,
        device="auto" if device is None else device,
        plugins=tuple(settings.plugins),
        **more,
    )
    reproduction.ensure_absent()
    with writing(out):
        reproduction.begin()
        try:
            if not (dataset / "dataset.json").exists():
                _import(reproduction, data)
            study.check(reproduction)
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
    from mmgen_suzuki2018.table import table

    study = reproduction.study
    with status("drawing") as say:
        found = study.write(reproduction, say)

    stdout.print(table(study, found, files=False).rich())
    stdout.print(f"{reproduction.out}: table, figures and data; see {reproduction.out}/README.md")
