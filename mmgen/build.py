"""The wiring diagram: Experiment + Registry → modalities, data, model, device."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributions import Distribution

from mmgen import shell
from mmgen.adversarial import with_critic
from mmgen.console import stderr
from mmgen.data.sources.synthetic import synthetic_dataset
from mmgen.data.store import Dataset, read_dataset
from mmgen.errors import ConfigError, DataError, MmgenError, PluginError, listed, nearest
from mmgen.experiment import NAME, Experiment
from mmgen.files.reading import exists
from mmgen.isolation import attempt, kept
from mmgen.modality import Modality
from mmgen.model import Model, ModelSettings
from mmgen.nets.dry_run import without_rows
from mmgen.registry import loading
from mmgen.registry.discovery import one_line
from mmgen.registry.loading import Registry
from mmgen.settings import ModelConfig, SyntheticConfig


def registry(modules: Sequence[str | Path] = ()) -> Registry:
    """Finds the plugins; ``modules`` are one-file plugins as with ``mmgen -p``."""
    return loading.load(modules)


def device(name: str, key: str = "device") -> torch.device:
    """Returns the device of a name; ``auto`` takes CUDA, then MPS, then CPU.

    Args:
        name: A torch device, or ``auto``.
        key: The setting or argument that named it, for the message.

    Raises:
        ConfigError: If there is no such device here, or none that can compute.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        if chosen.type == "cpu" and chosen.index:
            raise ValueError("the CPU is one device, with all its cores")
        if chosen.type == "meta":
            raise ValueError("it holds no values")
        torch.ones(1, device=chosen).item()  # it must compute, not only have a name
    except Exception as error:  # of any kind: some backends are packages that are not installed
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        reason = reason.split(". ")[0].removesuffix(".")
        raise ConfigError(
            f"{key}: {name!r} cannot be used here: {reason}. Say auto, cpu, cuda, cuda:1 or mps"
        ) from None
    return chosen


def dataset(experiment: Experiment, registry: Registry) -> Dataset:
    """Opens the experiment's data set, or makes it up if it is synthetic.

    Raises:
        ConfigError: If it is synthetic and a modality's settings are wrong.
        DataError: If it is absent; the message gives the command that writes it.
        PluginError: If it is synthetic and a modality cannot make examples.
    """
    if isinstance(experiment.data, SyntheticConfig):
        return _synthetic(experiment, experiment.data, registry)
    path = experiment.data.path
    if not exists(path) and experiment.data.source:
        made_by = shell.command("data", *experiment.data.source.split(), "--out", path)
        raise DataError(
            f"{path}: the data set is not there yet. Write it with\n  {made_by}\n"
            "or name another folder with --data DIR"
        )
    return read_dataset(path)


def _synthetic(experiment: Experiment, data: SyntheticConfig, registry: Registry) -> Dataset:
    if not experiment.modalities:
        raise ConfigError(
            'data.source = "synthetic" is made of what the modalities are: write at least two '
            f"[modalities.NAME] with a kind of {listed(registry.kinds)}"
        )
    made = {}
    for name in experiment.participants or experiment.modalities:
        _check_is_there(name, experiment.modalities, "the synthetic data")
        settings = experiment.modalities[name]
        cls = registry.kinds.get(str(settings.get("kind")))
        examples = cls.example_settings() if cls else {}
        made[name] = registry.create(name, {**examples, **settings})
    try:
        return synthetic_dataset(made, data.rows, data.classes, data.seed)
    except MmgenError:
        raise
    except Exception as error:  # whatever example() of a plugin raises
        kinds = listed(f"{m.kind} of plugin {registry.provider(m.kind)}" for m in made.values())
        raise PluginError(f"no synthetic data can be made of the kinds {kinds}: {error}") from error


def modalities(
    experiment: Experiment, registry: Registry, stored: Mapping[str, Mapping[str, Any]]
) -> dict[str, Modality]:
    """Builds the modalities: the experiment's settings laid over those of the data set.

    Args:
        experiment: Says which modalities take part, and their settings.
        registry: Finds the class of each kind.
        stored: The data set's configuration of each modality, ``kind`` included.

    Raises:
        ConfigError: If a setting is wrong, or fewer than two modalities take part.
        DataError: If the data set has no modality of that name.
        PluginError: If no plugin provides a kind, or its nets cannot be built.
    """
    built = {}
    for name in experiment.modalities:
        _check_is_there(name, stored, f"the data set {experiment.data}")
    for name in experiment.participants or stored:
        _check_is_there(name, stored, f"the data set {experiment.data}")
        if not NAME.fullmatch(name):
            raise DataError(
                f"{experiment.data}: {name!r} is no name for a modality: use letters, digits, "
                "_ and -, or choose who takes part with data.modalities"
            )
        settings = experiment.modalities.get(name, {})
        same_kind = settings.get("kind", stored[name]["kind"]) == stored[name]["kind"]
        given = stored[name] if same_kind else {}
        built[name] = registry.create(name, {**given, **settings})
        if experiment.recommended:
            recommended = _recommended(name, built[name], registry)
            built[name] = registry.create(name, {**given, **recommended, **settings})
        _probe(name, built[name], registry)
    if len(built) < 2:
        raise ConfigError(
            f"{experiment.data} has the modality {listed(built)} alone, "
            "but a joint model needs at least two"
        )
    return built


def _recommended(name: str, modality: Modality, registry: Registry) -> dict[str, Any]:
    """Returns what a modality recommends instead of its kind's own defaults, where it has those."""
    done = attempt(modality.recommended)
    if done.error:
        who = f"kind {modality.kind!r} of plugin {registry.provider(modality.kind)}"
        raise PluginError(
            f"modalities.{name}: {who} cannot say what it recommends: {one_line(done.error)}"
        ) from done.error
    defaults = {key: field.default for key, field in type(modality).model_fields.items()}
    here = (done.value or {}).items()
    return {key: v for key, v in here if getattr(modality, key, None) == defaults.get(key)}


def as_stored(experiment: Experiment, registry: Registry, dataset: Dataset) -> dict[str, Modality]:
    """Builds the modalities of a resolved experiment as the data set alone says.

    Left out are those of another kind than the data set's, and all of data that was made up.
    """
    if isinstance(experiment.data, SyntheticConfig):
        return {}
    stored = dataset.modalities
    same = [n for n, s in experiment.modalities.items() if s["kind"] == stored[n]["kind"]]
    return {n: registry.create(n, stored[n]) for n in same}


def _check_is_there(name: str, stored: Mapping[str, Any], what: str) -> None:
    if name not in stored:
        raise DataError(f"modalities.{name}: {what} has {listed(stored)}{nearest(name, stored)}")


def sketch_likelihood(modality: Modality) -> Distribution:
    """Builds a modality's nets without memory: returns p(x | z), of no rows or without values."""
    with torch.device("meta"), unchecked():
        _outline(modality.encoder(), modality.shape)
        likelihood: Distribution = _outline(modality.decoder(2), (2,))
    return likelihood


def _outline(net: nn.Module, shape: Sequence[int]) -> Any:
    out = without_rows(net, shape)
    return net(torch.empty(2, *shape)) if out is None else out


def _probe(name: str, modality: Modality, registry: Registry) -> None:
    """Builds a modality's nets without memory, so that an error names it and its plugin."""
    done = attempt(lambda: sketch_likelihood(modality))
    who = f"kind {modality.kind!r} of plugin {registry.provider(modality.kind)}"
    check = shell.command("plugins", "check", modality.kind, plugins=registry.modules)
    for change in done.changes:
        told = change.note("when its nets are built")
        stderr.print(f"note: modalities.{name}: {who} {told}. Try: {check}")
    if done.error:
        raise PluginError(
            f"modalities.{name}: the nets of {who} cannot be built: {one_line(done.error)}\n"
            f"Try: {check}"
        ) from done.error


@contextmanager
def unchecked() -> Iterator[None]:
    """Lets distributions be made without a look at their values, which the meta device lacks."""
    before = Distribution._validate_args  # noqa: SLF001
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


@contextmanager
def note_plugin_changes(registry: Registry, trained_with: Mapping[str, Any]) -> Iterator[None]:
    """Adds to every error which plugins are not those that a run was trained with.

    Args:
        registry: The plugins there are now.
        trained_with: The run's ``environment.json``, which has the plugin of each kind and of the
            model then; empty if there is none.
    """
    try:
        yield
    except MmgenError as error:
        lines = [str(error)]
        for kind, then in trained_with.get("plugins", {}).items():
            now = str(registry.provider(kind)) if kind in registry.kinds else "no plugin"
            if now != then:
                lines.append(f"kind {kind!r} was plugin {then} when it was trained; now {now}")
        model = trained_with.get("model")
        if model and model not in map(str, registry.records):
            lines.append(
                f"its model was of plugin {model} when it was trained, which is not here now"
            )
        error.args = ("\n  ".join(lines),)
        raise


def model_settings(experiment: Experiment, registry: Registry) -> ModelSettings:
    """Builds the settings of the experiment's model.

    Raises:
        ConfigError: If a setting is wrong.
        PluginError: If no plugin provides the kind of model.
    """
    section = experiment.model
    settings = {**_inherited(section, registry), **section.settings}
    return registry.model_settings({"kind": section.kind, **settings})


def _inherited(section: ModelConfig, registry: Registry) -> dict[str, Any]:
    """Returns what the settings of another kind, which an override has replaced, say of this one.

    Those that the other kind alone has are left out; those that neither has are a mistake to tell.
    """
    settings = {key: value for key, value in section.replaced.items() if key != "kind"}
    before = registry.models.get(str(section.replaced.get("kind")))
    now = registry.models.get(section.kind)
    known = before.Settings.model_fields if before else settings
    alone = {*known} - {*(now.Settings.model_fields if now else ())}
    return {key: value for key, value in settings.items() if key not in alone}


def _written(kind: str, settings: ModelSettings) -> ModelConfig:
    return ModelConfig(kind=kind, **settings.model_dump(mode="json"))


def resolved(
    experiment: Experiment, modalities: Mapping[str, Modality], settings: ModelSettings
) -> Experiment:
    """Writes every default out, so that the run stands without its data set and its file."""
    # Who takes part is then said by the tables: one way to read runs, old and new.
    return experiment.with_recommended(False).model_copy(
        update={
            "data": experiment.data.model_copy(update={"modalities": None}),
            "modalities": {name: m.to_config() for name, m in modalities.items()},
            "model": _written(experiment.model.kind, settings),
            "train": experiment.train.model_copy(update={"warmup_epochs": experiment.train.warmup}),
        }
    )


def completed(experiment: Experiment, registry: Registry) -> Experiment:
    """Returns a run's experiment with the settings that have come since, at their defaults.

    Raises:
        ConfigError: If a setting is no longer one.
        PluginError: If no plugin provides a kind any more.
    """
    own = {name: registry.create(name, s) for name, s in experiment.modalities.items()}
    return resolved(experiment, own, model_settings(experiment, registry))


def sketch(experiment: Experiment, modalities: Mapping[str, Modality], registry: Registry) -> Model:
    """Builds the model on the ``meta`` device, where it takes no memory: its shapes are known.

    Raises:
        ConfigError: If no such model can be built.
    """
    try:
        return model(experiment, modalities, torch.device("meta"), registry)
    except MmgenError:
        raise
    except Exception as error:  # sizes beyond what a tensor can have, for one
        cause = str(error).partition("\n")[0]
        raise ConfigError(f"no model can be built with these settings: {cause}") from error


def model(
    experiment: Experiment,
    modalities: Mapping[str, Modality],
    device: torch.device,
    registry: Registry,
) -> Model:
    """Builds the model on the device; ``train.seed`` fixes its first weights."""
    settings = model_settings(experiment, registry)
    cls = registry.model(experiment.model.kind)
    if settings.adversarial is not None:
        cls = with_critic(cls)
    torch.manual_seed(experiment.train.seed)
    with kept([], numbers=False), device:  # what is changed here was told of when it was probed
        return cls(modalities, settings)
