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

from mmgen.evaluation.growth import Row, growth, growth_table, plot_growth
from mmgen.modality import Modality
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
    return growth(MODELS, Vector(), range(2, 9), (1, 2, 3), latent=3, widths=(5, 4))


def nets(rows: list[Row], model: str, layers: int = 1) -> list[int]:
    return [row.nets for row in rows if (row.model, row.layers) == (model, layers)]


def test_counts_in_built_models_are_those_of_the_paper(rows: list[Row]) -> None:
    assert nets(rows, "jmvae-kl") == [4, 12, 32, 80, 192, 448, 1024]
    assert nets(rows, "jmvae") == [2, 3, 4, 5, 6, 7, 8]
    for layers in (1, 2, 3):
        assert nets(rows, "hierarchical", layers) == [K + layers - 1 for K in range(2, 9)]
    assert all(row.nets == row.formula for row in rows)


def test_parameters_are_the_formula_times_those_of_one_net(rows: list[Row]) -> None:
    exact = [row for row in rows if row.layers == 1]
    assert len(exact) == 3 * 7
    for row in exact:
        assert row.net_parameters == row.formula_parameters == row.formula * (6 * 5 + 5 + 5 * 4 + 4)


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
    assert "1,024" in text
    assert "…" not in text
    assert text.count("hierarchical L=3") == 8


def test_picture_is_whole_and_wide(rows: list[Row], tmp_path: Path) -> None:
    path = plot_growth(rows, tmp_path / "growth.png")
    with Image.open(path) as picture:
        assert picture.width >= 1200
    assert [file.name for file in tmp_path.iterdir()] == ["growth.png"]
    # One value of K is a picture too.
    plot_growth([row for row in rows if row.modalities == 2], tmp_path / "new" / "one.png")
