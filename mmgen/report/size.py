"""What this very experiment weighs in each model, and what one more modality would cost it.

Side by side are the models of all directions, and the run's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mmgen import build
from mmgen.brief import OneLine
from mmgen.experiment import Experiment
from mmgen.modality import Modality
from mmgen.run import Run
from mmgen.settings import KINDS

ONE_WAY = ("cvae", "cmma")
"""Models of one direction: each is set beside those of all directions, not beside the other."""

MOST = 10
"""With more modalities than this, encoders of all subsets are not counted: there are too many."""


@dataclass(frozen=True, repr=False)
class Row(OneLine):
    """One model of these modalities.

    Attributes:
        model: Its kind, with what sets it apart: ``"hierarchical, L = 2"``.
        own: Whether it is the run's.
        nets: Encoder nets; ``None`` if they are not counted.
        parameters: All parameters.
        more_nets: What one more modality adds.
        more_parameters: Likewise.
    """

    model: str
    own: bool
    nets: int | None
    parameters: int | None
    more_nets: int | None
    more_parameters: int | None


@dataclass(frozen=True, repr=False)
class Growth(OneLine):
    """The models side by side.

    Attributes:
        rows: The run's own among them.
        like: The modality that one more is like: the one with the largest encoder.
    """

    rows: list[Row]
    like: str


def growth(run: Run) -> Growth:
    """Counts nets and parameters in models that are really built, on the meta device."""
    modalities = run.modalities
    like = max(modalities, key=lambda n: _parameters(modalities[n]))
    another = like
    while another in modalities:
        another += "2"
    more = {**modalities, another: modalities[like]}
    rows = []
    for kind, settings in _settings(run.experiment).items():
        nets, parameters = _count(run.experiment, settings, modalities)
        then_nets, then_parameters = _count(run.experiment, _with(settings, another), more)
        own = kind == run.experiment.model.kind
        rows.append(
            Row(
                _title(settings, run.model.direction()),
                own,
                nets,
                parameters,
                None if nets is None or then_nets is None else then_nets - nets,
                None
                if parameters is None or then_parameters is None
                else then_parameters - parameters,
            )
        )
    return Growth(rows, like)


def _settings(experiment: Experiment) -> dict[str, Any]:
    """Returns the settings of each model: the run's own, and for the others what they share."""
    own = experiment.model
    joint = {kind: section for kind, section in KINDS.items() if kind not in ONE_WAY}
    settings: dict[str, Any] = {}
    for kind, section in {**joint, own.kind: KINDS[own.kind]}.items():
        shared = {n: v for n, v in own.model_dump().items() if n in section.model_fields}
        settings[kind] = own if kind == own.kind else section(**{**shared, "kind": kind})
    return settings


def _with(settings: Any, another: str) -> Any:
    """Gives one more modality to a model of one direction that lists what it is given."""
    if settings.kind in ONE_WAY and settings.given:
        return settings.model_copy(update={"given": (*settings.given, another)})
    return settings


def _title(settings: Any, direction: str) -> str:
    if settings.kind == "hierarchical":
        return f"hierarchical, L = {settings.layers}"
    if settings.kind == "jmvae-kl":
        subsets = settings.subsets
        return f"jmvae-kl, subsets: {subsets if isinstance(subsets, str) else ', '.join(subsets)}"
    if settings.kind in ONE_WAY:
        return f"{settings.kind}, {direction}"
    return str(settings.kind)


def _count(
    experiment: Experiment, settings: Any, modalities: Mapping[str, Modality]
) -> tuple[int, int] | tuple[None, None]:
    if getattr(settings, "subsets", "") == "all" and len(modalities) > MOST:
        return None, None
    experiment = experiment.model_copy(update={"model": settings})
    model = build.model(experiment, modalities, torch.device("meta"))
    return sum(copies for copies, _ in model.encoder_nets()), _total(model)


def _parameters(modality: Modality) -> int:
    with torch.device("meta"):
        return _total(modality.encoder())


def _total(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
