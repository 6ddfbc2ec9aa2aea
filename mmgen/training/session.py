"""A run from start to end: prepare it, train it, save after every epoch, go on where it stopped."""

import ctypes
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mmgen import __version__, build, distribution, seeding, shell, template
from mmgen.brief import OneLine
from mmgen.data.batches import Batches
from mmgen.data.sources.synthetic import digest
from mmgen.data.store import Dataset
from mmgen.errors import ElsewhereError, MmgenError, RunError, WriteError, listed
from mmgen.experiment import EXPERIMENT, Experiment
from mmgen.files.atomic import write
from mmgen.files.holding import LostError, check
from mmgen.files.reading import Reader, exists
from mmgen.inference.aggregate import Draws, fit_posteriors, fit_prior
from mmgen.modality import Modality
from mmgen.registry.loading import Registry
from mmgen.seeding import random_state
from mmgen.settings import SyntheticConfig
from mmgen.training import execution, nonfinite, plan, run_folder, warm_start
from mmgen.training.loop import Epoch, NotFiniteError, Step, Training, fit
from mmgen.training.ranks import ALONE, Ranks
from mmgen.training.records import Execution
from mmgen.training.warm_start import WarmStart

WHERE = {"train.device", "train.parallel", "train.tensorboard", "data.path", "data.source"}
"""Settings that say where a run trains, and nothing of what."""

SAME = {"train.epochs", "train.early_stopping", "train.benchmark", "name"} | WHERE
"""Settings in which one experiment may differ from itself."""

AFTERWARDS = {"model.sampling_prior", "model.sampling_posterior"}
"""Settings of what is done when training has ended, which may change then."""

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Of malloc.h."""

MENDING = {"train.learning_rate", "train.gradient_clip", "train.gradient_clip_value"}
"""Settings that may change when a run goes on, for where numbers were no longer finite."""


@dataclass(frozen=True, repr=False)
class Prepared(OneLine):
    """All that a run needs, checked and built, with nothing written yet.

    Attributes:
        experiment: The resolved configuration.
        dataset: The data set.
        modalities: The modalities by name.
        training: Model, optimisers and counters.
        train: The training split's batches.
        validation: The validation split's batches, if there is such a split.
        registry: The plugins found.
        began_with: What the model took of another run, if it did.
    """

    experiment: Experiment
    dataset: Dataset
    modalities: dict[str, Modality]
    training: Training
    train: Batches
    validation: Batches | None
    registry: Registry
    began_with: WarmStart | None = None

    def environment(self) -> dict[str, Any]:
        """Returns what else decides a run: versions, plugins, data set, device, command."""
        providers = {m.kind: str(self.registry.provider(m.kind)) for m in self.modalities.values()}
        packages = ("torch", "torchvision", "safetensors", "numpy")
        own = {"python": platform.python_version(), distribution.NAME: __version__}
        size = self.training.ranks.size
        return {
            "versions": {**own, **{p: version(p) for p in packages}},
            "plugins": providers,
            "model": str(self.registry.model_provider(self.experiment.model.kind)),
            "dataset": {"name": self.dataset.name, "hash": self.dataset.hash},
            "device": str(self.training.device),
            "threads": torch.get_num_threads(),
            **({"processes": size} if size > 1 else {}),
            "machine": f"{platform.system()} {platform.machine()}",
            "command": _command(),
            **({"began_with": self.began_with.noted()} if self.began_with else {}),
        }

    def resume(self, out: Path, *more: str) -> str:
        """Returns the command that goes on with this run, with ``more`` settings."""
        again = shell.resume(out, *more, plugins=self.registry.modules)
        return self.training.ranks.command(again)

    def config(self, out: Path) -> str:
        """Returns the run's ``config.toml``: its experiment, for people to edit."""
        file = out / run_folder.CONFIG
        again = shell.command("train", file, "--out", "OTHER", plugins=self.registry.modules)
        head = (
            "What this run is trained with, every default written out.",
            "To train anew with other settings, edit a copy of this file, or name them:",
            f"  {again} train.epochs=30",
        )
        stored = build.as_stored(self.experiment, self.registry, self.dataset)
        settings = build.model_settings(self.experiment, self.registry)
        return template.written(self.experiment, settings, self.modalities, stored, head)


def prepare(
    experiment: Experiment,
    plugin_modules: Sequence[str] = (),
    trained_with: Mapping[str, Any] | None = None,
    say: Callable[[str], object] = plan.quiet,
    *,
    figures: bool = False,
    begin_with: Path | None = None,
    ranks: Ranks = ALONE,
) -> Prepared:
    """Checks and builds everything before anything is written, as :func:`mmgen.training.plan.plan`.

    Args:
        experiment: What to train on what.
        plugin_modules: One-file plugins, as ``mmgen -p``.
        trained_with: The environment of the run that is to go on, if one is.
        say: Is told what is being done, in words for people who wait.
        figures: Whether figures and report are made at the end.
        begin_with: Another run, whose weights are taken where names and shapes match.
        ranks: The processes that train together, of each of which this is called.

    Raises:
        MmgenError: As :func:`mmgen.training.plan.plan`, if training does not fit into memory, or if
            no weight of the other run matches.
    """
    planned = plan.plan(experiment, plugin_modules, trained_with, say, figures=figures, ranks=ranks)
    planned.check_fits()
    say("building the model ...")
    experiment, modalities, device = planned.experiment, planned.modalities, planned.device
    splits = plan.splits(planned.dataset)

    def batches(split: str) -> Batches:
        size = experiment.train.batch_size
        rows = splits[split].having_any(modalities)
        return Batches(rows, modalities, device=device, batch_size=size, part=ranks.part)

    model = build.model(experiment, modalities, device, planned.registry)
    if ranks.size > 1:  # the same weights; from now on each has noise of its own
        seeding.begin(experiment.train.seed)
    return Prepared(
        experiment=experiment,
        dataset=planned.dataset,
        modalities=modalities,
        training=Training(model, experiment.train, device, ranks=ranks),
        train=batches("train"),
        validation=batches("validation") if "validation" in splits else None,
        registry=planned.registry,
        began_with=warm_start.take(begin_with, model) if begin_with else None,
    )


def start(prepared: Prepared, out: Path, *, force: bool = False) -> None:
    """Makes the run folder, with the resolved experiment in it.

    Of a training that begins with weights of another run, a checkpoint is written at once: the
    other run is not needed to go on with this one.

    Raises:
        RunError: If the folder is taken.
        WriteError: If it cannot be written to.
    """
    if prepared.training.ranks.main:
        run_folder.create(
            out,
            prepared.experiment,
            prepared.environment(),
            config=prepared.config(out),
            force=force,
        )
    _measure(prepared)
    if prepared.began_with:
        save(prepared, out)


def _measure(prepared: Prepared) -> None:
    """Finds out on the first batch how the nets run fastest, as far as the experiment wants it.

    Of several processes the main one does, and all run so.
    """
    training, ranks = prepared.training, prepared.training.ranks
    if ranks.main:
        with random_state(training.device, training.config.seed):
            execution.measure(training, next(prepared.train.epoch(training.config.seed, 0)))
    if ranks.size > 1:
        chosen = ranks.told(training.execution.model_dump_json())
        training.execution = Execution.model_validate_json(chosen)
        execution.apply(training.model, training.execution)


def resume(prepared: Prepared, out: Path, say: Callable[[str], object] = plan.quiet) -> bool:
    """Puts the training back to the run's last checkpoint; before the first one, to the start.

    Args:
        prepared: What goes on.
        out: The run folder.
        say: Is told what is being done, in words for people who wait.

    Returns:
        Whether anything is left to train. If not, nothing is written but what z is drawn from,
        where the model has it fitted and it is not there yet.

    Raises:
        RunError: If the run is another experiment's, or on other data; or if settings are changed
            with which nothing is left to train.
    """
    ranks = prepared.training.ranks
    environment = run_folder.environment(out)
    with ranks.writing(out), build.note_plugin_changes(prepared.registry, environment):
        trained = run_folder.experiment(out)
        different = _differences(
            build.completed(trained, prepared.registry).model_dump(mode="json"),
            prepared.experiment.model_dump(mode="json"),
        )
        order = [*trained.modalities]
        if order != [*prepared.experiment.modalities]:
            raise RunError(
                f"{out}: was trained with the modalities in the order {listed(order)}; put the "
                "tables [modalities.*] in that order, or choose another --out"
            )
        if keys := [key for key in different if key not in SAME | MENDING | AFTERWARDS]:
            raise RunError(
                f"{out}: was trained with other settings of {listed(keys)}; "
                "drop them, or choose another --out"
            )
        if environment.get("dataset", {}).get("hash") not in _hashes(prepared, trained):
            raise RunError(f"{out}: was trained on another data set than {prepared.dataset.path}")
        begun = exists(out / "last.safetensors")
        if (other := environment.get("began_with")) and not begun:
            raise RunError(
                f"{out}: was stopped before the weights that it took of {other['run']} were kept. "
                "Begin again: mmgen train ... --from RUN --force"
            )
        if begun:
            run_folder.resume(out, prepared.training, len(prepared.train))
        done = prepared.training.epoch
        left = not prepared.training.finished
        keys = [key for key in different if key not in WHERE | AFTERWARDS]
        if keys and not left:
            raise RunError(
                f"{out}: is trained to epoch {done} already, so nothing is left to train with "
                f"other {listed(keys)}; nothing was changed.\n"
                f"  To train further, {_further(prepared.training)}"
            )
        if not left:
            _fit(prepared, out, say)
        ranks.meet()  # all have read what is written now
        if ranks.main and (left or AFTERWARDS & {*different}):
            _note_changes(prepared, out, trained, different)
    if not begun:
        _measure(prepared)
    return left


def _further(training: Training) -> str:
    if training.epoch >= training.config.epochs:
        return f"set train.epochs above {training.epoch}"
    return f"set train.early_stopping above {training.stale}"


def _note_changes(
    prepared: Prepared, out: Path, trained: Experiment, different: Sequence[str]
) -> None:
    """Writes how a run goes on, where that is another way than before."""
    if MENDING & {*different}:
        run_folder.add_command(out, _command())
    run_folder.migrate(out)
    write(out / EXPERIMENT, prepared.experiment.model_dump_json(indent=2) + "\n")
    before = replace(prepared, experiment=trained).config(out)
    if different and _settings(_read(out / run_folder.CONFIG)) == _settings(before):
        # As it was written; what a user has edited stays.
        write(out / run_folder.CONFIG, prepared.config(out))


def _read(file: Path) -> str:
    try:
        return Reader(RunError).text(file)
    except RunError:
        return ""


def _settings(config: str) -> str:
    return config.partition("\n\n")[2]  # without the head, which tells the folder


def _command() -> str:
    return shlex.join(["mmgen", *sys.argv[1:]])


def _hashes(prepared: Prepared, trained: Experiment) -> Iterator[str]:
    """Yields what the hash of the data set can have been when a run began."""
    yield prepared.dataset.hash
    if isinstance(prepared.experiment.data, SyntheticConfig):  # some settings have come since
        splits = {n: split.load() for n, split in prepared.dataset.splits.items()}
        yield digest(trained.modalities, splits)


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key in {**a, **b}:
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            keys += _differences(left, right, f"{prefix}{key}.")
        elif left != right:
            keys.append(f"{prefix}{key}")
    return keys


def train(
    prepared: Prepared, out: Path, say: Callable[[str], object] = plan.quiet
) -> Iterator[Step | Epoch]:
    """Trains and saves: metrics, best weights and checkpoint after every epoch.

    Of several processes all do the same, and the main one writes. At the end, a model that has
    what z is drawn from fitted has it fitted, once, for its best weights; a caller that stops
    before has p(z) and encoders.

    Args:
        prepared: What is trained.
        out: The run folder.
        say: Is told what is being done when training has ended.

    Yields:
        The items of :func:`mmgen.training.loop.fit`, each after it was saved. A caller that stops
        between two items calls :func:`save` to keep the steps since.

    Raises:
        RunError: If numbers are no longer finite: says which, since when and from which rows; or
            if another process is writing to the run.
        WriteError: If the run cannot be written to, a full disk for example.
    """
    training, ranks = prepared.training, prepared.training.ranks
    ranks.wrap(training)
    with ranks.writing(out), _explained(prepared, out):
        shown = ranks.main and prepared.experiment.train.tensorboard
        board = _tensorboard(out) if shown else None
        for item in fit(training, prepared.train, prepared.validation):
            if isinstance(item, Epoch):
                if ranks.main:
                    run_folder.append_metrics(out, item)
                if item.best:
                    run_folder.save_weights(out, training, item.epoch)
                run_folder.save_checkpoint(out, training)
                if board is not None:
                    check(out)
                    for split in ("train", "validation"):
                        for term, value in getattr(item, split).items():
                            board.add_scalar(f"{term}/{split}", value, item.epoch)
                    board.flush()
            yield item
        _fit(prepared, out, say)


def _fit(prepared: Prepared, out: Path, say: Callable[[str], object]) -> None:
    """Fits what z is drawn from to the best weights, where the model wants it and it lacks."""
    training, seed = prepared.training, prepared.experiment.train.seed
    if not training.ranks.main or run_folder.has_fitted(out, training.model):
        return
    say("fitting what z is drawn from ...")
    with random_state(training.device, seed):
        model = build.model(
            prepared.experiment, prepared.modalities, training.device, prepared.registry
        )
        run_folder.load_weights(out, model)
        model.eval()
        draws = Draws(model, prepared.train.epoch(seed, 0))
        if model.fits_prior:
            model.fitted_prior = fit_prior(draws)
        if model.fits_posteriors:
            model.fitted_posteriors = fit_posteriors(model, draws)
    run_folder.save_fitted(out, model)


def save(prepared: Prepared, out: Path) -> None:
    """Writes a checkpoint between two items of :func:`train`.

    Raises:
        RunError: If numbers are no longer finite; the checkpoint before is kept.
        WriteError: If it cannot be written.
    """
    with prepared.training.ranks.writing(out), _explained(prepared, out):
        prepared.training.check_finite()
        run_folder.save_checkpoint(out, prepared.training)


def keep_memory() -> None:
    """Lets glibc keep memory that is freed, for the rest of the process.

    A step frees what the next one takes again. glibc gives large pieces back to the system each
    time, which hands them out page by page, with zeros: 29 % of forward and backward of 64 copies
    of an encoder (AMD EPYC, two cores). :func:`release_memory` gives back what is then free.
    """
    with suppress(OSError, AttributeError, TypeError):  # where there is another C library
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - others have a mallopt of another meaning
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**22)):
            libc.mallopt(option, value)


def release_memory() -> None:
    """Gives memory that is free within the process back to the system, which glibc keeps."""
    with suppress(OSError, AttributeError, TypeError):  # where there is another C library
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def _explained(prepared: Prepared, out: Path) -> Iterator[None]:
    try:
        yield
    except NotFiniteError as error:
        if not prepared.training.ranks.main:  # all have noticed
            raise ElsewhereError from error
        rate = prepared.experiment.train.learning_rate / 10
        located = _located(prepared, out, error)
        slower = prepared.resume(out, f"train.learning_rate={rate:g}")
        raise RunError(f"{located}\n  {_kept(out)}; go on from there:\n  {slower}") from error
    except LostError as error:
        raise RunError(f"{error}{_left(prepared, error.now)}") from error
    except WriteError as error:
        again = prepared.resume(out)
        raise WriteError(f"{error}.\n  {_kept(out)}: make room, then\n  {again}") from error


def _left(prepared: Prepared, now: Path | None) -> str:
    """Says what is left of a run whose folder was lost, and how to go on."""
    if now is None:
        return ""
    if not (now / "last.safetensors").exists():
        return ".\n  There was no checkpoint yet"
    return f", up to the last checkpoint. Go on from it:\n  {prepared.resume(now)}"


def _kept(out: Path) -> str:
    kept = (out / "last.safetensors").exists()
    return "The last checkpoint is kept" if kept else "There was no checkpoint yet"


def _located(prepared: Prepared, out: Path, error: NotFiniteError) -> str:
    """Trains again since the last checkpoint, to say where numbers stopped being finite."""
    config = prepared.experiment.train.model_copy(update={"compile": False})
    device = prepared.training.device
    try:
        model = build.model(prepared.experiment, prepared.modalities, device, prepared.registry)
        again = Training(model, config, device)
        if exists(out / "last.safetensors"):
            run_folder.resume(out, again)
        finding = nonfinite.locate(again, prepared.train.whole())
    except Exception as failure:  # of a plugin's net that cannot be watched, for one
        return f"{error}. Looking for the cause failed: {type(failure).__name__}: {failure}"
    if finding is None:
        how = " by one process, whose noise is another" if prepared.training.ranks.size > 1 else ""
        return f"{error}. It did not happen again when the steps were repeated{how}"
    modality = prepared.modalities.get(finding.modality or "")
    plugin = str(prepared.registry.provider(modality.kind)) if modality else ""
    return f"{finding}.\n  {nonfinite.advice(finding, modality, plugin)}"


def _tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MmgenError(
            "train.tensorboard: TensorBoard is not installed: pip install 'mmgen-vae[tensorboard]'"
        ) from None
    return SummaryWriter(out / "tensorboard")
