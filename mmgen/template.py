"""Configurations written: the one that a data set is trained with, and any as TOML with comments.

Nothing here imports torch, so that what is wrong with a data set's name is reported at once.
"""

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence, Set
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen import toml
from mmgen.data.index import WITH_HOLES, Index, read_index
from mmgen.experiment import Experiment
from mmgen.settings import Section
from mmgen.subsets import Subset

if TYPE_CHECKING:
    from mmgen.modality import Modality

KIND = "jmvae-kl"
"""The kind of model that a data set is trained with."""

MODEL: dict[str, Any] = {
    "latent": 32,
    "fusion": [256],
    "sampling_posterior": "fitted",
    "sampling_prior": "fitted",
    "subset_encoder": "shared",
    "subset_posterior": "full",
    "prediction": 0.3,
}
"""What is changed of the settings of a model, whatever the data: see ``docs/defaults.md``."""

SEEN = 1_500_000
"""How many rows a training sees, over all epochs: within :data:`EPOCHS`."""

EPOCHS = 30, 300
"""The fewest and the most epochs: of a large data set, and of a small one."""

FEW = 5
"""With more modalities than this, each has an encoder of its own, and not every subset."""

WIDTH = 100
"""Of a line with its comment."""

LONG = 90
"""A modality's list that takes more characters, and need not be said, is told by its length."""

BESIDE = 60
"""Up to this many characters, settings have their comments in one column."""


TAKING_PART = "Exactly the modalities that have a table here take part."


def default_experiment(
    folder: Path, overrides: Sequence[str] = (), *, paper: bool = False
) -> Experiment:
    """Returns what a data set is trained with if nothing else is said.

    JMVAE-kl. What differs from the paper was chosen by measurements on several data sets, see
    ``docs/defaults.md``: of the model and the training here, of modalities by what they recommend.

    Args:
        folder: The data set's.
        overrides: ``key=value``, laid over it.
        paper: Change nothing of the paper's settings.

    Raises:
        ConfigError: If an override is wrong.
        DataError: If there is no data set in the folder.
    """
    index = read_index(folder)
    rows = index.splits["train"].count if "train" in index.splits else 0
    table: dict[str, Any] = {
        "name": index.name,
        "data": {"path": str(folder)},
        "model": {"kind": KIND},
    }
    if paper:
        return Experiment.laid(table, overrides, str(folder))
    asked = Experiment.laid(deepcopy(table), overrides, str(folder))
    taking = asked.participants or [*index.modalities]
    table["model"] |= model_of(_patterns(folder, index, taking))
    if asked.model.kind != KIND:
        table["model"].pop("alpha", None)  # what another kind calls α is another weight
    table["train"] = training_of(rows)
    experiment = Experiment.laid(deepcopy(table), overrides, str(folder))
    if experiment.model.settings.get("subset_encoder") == "product":
        # Products are of diagonal Gaussians: who asks for them did not ask for another family.
        del table["model"]["subset_posterior"]
        experiment = Experiment.laid(table, overrides, str(folder))
    return experiment.with_recommended()


def _patterns(folder: Path, index: Index, names: Sequence[str]) -> Mapping[Subset, int]:
    """Counts the training rows that have exactly these modalities, by which those are."""
    if index.format_version != WITH_HOLES or "train" not in index.splits:
        return {tuple(names): 1}
    from mmgen.data.store import read_dataset

    dataset = read_dataset(folder)
    return dataset.splits["train"].patterns(n for n in names if n in dataset.modalities)


def model_of(patterns: Mapping[Subset, int]) -> dict[str, Any]:
    """Returns the settings of a model of rows that have so many modalities, by how many rows do.

    α is one over the number of subsets that have an encoder, so that their KLs together weigh as
    one, as in the published code of the paper's authors, which takes their mean. Of rows that lack
    modalities, a row's KLs are those to the subsets of what it has, and their mean number counts;
    γ, which weighs what is said of the same subsets, grows by as much.

    Args:
        patterns: How many rows have exactly these modalities, by which those are.
    """
    few = max(map(len, patterns)) <= FEW
    rows = sum(patterns.values())
    kls = {P: 2 ** len(P) - 2 if few else len(P) for P in patterns if len(P) > 1}
    mean = sum(kls[P] * patterns[P] for P in kls) / rows
    settings = {"subsets": "all" if few else "single", **MODEL}
    if mean:  # else no row has two modalities, and nothing is weighed
        settings["alpha"] = round(1 / mean, 3)
        settings["prediction"] = round(MODEL["prediction"] * max(kls.values()) / mean, 3)
    return settings


def training_of(rows: int) -> dict[str, Any]:
    """Returns the settings of a training on so many rows, which runs as it is fastest here."""
    fewest, most = EPOCHS
    epochs = min(max(round(SEEN / max(1, rows)), fewest), most)
    return {"epochs": epochs, "schedule": "cosine", "precision": "auto"}


def written(
    experiment: Experiment,
    settings: Section,
    modalities: Mapping[str, "Modality"],
    stored: Mapping[str, "Modality"],
    head: Sequence[str],
) -> str:
    """Writes an experiment as TOML that says the same, with a comment on every setting.

    A modality's setting that holds anyway, because the data set or its kind says so, is a comment.

    Args:
        experiment: What to write.
        settings: The settings of its model.
        modalities: Those that take part, by name.
        stored: The same as the data set alone says; a synthetic one says nothing.
        head: Lines of comment to begin with.
    """
    data = experiment.data.model_dump(mode="json", exclude={"modalities"}, exclude_none=True)
    blocks = [
        "\n".join(map(toml.comment, head)),
        _lines({"name": experiment.name}, about_settings(Experiment)),
        "\n".join(["[data]", _lines(data, about_settings(type(experiment.data)))]),
        *(_modality(name, each, stored.get(name)) for name, each in modalities.items()),
        "\n".join(["[model]", _model(experiment.model.kind, settings)]),
        "\n".join(["[train]", _section(experiment.train, _warmup(experiment))]),
    ]
    blocks[3] = f"{toml.comment(TAKING_PART)}\n{blocks[3]}"
    return "\n\n".join(blocks) + "\n"


def _warmup(experiment: Experiment) -> set[str]:
    """Leaves the warm-up to follow the epochs, where it does."""
    same = experiment.train.warmup == experiment.train.epochs / 10
    return {"warmup_epochs"} if same else set()


def _section(section: Section, said_anyway: Set[str] = frozenset()) -> str:
    return _lines(section.model_dump(mode="json"), about_settings(type(section)), said_anyway)


def _model(kind: str, settings: Section) -> str:
    values = {"kind": kind, **settings.model_dump(mode="json")}
    return _lines(values, {"kind": "Names the model.", **about_settings(type(settings))})


def _modality(name: str, modality: "Modality", stored: "Modality | None") -> str:
    values = modality.to_config()
    anyway = stored.to_config() if stored is not None else {}
    same = {key for key, value in values.items() if key in anyway and anyway[key] == value}
    fields = type(modality).model_fields
    about = {key: field.description or "" for key, field in fields.items()}
    return "\n".join([f"[modalities.{toml.key(name)}]", _lines(values, about, same)])


def _lines(
    values: Mapping[str, Any], about: Mapping[str, str], said_anyway: Set[str] = frozenset()
) -> str:
    """Writes settings, each with a comment; those that need not be said, as comments."""
    pairs = []
    for key, value in values.items():
        text = f"{toml.key(key)} = {toml.value(value)}"
        if value is None:
            text = f"# {toml.key(key)} = ..."
        elif key in said_anyway:
            short = len(text) <= LONG or not isinstance(value, list | tuple)
            text = f"# {text}" if short else f"# {toml.key(key)}: {len(value)} of them"
        pairs.append((text, about.get(key, "")))
    widths = [len(text) for text, _ in pairs if len(text) <= BESIDE]
    column = max(widths, default=0) + 2
    lines = []
    for text, words in pairs:
        beside = f"{text:<{column}}{toml.comment(words)}" if words else text
        if len(beside) > WIDTH:
            lines += [toml.comment(line) for line in textwrap.wrap(words, WIDTH - 2)]
            beside = text
        lines.append(beside)
    return "\n".join(lines)


def about_settings(section: type[Section]) -> dict[str, str]:
    """Reads what each setting is off the docstring of its section, where all are explained."""
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):  # a section may derive from another
        text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
        about = re.findall(r"^    (\w+): (.*(?:\n {6,}.*)*)", text, flags=re.MULTILINE)
        found |= {name: " ".join(words.replace("``", "").split()) for name, words in about}
    return found
