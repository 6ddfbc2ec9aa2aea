"""Run folder ↔ tensors: resolved experiment, weights, optimiser, random state; no pickle.

A run folder holds all that reproduces and explains a run:

    experiment.json      the resolved configuration
    config.toml          the same for people: commented, to edit and to train again
    environment.json     versions, plugins, data set, command
    metrics.jsonl        one line an epoch
    last.safetensors     the checkpoint: all that resuming needs, in one file
    best.safetensors     the weights with the lowest validation loss, and what z is drawn from
    figures/             pictures
    report.html          the page to show
    quality.json         what the page says of how good the run is
    familiar.safetensors what of each modality is like the rows it was trained on

Every file is written beside its final name, synced, then renamed. ``.lock`` is held by the one
process that writes; ``.writer`` says which.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmgen import seeding, shell
from mmgen.errors import RunError
from mmgen.experiment import EXPERIMENT, Experiment
from mmgen.files.atomic import remove, write
from mmgen.files.holding import LOCK
from mmgen.files.locks import writing
from mmgen.files.reading import Reader, exists
from mmgen.files.tensors import TensorFile, open_tensors, write_tensors
from mmgen.model import Model
from mmgen.training import execution, records, restoring
from mmgen.training.loop import Epoch, Training
from mmgen.training.records import FORMAT

CONFIG = "config.toml"

METRICS = "metrics.jsonl"
BEST = "best.safetensors"
COUNTERS = ("epoch", "batch", "rows", "best", "stale")

_FILES = Reader(RunError, "put back the file as it was, or train the run again")


def create(
    path: Path,
    experiment: Experiment,
    environment: Mapping[str, Any],
    *,
    config: str = "",
    force: bool = False,
) -> None:
    """Makes a run folder, with the resolved experiment and the environment in it.

    Args:
        path: The folder.
        experiment: See :func:`mmgen.build.resolved`.
        environment: Versions and the command, as JSON values.
        config: The experiment as TOML for people, see :mod:`mmgen.template`.
        force: Replaces a run that is there. Files that are not the run's stay.

    Raises:
        RunError: If the folder is taken (:func:`ensure_absent`), or another process writes there.
        WriteError: If it cannot be written to.
    """
    ensure_absent(path, force=force)
    with writing(path):
        ensure_absent(path, force=force)  # another process may have been faster
        _remove_run(path)
        text = json.dumps({"format": FORMAT, **environment}, indent=2, ensure_ascii=False)
        write(path / "environment.json", text + "\n")
        if config:
            write(path / CONFIG, config)
        # Last, as removed first: it makes the folder a run.
        write(path / EXPERIMENT, experiment.model_dump_json(indent=2) + "\n")


def ensure_absent(path: Path, *, force: bool = False, again: str = "") -> None:
    """Checks that a run may start at ``path``, before the work of preparing it.

    Args:
        path: The folder.
        force: Whether a run that is there may be replaced.
        again: The command that goes on with it.

    Raises:
        RunError: If something else is there, or a run and ``force`` is not set.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if (path / EXPERIMENT).exists():
        if not force:
            raise RunError(
                f"{path}: holds a run already. Replace it: --force; choose another --out; or go "
                f"on with it:\n  {again or shell.resume(path)}"
            )
    elif not (path / LOCK).exists():  # with a lock, a run that was stopped before it was one
        raise RunError(f"{path}: exists and is no run folder; choose another --out")


def _remove_run(path: Path) -> None:
    """Removes a run's files; first the one that makes the folder a run."""
    files = (CONFIG, "environment.json", "metrics.jsonl")
    weights = ("last.safetensors", "best.safetensors")
    told = ("report.html", "quality.json", "familiar.safetensors", "figures", "tensorboard")
    for name in (EXPERIMENT, *files, *weights, *told):
        remove(path / name)


def experiment(path: Path) -> Experiment:
    """Reads the resolved experiment of a run.

    Raises:
        RunError: If the folder holds no run.
    """
    if not exists(path / EXPERIMENT):
        raise RunError(f"{path}: holds no run (there is no experiment.json)")
    return Experiment.read(path / EXPERIMENT)


def environment(path: Path) -> dict[str, Any]:
    """Reads what the run was trained with: versions, plugins, data set, command.

    Raises:
        RunError: If it is damaged, or of a newer version.
    """
    file = path / "environment.json"
    values = _FILES.json(file)
    records.check_version(values, file)
    _FILES.check(records.Environment, values, file)
    return records.renamed(values)


def add_command(path: Path, command: str) -> None:
    """Notes a command that changed what a run is trained with, after ``command``.

    Raises:
        RunError: If the environment is damaged.
        WriteError: If it cannot be written.
    """
    values = environment(path)
    values["continued"] = [*values.get("continued", []), command]
    write(path / "environment.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def migrate(path: Path) -> None:
    """Notes that a run is of today's format: what is written of it from now on is.

    Raises:
        RunError: If the environment is damaged.
        WriteError: If it cannot be written.
    """
    values = environment(path)
    if values["format"] < FORMAT:
        values["format"] = FORMAT
        write(path / "environment.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def save_checkpoint(path: Path, training: Training) -> None:
    """Writes ``last.safetensors``: weights, optimisers, counters and random state.

    Of several processes, in each of which it is called, the main one writes what one process would,
    and beside it the random states and sums of the others.
    """
    tensors = {f"model/{n}": t for n, t in training.model.state_dict().items()}
    for player, optimiser in training.optimisers.items():
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{player}/{number}/{n}": t for n, t in state.items()}
    own = {f"random/{n}": t for n, t in restoring.random_states(training.device).items()}
    if training.sums is not None:
        own["sums"] = training.sums
    counters = {n: getattr(training, n) for n in COUNTERS}
    counters["execution"] = training.execution.model_dump()
    _save(path / "last.safetensors", training, tensors, counters, own)


def save_weights(path: Path, training: Training, epoch: int) -> None:
    """Writes ``best.safetensors``: the weights alone."""
    tensors = {f"model/{n}": t for n, t in training.model.state_dict().items()}
    _save(path / BEST, training, tensors, {"epoch": epoch})


def save_fitted(path: Path, model: Model) -> None:
    """Adds to ``best.safetensors`` what was fitted to draw z from.

    Args:
        path: The run folder.
        model: Of its best weights, with what was fitted.

    Raises:
        RunError: If there are no such weights.
        WriteError: If they cannot be written.
    """
    with opened(path / BEST, records.WeightsHeader) as (_, header):
        epoch = header.epoch
    tensors = {f"model/{n}": t for n, t in model.state_dict().items()}
    if model.fitted_prior is not None:
        prior = model.fitted_prior.tensors()
        tensors |= {f"{restoring.PRIOR}{n}": t for n, t in prior.items()}
    if model.fits_posteriors:
        tensors |= restoring.posterior_tensors(model)
    _write(path / BEST, tensors, {"epoch": epoch})


def has_fitted(path: Path, model: Model) -> bool:
    """Returns whether all that a model has fitted to draw z from was, for the best weights.

    Raises:
        RunError: If there are no such weights, or they are damaged.
    """
    wanted = [restoring.PRIOR] * model.fits_prior + [restoring.POSTERIORS] * model.fits_posteriors
    with opened(path / BEST, records.WeightsHeader) as (tensors, _):
        return all(any(name.startswith(prefix) for name in tensors) for prefix in wanted)


def resume(path: Path, training: Training, batches: int | None = None) -> None:
    """Puts a training back to where ``last.safetensors`` was written.

    Args:
        path: The run folder.
        training: Changed only if all of the checkpoint fits it.
        batches: How many an epoch has, to check how far the checkpoint is within one.

    Raises:
        RunError: If there is no checkpoint, it is damaged, or does not fit the model.
    """
    with opened(path / "last.safetensors", records.Counters, training.model) as (
        tensors,
        counters,
    ):
        _check_metrics(path / METRICS, counters.epoch)
        _check(restoring.check_weights, path / "last.safetensors", training.model, tensors)
        try:
            restoring.check_checkpoint(training, tensors, counters, batches)
        except ValueError as error:
            raise _FILES.wrong(path / "last.safetensors", str(error)) from None
        training.execution = counters.execution
        execution.apply(training.model, counters.execution)
        tensors.read_module(training.model, "model/")
        _restore(training, tensors, counters)


def _restore(training: Training, tensors: TensorFile, counters: records.Counters) -> None:
    for player, optimiser in training.optimisers.items():
        groups = optimiser.state_dict()["param_groups"]
        states = restoring.moments(tensors, player, training.device)
        optimiser.load_state_dict({"state": states, "param_groups": groups})
        # A fused step pairs numbers by where they lie: moments lie as their weights do.
        for parameter, state in optimiser.state.items():
            for name in restoring.MOMENTS & state.keys():
                state[name] = torch.empty_like(parameter).copy_(state[name])
    sums = restoring.sums_of(tensors, training.ranks)
    training.sums = None if sums is None else sums.to(training.device)
    for name in COUNTERS:
        setattr(training, name, getattr(counters, name))
    if restoring.processes(tensors) == training.ranks.size:
        random = restoring.random_states_of(tensors, training.device, training.ranks.part.rank)
        restoring.restore_random_states(random, training.device)
    else:
        seeding.begin(training.config.seed, training.epoch, training.batch)


def epochs_done(path: Path) -> int:
    """Returns how many whole epochs a run's checkpoint holds; 0 before the first.

    Raises:
        RunError: If it is damaged.
    """
    file = path / "last.safetensors"
    if not exists(file):
        return 0
    with opened(file, records.Counters) as (_, counters):
        return counters.epoch


def load_weights(path: Path, model: Model, which: str = "best") -> None:
    """Loads the weights of ``best`` or ``last`` into a model, and what was fitted for them.

    Raises:
        RunError: If they are missing, damaged, or do not fit the model.
    """
    file = path / f"{which}.safetensors"
    with opened(file, records.WeightsHeader, model) as (tensors, _):
        _check(restoring.check_weights, file, model, tensors)
        tensors.read_module(model, "model/")
        try:
            if model.fits_prior:
                model.fitted_prior = restoring.fitted_prior(model, tensors)
            if model.fits_posteriors:
                model.fitted_posteriors = restoring.fitted_posteriors(model, tensors)
        except ValueError as error:
            raise _FILES.wrong(file, f"what z is drawn from is damaged: {error}") from None


def check_shapes(path: Path, sketch: nn.Module, which: str = "best") -> None:
    """Checks that weights fit a model on the ``meta`` device, before memory is taken for it.

    Raises:
        RunError: If they are missing, damaged, or do not fit the model.
    """
    file = path / f"{which}.safetensors"
    with opened(file, records.WeightsHeader, sketch) as (tensors, _):
        _check(restoring.check_shapes, file, sketch, tensors)


def read_metrics(path: Path, epochs: int | None = None) -> list[dict[str, Any]]:
    """Reads ``metrics.jsonl``: one dictionary an epoch, those after ``epochs`` left out.

    Raises:
        RunError: If it is damaged, or an epoch is missing between others.
    """
    file = path / METRICS
    lines = records.lines(file, _FILES) if exists(file) else []
    return [line for line in lines if epochs is None or line["epoch"] <= epochs]


def _check_metrics(file: Path, done: int) -> None:
    """Checks that the epochs of a checkpoint are there; one more is, if saving was cut short."""
    lines = read_metrics(file.parent)
    if lines and lines[-1]["epoch"] < done:
        raise RunError(
            f"{file}: ends with epoch {lines[-1]['epoch']:,}, but last.safetensors is of epoch "
            f"{done:,}; put back the file as it was, or remove it to go on without"
        )


def append_metrics(path: Path, epoch: Epoch) -> None:
    """Adds one epoch's line to ``metrics.jsonl``; lines of epochs not yet done fall away."""
    lines = [*read_metrics(path, epoch.epoch - 1), asdict(epoch)]
    write(path / METRICS, "".join(json.dumps(line) + "\n" for line in lines))


def _save(
    path: Path,
    training: Training,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes tensors that are one thing for all processes, and each one's own."""
    ranks = training.ranks
    tensors = {**ranks.whole(tensors), **ranks.each(own or {})}
    if ranks.main:
        _write(path, tensors, values)
    ranks.meet()  # so that none is ended while it writes


def _write(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    write_tensors(path, tensors, {"mmgen": json.dumps({"format": FORMAT, **values})})


@contextmanager
def opened(
    path: Path, model: type[records.M], module: nn.Module | None = None
) -> Iterator[tuple[TensorFile, records.M]]:
    """Opens a checkpoint and checks its header, without a look at its tensors.

    Args:
        path: The file.
        model: What its header must be.
        module: What the weights are for, if they are.

    Weights are named as those of ``module`` are, whatever version wrote them.
    """
    other = "best" if path.stem == "last" else "last"
    if not exists(path):
        there = exists(path.with_stem(other))
        take = f"; there are other weights: --weights {other}" if there else ""
        raise RunError(f"{path}: there is no such checkpoint{take}")
    try:
        with open_tensors(path, _FILES) as tensors:
            records.check_version(tensors.header, path)
            if not tensors.header:
                raise _FILES.wrong(path, "is no checkpoint of mmgen")
            header = _FILES.check(model, tensors.header, path)
            if header.format < FORMAT and module is not None:
                restoring.rename_old(module, tensors, "model/")
            yield tensors, header
    except RunError as error:
        if not exists(path.with_stem(other)):
            raise
        again = shell.command("generate", path.parent, "--weights", other)
        raise RunError(f"{error}.\n  {other}.safetensors may be whole: {again}") from None


def _check(
    how: Callable[[nn.Module, TensorFile, str], None],
    path: Path,
    model: nn.Module,
    tensors: TensorFile,
) -> None:
    try:
        how(model, tensors, "model/")
    except ValueError as error:
        cause = f"the weights do not fit the model of experiment.json: {error}"
        raise _FILES.wrong(path, cause) from None
