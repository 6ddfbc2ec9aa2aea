"""``mmgen train``: an experiment becomes a run folder."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen import denormals, shell, stopping
from mmgen.cli import together
from mmgen.cli.common import Device, Force, Preset, Settings, reachable, storable
from mmgen.console import progress, status, stderr, stdout, styled
from mmgen.errors import ConfigError, MmgenError, RunError
from mmgen.formatting import counted
from mmgen.training.launch import launched

if TYPE_CHECKING:
    from mmgen.data.store import Dataset
    from mmgen.experiment import Experiment
    from mmgen.training.loop import Training
    from mmgen.training.plan import Plan
    from mmgen.training.session import Prepared


def train(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Argument(
            metavar="DATA|CONFIG.toml|RUN",
            help="What to train: a data set's folder, with default settings; a configuration; or, "
            "with --resume, a run's folder.",
            callback=reachable,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings to change, such as train.epochs=30 model.kind=hierarchical. "
            "mmgen init DATA lists them all.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The run's folder, which is made.", callback=storable),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="The data set's folder, instead of the one in CONFIG.toml.", callback=storable
        ),
    ] = None,
    device: Device = None,
    preset: Preset = None,
    other: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Begin with the weights of another run, where names and shapes match.",
            callback=reachable,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run where it stopped.")
    ] = False,
    force: Force = False,
    figures: Annotated[
        bool, typer.Option(help="Draw figures/*.png and write report.html at the end.")
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List nets, parameters and memory, and write nothing."),
    ] = False,
) -> None:
    """Train a model on a data set: with default settings, or as CONFIG.toml says."""
    settings: Settings = context.obj
    with ExitStack() as through:
        with status(f"reading {config} ...") as say:
            together.meet()  # first: then one process of several says what is wrong
            from mmgen.cli.asked import Asked
            from mmgen.experiment import EXPERIMENT

            words, plugins = tuple(overrides or ()), tuple(settings.plugins)
            asked = Asked(config, words, out, data, device, plugins, other, preset)
            source, out = asked.which(resume)
            if out is None and not dry_run:
                raise ConfigError(asked.where_to())
            experiment = asked.experiment(source)
            say("loading PyTorch ...")
            from mmgen.training import plan, run_folder, session
            from mmgen.training.ranks import join

            ranks = join()
            trained_with = {}
            resuming = resume and out is not None and (out / EXPERIMENT).is_file()
            if resuming and out is not None:
                trained_with = run_folder.environment(out)
                experiment = _with_warmup_of(run_folder.experiment(out), experiment)
            elif out is not None and not dry_run:  # before the work of preparing
                run_folder.ensure_absent(out, force=force, again=asked.again(out))
            ranks.meet()  # all have seen what is there before anything is written
            how: dict[str, Any] = {"figures": figures, "ranks": ranks}
            if dry_run:
                planned = plan.plan(experiment, settings.plugins, trained_with, say, **how)
            else:
                # The demo's late epochs take 1.7 times as long without.
                through.enter_context(denormals.flushed())
                session.keep_memory()
                prepared = session.prepare(
                    experiment, settings.plugins, trained_with, say, begin_with=other, **how
                )
        if dry_run or out is None:
            _show_plan(planned, other)
            ranks.close()
            return
        through.enter_context(ranks.writing(out))
        left = _run(prepared, out, resuming=resuming, force=force)
        if not ranks.main:
            return
        dataset, where = prepared.dataset, str(prepared.training.device)
        done, early = prepared.training.epoch, prepared.training.stopped_early
        del prepared  # optimiser, gradients and resident data make room for the pictures
        session.release_memory()
        if figures and (left or not _drawn(out)):
            _draw(dataset, where, out, settings)
    why = ", as train.early_stopping says" if early else ""
    nothing = f"is trained to epoch {done} already, nothing is left to train{why}"
    what = "trained" if left else nothing
    stdout.print(f"{out}: {what}" + (f"; see {out / 'report.html'}" if figures else ""))


def _run(prepared: "Prepared", out: Path, *, resuming: bool, force: bool) -> bool:
    """Starts a run or goes on with it, and trains; returns whether there was anything to train."""
    from mmgen.training import session

    left = True
    if resuming:
        left = session.resume(prepared, out, stderr.print)
    else:
        session.start(prepared, out, force=force)
    if left:
        _announce(prepared, out)
        _loop(prepared, out)
    prepared.training.ranks.close()
    return left


def _drawn(out: Path) -> bool:
    """Tells whether figures and report are of these weights: the report is written last."""
    report, weights = out / "report.html", ("last.safetensors", "best.safetensors")
    newest = max((out / name).stat().st_mtime_ns for name in weights)
    return report.exists() and report.stat().st_mtime_ns >= newest


def _with_warmup_of(trained: "Experiment", experiment: "Experiment") -> "Experiment":
    """Keeps a run's warm-up where none is set: a tenth of the epochs changes if they do."""
    if experiment.train.warmup_epochs is not None:
        return experiment
    kept = {"warmup_epochs": trained.train.warmup}
    return experiment.model_copy(update={"train": experiment.train.model_copy(update=kept)})


def _show_plan(planned: "Plan", other: Path | None) -> None:
    from rich.table import Table

    from mmgen.formatting import size
    from mmgen.training import warm_start

    experiment, memory = planned.experiment, planned.memory
    counts = ", ".join(f"{s.count:,} {n}" for n, s in planned.dataset.splits.items())
    stdout.print(
        styled(
            (experiment.name, "bold"),
            f": {experiment.model.kind}, {planned.direction}; {planned.dataset.name}: {counts}",
        )
    )
    table = Table("net", "copies", "layers", "parameters", box=None, pad_edge=False)
    for column in (1, 3):
        table.columns[column].justify = "right"
    for net in planned.nets:
        table.add_row(net.name, str(net.copies), net.layers, f"{net.parameters:,}")
    total = sum(net.parameters for net in planned.nets)
    table.add_row("all", "", "", f"{total:,}", style="bold")
    stdout.print(table)
    parts = {
        "interpreter and libraries": memory.process + memory.libraries if memory.shared else 0,
        "weights": memory.weights,
        "Adam's moments": memory.optimiser,
        f"a step of {planned.rows:,} rows": memory.step,
        "data": memory.data,
        "fragmentation": memory.kept,
    }
    told = ", ".join(f"{part} {size(taken)}" for part, taken in parts.items() if taken)
    peak = memory.peak if memory.shared else memory.total
    beside = "" if memory.shared else f"; {size(memory.peak)} on the CPU"
    if memory.shared and memory.afterwards > memory.total + memory.kept:
        beside = f"; most is taken after training, {size(memory.afterwards)} beside the first"
    stdout.print(
        f"memory: {size(peak)} at most, {size(planned.free)} are free on {planned.device}: "
        f"{told}{beside}"
    )
    if other is not None:
        stdout.print(str(warm_start.compared(other, planned.sketch())))
    planned.check_fits()


def _announce(prepared: "Prepared", folder: Path) -> None:
    from mmgen.cli.epochs import legend
    from mmgen.training import execution

    training, experiment = prepared.training, prepared.experiment
    measured = execution.words(training.execution)
    count = sum(p.numel() for p in training.model.parameters())
    nets = sum(copies for copies, _ in training.model.encoder_nets())
    stderr.print(
        styled(
            (experiment.name, "bold"),
            f": {experiment.model.kind}, {training.model.direction()}; {nets} encoder nets,\n"
            f"  {count:,} parameters; {prepared.train.count:,} observations; {training.device}, "
            f"{training.precision}; to {folder}",
        )
    )
    if prepared.began_with:
        stderr.print(f"  {prepared.began_with}")
    if measured:
        stderr.print(f"  measured to be faster here: {measured}")
    stderr.print(legend(prepared.validation is not None))
    if training.epoch or training.batch:
        stderr.print(f"going on after epoch {training.epoch}, batch {training.batch}")


def _loop(prepared: "Prepared", folder: Path) -> None:
    from mmgen.cli import epochs as shown
    from mmgen.inference.terms import terms
    from mmgen.training import session
    from mmgen.training.loop import Epoch, Step

    training, ranks = prepared.training, prepared.training.ranks
    told = terms(training.model)
    epochs, batches = training.config.epochs, len(prepared.train)
    with (
        progress("{task.fields[rate]}", "{task.fields[loss]}", width=20) as bar,
        _interruptible() as interrupted,
    ):
        task = bar.add_task("", total=epochs * batches, visible=False, rate="", loss="")

        def tell(epoch: int, batch: int, **fields: Any) -> None:
            words = f"epoch {min(epoch + 1, epochs)}/{epochs}"  # the one under way
            done = epoch * batches + batch
            bar.update(task, description=words, completed=done, visible=True, **fields)

        tell(training.epoch, training.batch)
        since, steps = time.perf_counter(), 0
        for item in session.train(prepared, folder, stderr.print):
            steps += 1
            rate = steps * prepared.train.batch_size / (time.perf_counter() - since)
            if isinstance(item, Step):
                tell(item.epoch - 1, item.batch, rate=f"{rate:,.0f} rows/s")
            else:
                loss = shown.number((item.validation or item.train)["loss"])
                tell(item.epoch, 0, loss=f"loss {loss}")
                stderr.print(shown.line(item, epochs, told))
                since, steps = time.perf_counter(), 0
            if ranks.stops(bool(interrupted)) and not training.finished:
                if not isinstance(item, Epoch):
                    session.save(prepared, folder)
                break
    if training.stopped_early:
        stderr.print(_stopped_early(training))
    if not training.finished:
        stderr.print(
            f"stopped in epoch {training.epoch + 1} of {epochs}, nothing is lost. Go on with\n"
            f"  {prepared.resume(folder)}"
        )
        if ranks.size > 1:
            ranks.close()
            # Whoever launched the processes ends those that are left when one has ended.
            stopping.handle(stopping.heedless)
        raise typer.Exit(stopping.CODE)


def _stopped_early(training: "Training") -> str:
    return (
        f"stopped after epoch {training.epoch}: for {counted(training.stale, 'epoch')} the bound "
        "in validation was no better (train.early_stopping)"
    )


def _draw(dataset: "Dataset", device: str, folder: Path, settings: Settings) -> None:
    from mmgen.batch import Batch
    from mmgen.gallery import draw_all, write_report
    from mmgen.held_out import held_out
    from mmgen.run import load
    from mmgen.training import run_folder
    from mmgen.training.plan import splits

    try:
        run = load(folder, device=device, plugin_modules=settings.plugins)
        parts = splits(dataset)
        part = parts[held_out(parts) or "train"].having(run.modalities)
        stored, where = part.take(_first(part.count), run.modalities), run.device
        x = Batch({n: m.observe(stored[n].to(where)) for n, m in run.modalities.items()})
        with status("drawing figures ...") as say:
            if x.rows:
                draw_all(run, x, run_folder.read_metrics(folder))
            del run, x  # the report loads the weights itself
            say("drawing the report ...")
            write_report(
                folder,
                device=device,
                plugin_modules=settings.plugins,
                say=lambda words: say(f"{words} ..."),
            )
    except MmgenError:
        raise
    except Exception as error:  # of a plugin's render() or describe(), for one
        again = shell.command("report", folder, plugins=settings.plugins, debug=True)
        raise RunError(
            f"{folder}: is trained and whole, but cannot be drawn: {type(error).__name__}: {error}."
            f"\n  See where: {again}"
        ) from error


def _first(count: int) -> Any:
    import torch

    return torch.arange(min(count, 64))


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Collects the signals that stop instead of raising, so that a step is never cut in half.

    A second Ctrl-C stops at once; of several processes, whose launcher passes on what it has
    received itself, each only once all have.
    """
    received: list[int] = []
    alone = launched() is None

    def note(number: int, _frame: object) -> None:
        if received and alone:
            raise KeyboardInterrupt
        received.append(number)
        if not alone:
            return
        with suppress(RuntimeError):  # it came in the midst of another line
            stderr.print("stopping after this step ...")

    with stopping.handled(note):
        yield received
