"""Run folder ↔ tensors: resolved experiment, weights, optimiser, random state; no pickle.

A run folder holds all that reproduces and explains a run:

    experiment.json      the resolved configuration
    config.toml          the same for people: commented, to edit and to train again
    environment.json     versions, plugins, data set, command
    metrics.jsonl        one line an epoch
    last.safetensors     the checkpoint: all that resuming needs, in one file
    best.safetensors     the weights with the lowest validation loss
    figures/             pictures
    report.html          the page to show

Every file is written beside its final name, synced, then renamed. ``.lock`` is held by the one
process that writes; ``.writer`` says which.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mmgen import shell
from mmgen.config import EXPERIMENT, Experiment
from mmgen.errors import RunError
from mmgen.files import remove, write
from mmgen.holding import LOCK
from mmgen.locks import writing
from mmgen.tensors import TensorFile, open_tensors, write_tensors
from mmgen.training import Epoch, Training

FORMAT = 1
CONFIG = "config.toml"
META = torch.device("meta")


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
        RunError: If the folder is taken, see :func:`check_free`, or another process writes there.
        WriteError: If it cannot be written to.
    """
    check_free(path, force=force)
    with writing(path):
        check_free(path, force=force)  # another process may have been faster
        _remove_run(path)
        text = json.dumps({"format": FORMAT, **environment}, indent=2, ensure_ascii=False)
        write(path / "environment.json", text + "\n")
        if config:
            write(path / CONFIG, config)
        # Last, as removed first: it makes the folder a run.
        write(path / EXPERIMENT, experiment.model_dump_json(indent=2) + "\n")


def check_free(path: Path, *, force: bool = False, again: str = "") -> None:
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
    files = (CONFIG, "environment.json", "metrics.jsonl", "report.html")
    weights = ("last.safetensors", "best.safetensors")
    for name in (EXPERIMENT, *files, *weights, "figures", "tensorboard"):
        remove(path / name)


def experiment(path: Path) -> Experiment:
    """Reads the resolved experiment of a run.

    Raises:
        RunError: If the folder holds no run.
    """
    if not (path / EXPERIMENT).is_file():
        raise RunError(f"{path}: holds no run (there is no experiment.json)")
    return Experiment.read(path / EXPERIMENT)


def environment(path: Path) -> dict[str, Any]:
    """Reads what the run was trained with: versions, plugins, data set, command.

    Raises:
        RunError: If it is damaged, or of a newer version.
    """
    try:
        values = json.loads((path / "environment.json").read_text(encoding="utf-8"))
        version = int(values["format"])
        for table in ("plugins", "dataset"):
            dict(values.get(table, {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path / 'environment.json'}: damaged: {error}") from None
    if version > FORMAT:
        raise RunError(
            f"{path}: a run of format {version}; this mmgen reads up to {FORMAT}. Update mmgen"
        )
    return dict(values)


def add_command(path: Path, command: str) -> None:
    """Notes a command that changed what a run is trained with, after ``command``.

    Raises:
        RunError: If the environment is damaged.
        WriteError: If it cannot be written.
    """
    values = environment(path)
    values["continued"] = [*values.get("continued", []), command]
    write(path / "environment.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def save_checkpoint(path: Path, training: Training) -> None:
    """Writes ``last.safetensors``: weights, optimisers, counters and random state."""
    tensors = {f"model/{n}": t for n, t in training.model.state_dict().items()}
    for player, optimiser in training.optimisers.items():
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{player}/{number}/{n}": t for n, t in state.items()}
    tensors |= {f"random/{n}": t for n, t in random_states(training.device).items()}
    if training.sums is not None:
        tensors["sums"] = training.sums
    counters = {n: getattr(training, n) for n in ("epoch", "batch", "rows", "best")}
    _save(path / "last.safetensors", tensors, counters)


def save_weights(path: Path, training: Training, epoch: int) -> None:
    """Writes ``best.safetensors``: the weights alone."""
    tensors = {f"model/{n}": t for n, t in training.model.state_dict().items()}
    _save(path / "best.safetensors", tensors, {"epoch": epoch})


def resume(path: Path, training: Training) -> None:
    """Puts a training back to where ``last.safetensors`` was written.

    Raises:
        RunError: If there is no checkpoint, it is damaged, or does not fit the model.
    """
    file = path / "last.safetensors"
    with _opened(file) as (stored, counters):
        _load(path, training.model, stored)
        try:
            _restore(training, stored, counters)
        except (KeyError, ValueError, RuntimeError) as error:
            raise RunError(f"{file}: not a checkpoint of this run: {error}") from None


def _restore(training: Training, stored: TensorFile, counters: Mapping[str, Any]) -> None:
    for player, optimiser in training.optimisers.items():
        states: dict[int, dict[str, Tensor]] = {}
        for name, key in _under(stored, f"optimiser/{player}/").items():
            number, _, value = key.partition("/")
            # Moments are read to where they belong: the optimiser keeps them as they are.
            device = training.device if stored.tensors[name].shape else "cpu"
            states.setdefault(int(number), {})[value] = stored.read(name, device)
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": states, "param_groups": groups})
    random = {key: stored.read(name) for name, key in _under(stored, "random/").items()}
    restore_random_states(random, training.device)
    training.sums = stored.read("sums", training.device) if "sums" in stored.tensors else None
    for name in ("epoch", "batch", "rows", "best"):
        setattr(training, name, counters[name])


def epochs_done(path: Path) -> int:
    """Returns how many whole epochs a run's checkpoint holds; 0 before the first."""
    file = path / "last.safetensors"
    if not file.is_file():
        return 0
    with _opened(file) as (_, counters):
        return int(counters["epoch"])


def load_weights(path: Path, model: nn.Module, which: str = "best") -> None:
    """Loads the weights of ``best`` or ``last`` into a model.

    Raises:
        RunError: If they are missing, damaged, or do not fit the model.
    """
    with _opened(path / f"{which}.safetensors") as (stored, _):
        _load(path, model, stored)


def check_weights(path: Path, sketch: nn.Module, which: str = "best") -> None:
    """Checks that weights fit a model on the ``meta`` device, before memory is taken for it.

    Raises:
        RunError: If they are missing, damaged, or do not fit the model.
    """
    with _opened(path / f"{which}.safetensors") as (stored, _):
        shapes = {key: stored.tensors[name].shape for name, key in _under(stored, "model/").items()}
    if _shapes(sketch.state_dict()) != shapes:
        _load_state(path, sketch, {k: torch.empty(s, device=META) for k, s in shapes.items()})


def read_metrics(path: Path, epochs: int | None = None) -> list[dict[str, Any]]:
    """Reads ``metrics.jsonl``: one dictionary an epoch, up to ``epochs`` of them."""
    file = path / "metrics.jsonl"
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [json.loads(line) for line in lines][:epochs]
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: damaged: {error}") from None


def append_metrics(path: Path, epoch: Epoch) -> None:
    """Adds one epoch's line to ``metrics.jsonl``; lines of epochs not yet done fall away."""
    lines = [*read_metrics(path, epoch.epoch - 1), asdict(epoch)]
    write(path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Returns torch's random state on the CPU and on the device, as uint8 tensors."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Puts torch's random state back, as far as the device is of the same kind."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


def _save(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    write_tensors(path, tensors, {"mmgen": json.dumps({"format": FORMAT, **values})})


@contextmanager
def _opened(path: Path) -> Iterator[tuple[TensorFile, dict[str, Any]]]:
    """Opens a checkpoint, with the values in its header; tensors are read one by one."""
    if not path.is_file():
        raise RunError(f"{path}: there is no such checkpoint")
    try:
        with open_tensors(path) as stored:
            values = json.loads(stored.metadata["mmgen"])
            if values["format"] > FORMAT:
                raise ValueError(f"format {values['format']}; this mmgen reads up to {FORMAT}")
            yield stored, values
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        other = "best" if path.stem == "last" else "last"
        hint = ""
        if path.with_stem(other).is_file():
            again = shell.command("generate", path.parent, "--weights", other)
            hint = f".\n  {other}.safetensors may be whole: {again}"
        raise RunError(f"{path}: damaged, or not a checkpoint of mmgen: {error}{hint}") from None


def _under(stored: TensorFile, prefix: str) -> dict[str, str]:
    """Returns the names of tensors that begin with a prefix, and what follows it in each."""
    return {name: name.removeprefix(prefix) for name in stored.tensors if name.startswith(prefix)}


def _load(path: Path, model: nn.Module, stored: TensorFile) -> None:
    """Reads weights to where they lie in the model, or nothing if they do not fit."""
    names = {key: name for name, key in _under(stored, "model/").items()}
    shapes = {key: stored.tensors[name].shape for key, name in names.items()}
    own = model.state_dict(keep_vars=True)
    lie = {id(t) for t in (*model.parameters(), *model.buffers())}
    if all(id(t) in lie for t in own.values()) and _shapes(own) == shapes:
        for key, name in names.items():
            stored.read_into(own[key], name)
        return
    # A module may read old weights in a way of its own; if none does, torch says what is off.
    _load_state(path, model, {key: stored.read(name) for key, name in names.items()})


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _load_state(path: Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(
            f"{path}: the weights do not fit the model of experiment.json: {error}"
        ) from None
