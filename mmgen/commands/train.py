"""``mmgen train``: an experiment becomes a run folder."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.commands.common import Device, Force, Settings, reachable, storable
from mmgen.console import progress, stderr, stdout, styled
from mmgen.errors import ConfigError, MmgenError, RunError

if TYPE_CHECKING:
    from rich.text import Text

    from mmgen.config import Experiment
    from mmgen.planning import Plan
    from mmgen.running import Prepared
    from mmgen.training import Epoch


def train(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Argument(help="CONFIG.toml, or a run folder with --resume.", callback=reachable),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value, such as model.kind=hierarchical train.epochs=30."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run folder.", callback=storable)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data set's folder.", callback=storable)
    ] = None,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run.")] = False,
    force: Force = False,
    figures: Annotated[
        bool, typer.Option(help="Draw figures/*.png and write report.html at the end.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List nets, parameters and memory; write nothing.")
    ] = False,
) -> None:
    """Train a model as CONFIG.toml says, into the folder --out."""
    from mmgen import checkpoint, planning, running
    from mmgen.config import Experiment
    from mmgen.files import writing

    settings: Settings = context.obj
    if config.is_dir():
        if not resume:
            raise ConfigError(f"{config} is a folder. To go on with that run, add --resume")
        out, config = out or config, config / "experiment.json"
    if out is None and not dry_run:
        raise ConfigError("say where the run goes: --out RUN")
    words = [*(overrides or [])]
    if data is not None:
        words.append(f"data.path='{data.resolve()}'")
    if device is not None:
        words.append(f"train.device='{device}'")
    experiment = Experiment.read(config, words)
    trained_with = {}
    resuming = False
    if resume and out is not None and (out / checkpoint.EXPERIMENT).exists():
        resuming = True
        trained_with = checkpoint.environment(out).get("plugins", {})
        experiment = _with_warmup_of(checkpoint.experiment(out), experiment)
    if dry_run:
        _show_plan(planning.plan(experiment, settings.plugins, trained_with))
        return
    assert out is not None
    if not resuming:
        checkpoint.check_free(out, force=force)  # before the work of preparing
    with _no_denormals():
        prepared = running.prepare(experiment, settings.plugins, trained_with)
        with writing(out):
            if resuming:
                running.go_on(prepared, out)
            else:
                running.start(prepared, out, force=force)
            _announce(prepared, out)
            _loop(prepared, out)
            if figures:
                _draw(prepared, out, settings)
    stdout.print(f"{out}: trained" + (f"; see {out / 'report.html'}" if figures else ""))


def _with_warmup_of(trained: "Experiment", experiment: "Experiment") -> "Experiment":
    """Keeps a run's warm-up where none is set: a tenth of the epochs changes if they do."""
    if experiment.train.warmup_epochs is not None:
        return experiment
    kept = {"warmup_epochs": trained.train.warmup}
    return experiment.model_copy(update={"train": experiment.train.model_copy(update=kept)})


def _show_plan(planned: "Plan") -> None:
    from rich.table import Table

    from mmgen.memory import size

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
    stdout.print(
        f"memory: weights {size(memory.weights)}, Adam's moments {size(memory.optimiser)}, "
        f"a step of {planned.rows:,} rows {size(memory.step)}, data "
        f"{size(memory.data)}: {size(memory.total)} of {size(planned.free)} free on "
        f"{planned.device}"
    )
    planned.check_fits()


def _announce(prepared: "Prepared", folder: Path) -> None:
    training, experiment = prepared.training, prepared.experiment
    count = sum(p.numel() for p in training.model.parameters())
    nets = sum(copies for copies, _ in training.model.encoder_nets())
    stderr.print(
        styled(
            (experiment.name, "bold"),
            f": {experiment.model.kind}, {training.model.direction()}; {nets} encoder nets, "
            f"{count:,} parameters; {prepared.train.count:,} observations from "
            f"{prepared.dataset.name}; {training.device}, {experiment.train.precision}; "
            f"to {folder}",
        )
    )
    if training.epoch or training.batch:
        stderr.print(f"going on after epoch {training.epoch}, batch {training.batch}")


def _loop(prepared: "Prepared", folder: Path) -> None:
    from mmgen import running
    from mmgen.training import Epoch, Step

    training = prepared.training
    epochs, batches = training.config.epochs, len(prepared.train)
    with (
        progress("{task.fields[rate]}", "{task.fields[loss]}") as bar,
        _interruptible() as interrupted,
    ):
        done = training.epoch * batches + training.batch
        task = bar.add_task("training", total=epochs * batches, completed=done, rate="", loss="")
        since, steps = time.perf_counter(), 0
        for item in running.train(prepared, folder):
            steps += 1
            rate = steps * prepared.train.batch_size / (time.perf_counter() - since)
            if isinstance(item, Step):
                completed = (item.epoch - 1) * batches + item.batch
                bar.update(task, completed=completed, rate=f"{rate:,.0f} examples/s")
            else:
                loss = f"loss {(item.validation or item.train)['loss']:.2f}"
                bar.update(task, completed=item.epoch * batches, loss=loss)
                stderr.print(_line(item, epochs))
                since, steps = time.perf_counter(), 0
            if interrupted and training.epoch < epochs:
                if not isinstance(item, Epoch):
                    running.save(prepared, folder)
                break
    if training.epoch < epochs:
        stderr.print(
            f"stopped in epoch {training.epoch + 1} of {epochs}, nothing is lost. Go on with\n"
            f"  mmgen train {folder} --resume"
        )
        raise typer.Exit(130)


def _draw(prepared: "Prepared", folder: Path, settings: Settings) -> None:
    from mmgen import checkpoint, figures, generation
    from mmgen.planning import splits
    from mmgen.report import write_report

    device = str(prepared.training.device)
    try:
        run = generation.load(folder, device=device, plugin_modules=settings.plugins)
        parts = splits(prepared.dataset)
        held_out = parts.get("test") or parts.get("validation") or parts["train"]
        stored = held_out.take(_first(held_out.count), run.modalities)
        x = {n: m.observe(stored[n].to(run.device)) for n, m in run.modalities.items()}
        figures.draw_all(run, x, checkpoint.read_metrics(folder))
        write_report(folder, device=device, plugin_modules=settings.plugins)
    except MmgenError:
        raise
    except Exception as error:  # of a plugin's render() or describe(), for one
        raise RunError(
            f"{folder}: is trained and whole, but cannot be drawn: {type(error).__name__}: {error}."
            f"\n  See where: mmgen --debug report {folder}"
        ) from error


def _first(count: int) -> Any:
    import torch

    return torch.arange(min(count, 64))


def _line(epoch: "Epoch", epochs: int) -> "Text":
    """One epoch in one line: losses of training and validation, then the validation terms."""
    shown = dict(epoch.validation or epoch.train)
    del shown["loss"]
    subsets = [name for name in shown if name.startswith("kl/") and name != "kl/prior"]
    if len(subsets) > 3:  # 2^K − 2 of them
        shown["kl/subsets"] = sum(shown.pop(name) for name in subsets)
    losses = " / ".join(f"{t['loss']:.2f}" for t in (epoch.train, epoch.validation) if t)
    terms = "  ".join(f"{n.removeprefix('reconstruction/')} {v:.2f}" for n, v in shown.items())
    return styled(
        f"epoch {epoch.epoch}/{epochs}  β {epoch.beta:.2f}  loss ",
        (losses, "bold"),
        f"  {terms}  {epoch.examples_per_second:,.0f}/s",
        (" best" if epoch.best else "", "green"),
    )


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Flushes denormal numbers to zero, on which a CPU is slow.

    Adam's moments of units that no longer learn decay into them: the demo's late epochs take 1.7
    times as long without this. It must come before torch starts its threads, which inherit it.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Collects Ctrl-C and termination instead of raising, so that a step is never cut in half.

    A second Ctrl-C stops at once.
    """
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        stderr.print("stopping after this step ...")

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
