"""How a model grows with the number of modalities: counted in built models, next to the formulas.

Nets, parameters and memory are those of models on the ``meta`` device; time is measured in steps of
real ones (:mod:`mmgen.evaluation.step_time`).

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equations 7 and 10.
"""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmgen.brief import OneLine
from mmgen.build import unchecked
from mmgen.drawing import plain_text, save
from mmgen.errors import ConfigError
from mmgen.evaluation.step_time import step_times
from mmgen.formatting import amount, size
from mmgen.isolation import attempt
from mmgen.modality import Modality
from mmgen.model import Model, ModelSettings
from mmgen.subsets import MOST_NETS
from mmgen.tables import Table
from mmgen.training.memory import training_memory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GENERATIVE = ("decoders", "priors")
"""The parts of a model that are p(x|z) and p(z); all else is the posterior q(z|x)."""

ROWS = 100
"""Observations in the step whose memory and time are measured: ``train.batch_size`` as it is."""

LABEL = 40
"""The characters of a line of names beside a curve."""

PALETTE = (
    *("#c0392b", "#444444", "#2471a3", "#b7950b", "#1e8449", "#7d3c98", "#ca6f1e", "#117a65"),
    *("#d98880", "#839192", "#7fb3d5", "#1a5276"),
)


@dataclass(frozen=True, repr=False)
class Row(OneLine):
    """The size of one model with K modalities of one kind.

    Attributes:
        model: The model's kind.
        modalities: K.
        layers: L, the stochastic layers, of a model whose settings have them; else 1.
        layered: Whether its settings have them.
        nets: The posterior's nets, counted in the built model.
        formula: Their number by the model's own formula, such as 2^(K−1)·K; counted if it has none.
        net_parameters: The parameters of those nets, counted.
        formula_parameters: ``formula`` · M, with M the parameters of the modality's encoder. A
            hierarchy's L − 1 upper nets have a width of their own, so that there it is exact for
            L = 1 and a guide above.
        posterior_parameters: All parameters of the posterior, fusion and Gaussian heads included.
        parameters: All parameters, decoders included.
        memory: Bytes that training takes: weights, gradients, moments, and a step of :data:`ROWS`
            rows; ``None`` if its nets do not run on the meta device.
        variant: In which of its class's variants it was built; empty: with its defaults.
        seconds: Of a training step of :data:`ROWS` rows; ``None`` if it was not measured.
    """

    model: str
    modalities: int
    layers: int
    layered: bool
    nets: int
    formula: int
    net_parameters: int
    formula_parameters: int
    posterior_parameters: int
    parameters: int
    memory: int | None = None
    variant: str = ""
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The model, its variant, and its layers if they can differ: ``"hierarchical L=2"``."""
        layers = f"L={self.layers}" if self.layered else ""
        return " ".join(part for part in (self.model, self.variant, layers) if part)


@dataclass(frozen=True, repr=False)
class Candidate(OneLine):
    """A model that is to be built with K modalities.

    Attributes:
        model: Its class.
        settings: Its settings.
        modalities: K.
        layers: L, or ``None`` if its settings have no layers.
        variant: The word for its settings among the class's variants; empty: its defaults.
    """

    model: type[Model]
    settings: ModelSettings
    modalities: int
    layers: int | None
    variant: str = ""

    @property
    def nets(self) -> int | None:
        """Its encoder nets by its formula, if it has one."""
        return self.model.encoder_count(self.settings, self.modalities)

    @property
    def expected(self) -> int:
        """Its nets as far as they are known before it is built: K if it has no formula."""
        return self.nets or self.modalities

    def built(self, modality: Modality) -> Model | None:
        """Builds it with K copies of a modality; ``None`` if the model refuses a variant.

        Raises:
            ConfigError: If it refuses its defaults.
        """
        try:
            return self.model(dict.fromkeys(_names(self.modalities), modality), self.settings)
        except ConfigError:
            if not self.variant:
                raise
            return None


def candidates(
    models: Mapping[str, type[Model]],
    modalities: Sequence[int],
    layers: Sequence[int],
    **settings: Any,
) -> list[Candidate]:
    """Lists the models to build: each with every K, and every L if its settings have layers.

    Each is followed by its variants, which count as nothing: they have no more nets than it.

    Args:
        models: The model classes by kind.
        modalities: Values of K, each at least 2.
        layers: Values of L.
        settings: What is set in each model that has such a setting: ``latent=64``.

    Raises:
        ConfigError: If they have too many nets to be built.
    """
    found, total = [], 0
    for K in modalities:
        for cls in models.values():
            fields = cls.Settings.model_fields
            shared = {key: value for key, value in settings.items() if key in fields}
            shared |= cls.example_settings(_names(K))
            for L in layers if "layers" in fields else [None]:
                own = shared if L is None else {**shared, "layers": L}
                candidate = Candidate(cls, cls.Settings(**own), K, L)
                found.append(candidate)
                found += [
                    Candidate(cls, cls.Settings(**{**own, **variant}), K, L, word)
                    for word, variant in cls.variants.items()
                ]
                total += candidate.expected
                if K > 64 or total > MOST_NETS:  # 2^K is a number that none can be compared with
                    raise ConfigError(
                        f"growth up to {max(modalities)} modalities and {max(layers)} layers: "
                        f"every model is really built, and from K = {K} on these are more than "
                        f"{MOST_NETS:,} nets ({cls.kind} alone {cls.formula or 'K'} of them). Ask "
                        "for fewer: 2-12 modalities, 1-3 layers"
                    )
    return found


def _names(modalities: int) -> tuple[str, ...]:
    return tuple(f"m{k}" for k in range(1, modalities + 1))


def growth(
    models: Mapping[str, type[Model]],
    modality: Modality,
    modalities: Sequence[int],
    layers: Sequence[int] = (1, 2, 3),
    *,
    timed_on: torch.device | None = None,
    done: Callable[[int], object] = int,
    **settings: Any,
) -> list[Row]:
    """Counts nets and parameters of models with K copies of a modality, for several K.

    Every model is really built, on the ``meta`` device: the numbers are those of training, and
    take no memory.

    Args:
        models: The model classes by kind.
        modality: What all K modalities are.
        modalities: Values of K, each at least 2.
        layers: Values of L for models that have layers.
        timed_on: The device on which training steps are measured; if left out, none are.
        done: Is told the expected nets of each model when it was counted.
        settings: See :func:`candidates`.

    Returns:
        For each K, each model, with each L if it has layers, and its variants. One that a model
        refuses is left out.

    Raises:
        ValueError: If a K is below 2 or an L below 1.
        ConfigError: If the models have too many nets.
    """
    if min(modalities, default=2) < 2 or min(layers, default=1) < 1:
        raise ValueError("growth needs at least two modalities and one layer")
    with torch.device("meta"):
        size = _parameters(modality.encoder())
    rows: list[Row] = []
    every = candidates(models, modalities, layers, **settings)
    for K in modalities:
        same: dict[Candidate, Row] = {}
        for candidate in (each for each in every if each.modalities == K):
            with torch.device("meta"):
                model = candidate.built(modality)
            if model is not None:
                same[candidate] = _row(model, candidate, size)
            done(candidate.expected)
        if timed_on is not None:
            needed = [row.memory for row in same.values()]
            seconds = step_times([c.built for c in same], needed, modality, timed_on, ROWS)
            same = {
                c: replace(row, seconds=s)
                for (c, row), s in zip(same.items(), seconds, strict=True)
            }
        rows += same.values()
    return rows


def _row(model: Model, candidate: Candidate, size: int) -> Row:
    nets = list(model.encoder_nets())
    count = sum(copies for copies, _ in nets)
    formula = count if candidate.nets is None else candidate.nets
    generative = sum(_parameters(part) for n, part in model.named_children() if n in GENERATIVE)
    parameters = _parameters(model)
    with unchecked():
        memory = attempt(lambda: training_memory(model, model.modalities, ROWS).total).value
    return Row(
        model=model.kind,
        modalities=candidate.modalities,
        layers=candidate.layers or 1,
        layered=candidate.layers is not None,
        nets=count,
        formula=formula,
        net_parameters=sum(_parameters(net) for _, net in nets),
        formula_parameters=formula * size,
        posterior_parameters=parameters - generative,
        parameters=parameters,
        memory=memory,
        variant=candidate.variant,
    )


def _parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def growth_table(rows: Sequence[Row]) -> Table:
    """Returns the rows as a table, one section per K.

    Where steps were measured, their times stand in the place of the formula's nets.
    """
    first = [n for n, row in enumerate(rows) if n == 0 or row.modalities != rows[n - 1].modalities]
    timed = any(row.seconds is not None for row in rows)
    return Table(
        ("K", "model", "nets", "step" if timed else "formula", "q(z|x)", "all", "memory"),
        "rlrrrrr",
        [
            (
                str(row.modalities) if number in first else "",
                row.name,
                f"{row.nets:,}",
                _step(row) if timed else f"{row.formula:,}",
                amount(row.posterior_parameters),
                amount(row.parameters),
                "–" if row.memory is None else size(row.memory),
            )
            for number, row in enumerate(rows)
        ],
        "Nets and parameters of K modalities, counted in built models",
        f"q(z|x): parameters of the posterior; memory: of training {ROWS} rows a step",
        sections=set(first) - {0},
    )


def _step(row: Row) -> str:
    return "–" if row.seconds is None else f"{1000 * row.seconds:,.0f} ms"


@plain_text()
def plot_growth(rows: Sequence[Row], path: Path) -> Path:
    """Draws nets, the posterior's parameters and times against K, on logarithmic axes, as a PNG.

    Args:
        rows: See :func:`growth`; times are drawn if they were measured.
        path: The PNG; its folder is made.

    Returns:
        ``path``.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = {
        "nets": ("Nets in the posterior", "nets (line: counted; ring: formula)"),
        "posterior_parameters": ("Parameters of the posterior", "parameters"),
    }
    if any(row.seconds is not None for row in rows):
        panels["seconds"] = (f"A training step of {ROWS} rows", "milliseconds")
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1)
    width = 6 * len(panels)
    figure = Figure(figsize=(width, 5), dpi=120, facecolor="white", layout=layout)
    for axes, (field, (title, label)) in zip(
        figure.subplots(1, len(panels)), panels.items(), strict=True
    ):
        _lines(axes, rows, field)
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_ylabel(label)
    return save(figure, path)


def _told(field: str, value: float) -> str:
    if field == "seconds":
        return f"{1000 * value:,.0f} ms"
    return f"{value:,}" if field == "nets" else amount(value)


def _lines(axes: "Axes", rows: Sequence[Row], field: str) -> None:
    axes.set_yscale("log")
    ticks = (lambda v: f"{1000 * v:,g}") if field == "seconds" else amount
    axes.yaxis.set_major_formatter(lambda value, _: ticks(value).replace(".00", ""))
    axes.yaxis.set_minor_formatter("")
    axes.set_xlabel("modalities K")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5")
    axes.set_axisbelow(True)
    K = sorted({row.modalities for row in rows})
    axes.set_xticks(K)
    axes.spines.bottom.set_bounds(K[0], K[-1])
    # Room on the right for the lines' names.
    axes.set_xlim(K[0] - 0.2, K[-1] + 0.2 + 0.7 * max(K[-1] - K[0], 1))
    ends: dict[tuple[tuple[int, float], ...], list[Row]] = {}
    kinds = list(dict.fromkeys((row.model, row.variant) for row in rows))

    def colour(row: Row) -> str:
        return PALETTE[kinds.index((row.model, row.variant)) % len(PALETTE)]

    for number, line in enumerate(_series(rows, field)):
        last = line[-1]
        above = 3 - number / 100  # lines that coincide have the colour of the first, as their name
        dashes = "-" if last.layers == 1 else (0, (6 / last.layers, 1.5))
        points = tuple((row.modalities, getattr(row, field)) for row in line)
        style: dict[str, Any] = {"color": colour(last), "zorder": above}
        axes.plot(*zip(*points, strict=True), linestyle=dashes, lw=2, marker=".", **style)
        if field == "nets":
            formula = [row.formula for row in line]
            axes.plot([k for k, _ in points], formula, "o", markerfacecolor="none", **style)
        ends.setdefault(points, []).append(last)  # lines that coincide share one name
    low, high = (math.log(limit) for limit in axes.get_ylim())
    top = -math.inf
    for points, same in sorted(ends.items(), key=lambda item: item[0][-1][1]):
        k, value = points[-1]
        names = f"{_told(field, value)}  {', '.join(row.name for row in same)}"
        label = textwrap.wrap(names, LABEL)
        # Names of lines that end close together are moved apart.
        half = 0.0275 * len(label)
        place = max((math.log(value) - low) / (high - low), top + half)
        top = place + half
        axes.annotate(
            "\n".join(label),
            (k, value),
            xytext=(K[-1] + 0.08 * max(K[-1] - K[0], 1), place),
            textcoords=axes.get_xaxis_transform(),
            color=colour(same[0]),
            va="center",
            fontsize=9.5,
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "relpos": (0, 0.5)},
        )


def _series(rows: Sequence[Row], field: str) -> list[list[Row]]:
    """Sorts the rows that have a value into lines: one a model, variant and layers, by K."""
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.modalities):
        if getattr(row, field) is not None:
            lines.setdefault(row.name, []).append(row)
    return list(lines.values())
