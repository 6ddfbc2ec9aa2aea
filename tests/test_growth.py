from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn
from torch.distributions import Independent, Normal
from toys import REGISTRY, made

from mmgen.evaluation import step_time
from mmgen.evaluation.growth import Row, growth, growth_table, plot_growth
from mmgen.modality import Modality
from mmgen.models.jmvae import JMVAEKL
from mmgen.nets.blocks import Likelihood, mlp

MODELS = {kind: REGISTRY.model(kind) for kind in ("jmvae-kl", "jmvae", "hierarchical")}
"""Those whose formulas the paper gives."""


class Vector(Modality):
    kind: ClassVar[str] = "vector"
    api_version: ClassVar[int] = 1
    size: int = 6
    widths: tuple[int, ...] = (5, 4)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    def encoder(self) -> nn.Module:
        return mlp(self.size, self.widths)

    def decoder(self, in_features: int) -> nn.Module:
        net = mlp(in_features, self.widths, self.size)
        return Likelihood(net, lambda mean: Independent(Normal(mean, 1.0), 1))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return growth(MODELS, Vector(), range(2, 8), (1, 2, 3), latent=3, widths=(5, 4))


def nets(rows: list[Row], model: str, layers: int = 1, variant: str = "") -> list[int]:
    wanted = (model, layers, variant)
    return [row.nets for row in rows if (row.model, row.layers, row.variant) == wanted]


def test_counts_in_built_models_are_those_of_the_paper(rows: list[Row]) -> None:
    assert nets(rows, "jmvae-kl") == [4, 12, 32, 80, 192, 448]
    assert nets(rows, "jmvae") == [2, 3, 4, 5, 6, 7]
    for layers in (1, 2, 3):
        assert nets(rows, "hierarchical", layers) == [K + layers - 1 for K in range(2, 8)]
    assert all(row.nets == row.formula for row in rows)


def test_parameters_are_the_formula_times_those_of_one_net(rows: list[Row]) -> None:
    exact = [row for row in rows if row.layers == 1]
    assert len(exact) == (3 + len(JMVAEKL.variants)) * 6
    for row in exact:
        assert row.net_parameters == row.formula_parameters == row.formula * (6 * 5 + 5 + 5 * 4 + 4)


def test_variants_stand_beside_their_model(rows: list[Row]) -> None:
    variants = {row.variant for row in rows if row.model == "jmvae-kl"}
    assert variants == {"", *JMVAEKL.variants}
    assert nets(rows, "jmvae-kl", variant="shared") == [*range(2, 8)]
    assert nets(rows, "jmvae-kl", variant="product") == [*range(4, 15, 2)]
    assert nets(rows, "jmvae-kl", variant="2 per step") == nets(rows, "jmvae-kl")
    assert {row.name for row in rows if row.variant == "shared"} == {"jmvae-kl shared"}


def test_memory_is_that_of_training(rows: list[Row]) -> None:
    memory = {(row.name, row.modalities): row.memory for row in rows}
    for row in rows:  # weights and two moments, beside the step
        assert row.memory is not None
        assert row.memory > 12 * row.parameters
    # Nets that a step does not draw take no activations and no gradients.
    assert memory["jmvae-kl 2 per step", 7] < 0.8 * memory["jmvae-kl", 7]


def test_a_variant_that_a_model_refuses_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JMVAEKL, "variants", {"30 per step": {"subsets_per_step": 30}})
    told: list[int] = []
    rows = growth({"jmvae-kl": JMVAEKL}, Vector(), [4, 5], done=told.append, latent=3)
    assert [row.name for row in rows] == ["jmvae-kl", "jmvae-kl", "jmvae-kl 30 per step"]
    assert told == [32, 32, 80, 80]


def test_steps_are_measured_on_a_device() -> None:
    before = torch.get_rng_state()
    some = {kind: MODELS[kind] for kind in ("jmvae-kl", "jmvae")}
    rows = growth(some, Vector(), [2, 3], timed_on=torch.device("cpu"), latent=3)
    assert len(rows) == 2 * (2 + len(JMVAEKL.variants))
    assert all(row.seconds is not None and row.seconds > 0 for row in rows)
    assert torch.equal(before, torch.get_rng_state())
    text = growth_table(rows).markdown()
    assert " ms" in text
    assert "formula" not in text


def test_what_has_no_memory_left_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    some = {"jmvae": MODELS["jmvae"], "hierarchical": MODELS["hierarchical"]}
    sizes = [row.memory for row in growth(some, Vector(), [2], [1, 2], latent=3)]
    assert sizes[2] > max(sizes[:2])
    monkeypatch.setattr(step_time, "free_memory", lambda _: 2 * (sizes[0] + sizes[1]))
    rows = growth(some, Vector(), [2], [1, 2], timed_on=torch.device("cpu"), latent=3)
    assert [row.seconds is None for row in rows] == [False, False, True]
    assert growth_table(rows).markdown().count("–") == 1
    with Image.open(plot_growth(rows, tmp_path / "growth.png")) as picture:
        assert picture.width > 2000  # a third panel


def test_parameters_of_a_hierarchy_of_equal_nets_are_the_formula() -> None:
    square = Vector(size=4, widths=(4, 4))
    for row in growth(MODELS, square, [2, 4], [2, 3], latent=3, fusion=(4,), widths=(4, 4)):
        assert row.net_parameters == row.formula_parameters


@pytest.mark.parametrize("K", [2, 3, 4])
@pytest.mark.parametrize(
    ("kind", "layers", "settings"),
    [
        ("jmvae-kl", 1, {"subsets": "all"}),
        ("jmvae", 1, {}),
        ("hierarchical", 1, {"layers": 1, "widths": (5, 4)}),
        ("hierarchical", 3, {"layers": 3, "widths": (5, 4)}),
    ],
)
def test_parameters_equal_those_of_a_model_with_memory(
    rows: list[Row], K: int, kind: str, layers: int, settings: dict[str, object]
) -> None:
    copies = {f"m{k}": Vector() for k in range(K)}
    model = made(kind, copies, **{"latent": 3, **settings})
    row = next(r for r in rows if (r.model, r.layers, r.modalities) == (kind, layers, K))
    assert row.parameters == sum(p.numel() for p in model.parameters())
    generative = [model.decoders, model.priors] if layers > 1 else [model.decoders]
    assert row.parameters - row.posterior_parameters == sum(
        p.numel() for part in generative for p in part.parameters()
    )
    assert row.net_parameters == sum(
        p.numel() for _, net in model.encoder_nets() for p in net.parameters()
    )


def test_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    growth(MODELS, Vector(), [2], [1])
    assert torch.equal(before, torch.get_rng_state())


def test_too_few_modalities_or_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        growth(MODELS, Vector(), [1])
    with pytest.raises(ValueError, match="one layer"):
        growth(MODELS, Vector(), [2], [0])


def test_table_holds_every_row(rows: list[Row]) -> None:
    console = Console(width=80, record=True, file=StringIO())
    large = replace(rows[-1], modalities=10, nets=5120, formula=5120, parameters=10**12 - 1)
    console.print(growth_table([*rows, large]).rich())
    text = console.export_text()
    assert "448" in text
    assert "…" not in text
    assert text.count("hierarchical L=3") == 7


def test_picture_is_whole_and_wide(rows: list[Row], tmp_path: Path) -> None:
    path = plot_growth(rows, tmp_path / "growth.png")
    with Image.open(path) as picture:
        assert picture.width >= 1200
    assert [file.name for file in tmp_path.iterdir()] == ["growth.png"]
    # One value of K is a picture too.
    plot_growth([row for row in rows if row.modalities == 2], tmp_path / "new" / "one.png")
