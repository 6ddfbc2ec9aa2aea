"""What this very experiment weighs in each model, and what one more modality would cost it.

Side by side are the run's own model and the joint models there are, each really built.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmgen import build
from mmgen.brief import OneLine
from mmgen.isolation import attempt
from mmgen.modality import Modality
from mmgen.registry.loading import Registry
from mmgen.run import Run
from mmgen.settings import ModelConfig
from mmgen.subsets import Subset

OTHERS = 5
"""At most so many rows beside the run's own."""

NETS = 6_000
"""A model with more encoder nets than this is not built to be counted."""

MOST = 10
"""With more modalities than this, a model that cannot tell its number of nets is not built."""

Modalities = Mapping[str, Modality]


@dataclass(frozen=True, repr=False)
class Size(OneLine):
    """Nets and parameters of one model.

    Attributes:
        nets: Encoder nets.
        formula: Their number for K modalities, if the model has a formula.
        parameters: All parameters; ``None`` of a model with too many nets to be built.
        joint: Whether it generates anything from anything.
        names: The modalities that take part.
    """

    nets: int
    formula: str
    parameters: int | None
    joint: bool
    names: Subset


Row = tuple[Size, Size | None]
"""A model with these modalities, and with one more if it can be built with one more."""


@dataclass(frozen=True, repr=False)
class Growth(OneLine):
    """The models side by side.

    Attributes:
        rows: By their kinds, the run's own first: models with the same numbers are one row.
        left_out: How many models are not shown.
        like: The modality that one more is like: the one with the largest encoder.
    """

    rows: dict[tuple[str, ...], Row]
    left_out: int
    like: str


def growth(run: Run, registry: Registry) -> Growth:
    """Counts nets and parameters in models that are really built, on the meta device.

    Another model than the run's has the settings that it shares with it, and defaults for the
    rest; one that cannot be built so is left out.
    """
    like = max(run.modalities, key=lambda n: _encoder_size(run.modalities[n]))
    another = like
    while another in run.modalities:
        another += "2"
    more = {**run.modalities, another: run.modalities[like]}
    own = run.model.kind
    kinds: dict[Row, list[str]] = {}
    for kind in (kind for kind in registry.models if kind != own):
        now, then = (
            _size(run, registry, kind, _shared(run, registry, kind, each), each)
            for each in (run.modalities, more)
        )
        if now and now.joint:
            kinds.setdefault((now, then), []).append(kind)
    rows = sorted(kinds, key=lambda row: (row[0].nets, row[0].parameters or 0))
    mine = _own(run, registry, another, more)
    return Growth(
        rows={**({(own,): mine} if mine else {}), **{tuple(kinds[r]): r for r in rows[:OTHERS]}},
        left_out=sum(len(kinds[row]) for row in rows[OTHERS:]),
        like=like,
    )


def _own(run: Run, registry: Registry, another: str, more: Modalities) -> Row | None:
    kind, settings = run.model.kind, run.experiment.model.settings
    now = _size(run, registry, kind, settings, run.modalities)
    longer = dict(settings)
    if run.model.directions is not None:  # a setting that lists what is given lists one more
        C = [*run.model.directions.given]
        longer |= {key: [*C, another] for key, value in settings.items() if value == C}
    then = _size(run, registry, kind, longer, more)
    return (now, then if then and another in then.names else None) if now else None


def _shared(run: Run, registry: Registry, kind: str, modalities: Modalities) -> dict[str, Any]:
    """Returns the settings that a model shares with the run's, and those that it must have."""
    cls = registry.models[kind]
    own = run.experiment.model.settings.items()
    examples = attempt(lambda: cls.example_settings(tuple(modalities))).value or {}
    return {**examples, **{key: value for key, value in own if key in cls.Settings.model_fields}}


def _size(
    run: Run, registry: Registry, kind: str, settings: Mapping[str, Any], modalities: Modalities
) -> Size | None:
    """Builds a model and counts; ``None`` if it cannot be built, or may be too large to be."""

    def counted() -> Size | None:
        cls, names = registry.models[kind], tuple(modalities)
        nets = cls.encoder_count(registry.model_settings({"kind": kind, **settings}), len(names))
        if nets is not None and nets > NETS:
            return Size(nets, cls.formula, None, joint=True, names=names)
        if nets is None and len(names) > MOST and kind != run.model.kind:
            return None
        section = ModelConfig.model_validate({"kind": kind, **settings})
        experiment = run.experiment.model_copy(update={"model": section})
        model = build.model(experiment, modalities, torch.device("meta"), registry)
        return Size(
            nets=sum(copies for copies, _ in model.encoder_nets()),
            formula=cls.formula if nets is not None else "",
            parameters=_parameters(model),
            joint=model.directions is None,
            names=model.names,
        )

    return attempt(counted).value


def _encoder_size(modality: Modality) -> int:
    with torch.device("meta"):
        return _parameters(modality.encoder())


def _parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
