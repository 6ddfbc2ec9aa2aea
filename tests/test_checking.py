"""What is stored against what its modality expects: nothing is trained on numbers read wrongly."""

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import ROOT, small
from pydantic import PositiveInt
from torch import Tensor
from toys import PLUGIN, Numbers, stored, toy_modalities

from mmgen import build, checking
from mmgen.checking import check_stored
from mmgen.data.store import Dataset, Split, write_dataset
from mmgen.errors import ConfigError, DataError, PluginError
from mmgen.modality import Modality

CONFIG = ROOT / "examples" / "glyphs.toml"
ROWS = 40

OTHER_MEANINGS = [
    'modalities.label.classes=["A","B"]',
    # As many as are stored, in another order.
    f"modalities.label.classes={[*'BACDEFGHIJKLMNOPQRSTUVWXYZ0123456789']}".replace("'", '"'),
    'modalities.attributes.names=["italic","bold","serif","large","high"]',
    'modalities.attributes.names=["bold","italic"]',
    "modalities.image.height=29",
    "modalities.image.channels=3",
]


@pytest.mark.parametrize("setting", OTHER_MEANINGS)
def test_a_setting_that_reads_stored_values_otherwise_is_refused(
    mmgen, small_glyphs, tmp_path, setting
):
    dry = ["--dry-run"] if "image" in setting else []
    words = ("train", CONFIG, *small(small_glyphs), setting, "--out", tmp_path / "run")
    code, out, err = mmgen(*words, *dry)
    assert code == 2
    assert f"{setting.partition('=')[0]} is " in err
    assert f"but {small_glyphs} was written with " in err.replace("\n", "")
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_settings_that_leave_stored_values_as_they_are_may_change(mmgen, small_glyphs):
    settings = ["image.binarise=false", "image.net=convolution", "label.encoder_widths=[7]"]
    settings.append("attributes.likelihood=gaussian")
    words = (f"modalities.{setting}" for setting in settings)
    code, _, err = mmgen("train", CONFIG, *small(small_glyphs), *words, "--dry-run")
    assert code == 0, err


def test_another_kind_is_held_against_the_values(mmgen, small_glyphs, tmp_path):
    words = ["modalities.label.kind=vector", 'modalities.label.names=["one"]']
    code, _, err = mmgen("train", CONFIG, *small(small_glyphs), *words, "--out", tmp_path / "run")
    assert code == 2
    assert "split 'train'" in err
    assert "modalities.label" in err
    assert "stored as uint8 () are observed as 400 of float32 (), not float32 (1,)" in err
    assert 'kind = "vector", not "label"' in err
    assert list(tmp_path.iterdir()) == []


def test_other_data_for_a_run_is_held_against_its_modalities(mmgen, trained, tmp_path):
    run = mmgen_load(trained)
    values = stored(run.modalities, ROWS)
    values["label"] = values["label"].to(torch.uint8)
    settings = {name: m.to_config() for name, m in run.modalities.items()}
    settings["label"]["classes"] = [*reversed(settings["label"]["classes"])]
    other = write_dataset(
        tmp_path / "other", name="o", about="", modalities=settings, splits={"test": values}
    )
    code, out, err = mmgen("evaluate", trained, "--data", other.path, "-n", 1, "--importance", 0)
    assert code == 2
    assert "modalities.label.classes is " in err
    assert out == ""


def mmgen_load(run: Path):
    from mmgen.run import load

    return load(run, device="cpu")


def test_a_report_says_which_values_it_cannot_read(mmgen, small_glyphs, trained, monkeypatch):
    from mmgen.gallery.held_out import held_out

    found = held_out(mmgen_load(trained), build.registry(), None, {})
    assert not isinstance(found, str)
    monkeypatch.setattr(checking, "_fault", lambda *_: "no good")
    assert "no good" in held_out(mmgen_load(trained), build.registry(), None, {})


# The values themselves, of kinds that declare nothing.


def dataset(modalities: dict[str, Modality], **splits: dict[str, Tensor]) -> Dataset:
    settings = {name: m.to_config() for name, m in modalities.items()}
    made = {name: Split((values,)) for name, values in splits.items()}
    return Dataset(Path("toys"), "toys", "", settings, made, "")


def check(modalities: dict[str, Modality], data: Dataset) -> None:
    check_stored(data, modalities, build.registry([PLUGIN]))


def test_what_belongs_together_passes() -> None:
    toys = toy_modalities(5)
    before = torch.get_rng_state()
    check(toys, dataset(toys, train=stored(toys, ROWS), test=stored(toys, 1, seed=1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_kind_writes_into_what_is_stored() -> None:
    class Zeroing(Numbers):
        def observe(self, stored: Tensor, generator: Any = None) -> Tensor:
            return stored.zero_()

    values = stored(toy_modalities(2), ROWS)
    kept = values["point"].clone()
    check({"point": Zeroing()}, dataset({"point": Numbers()}, train={"point": values["point"]}))
    assert torch.equal(values["point"], kept)


def broken(kind: str, split: str, change: Any) -> tuple[dict[str, Modality], Dataset]:
    toys = toy_modalities(5)
    splits = {"train": stored(toys, ROWS), "validation": stored(toys, 7), "test": stored(toys, 9)}
    splits[split][kind] = change(splits[split][kind])
    return toys, dataset(toys, **splits)


def put(row: int, value: float) -> Any:
    def change(values: Tensor) -> Tensor:
        values = values.clone()
        values[row].fill_(value)
        return values

    return change


@pytest.mark.parametrize("whole", [1 << 22, 0])  # all rows, or extremes and some others
@pytest.mark.parametrize(
    ("kind", "change", "what"),
    [
        ("colour", put(5, 3), "rows stored as uint8 () cannot be observed as float32 (3,)"),
        ("point", put(5, math.nan), "row 5 stores [nan, nan, nan]"),
        ("point", put(5, -math.inf), "row 5 stores [-inf, -inf, -inf]"),
        ("point", lambda x: x[:, :2], "are observed as"),
        ("point", lambda x: x.double(), ""),
        ("point", lambda x: x[:-1], "rows, but"),
        ("picture", lambda x: x.float() * 2, "cannot be observed as float32 (1, 6, 6)"),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_fault_is_named(kind, change, what, split, whole, monkeypatch) -> None:
    monkeypatch.setattr(checking, "WHOLE", whole)
    toys, data = broken(kind, split, change)
    if not what:
        check(toys, data)
        return
    with pytest.raises(DataError) as error:
        check(toys, data)
    message = str(error.value)
    assert what in message
    assert f"split {split!r}" in message
    assert f"modalities.{kind}" in message
    assert "plugins check" in message


class Between(Numbers):
    """Numbers in [0, 1], which a continuous Bernoulli demands."""

    kind: ClassVar[str] = "between"

    def decoder(self, in_features: int) -> torch.nn.Module:
        from mmgen.nets.blocks import Likelihood, continuous_bernoulli, mlp

        return Likelihood(mlp(in_features, (), self.size), continuous_bernoulli)


@pytest.mark.parametrize("whole", [1 << 22, 0])
@pytest.mark.parametrize("value", [1.01, -0.01])
def test_a_value_that_the_likelihood_cannot_have_is_named(whole, value, monkeypatch) -> None:
    monkeypatch.setattr(checking, "WHOLE", whole)
    modality = Between(size=1)
    values = torch.rand(10 * ROWS, 1)
    registry = build.registry([PLUGIN])
    monkeypatch.setattr(type(registry), "provider", lambda *_: "toys")
    check_stored(dataset({"x": modality}, train={"x": values}), {"x": modality}, registry)
    values[257] = value
    with pytest.raises(DataError, match=r"row 257 stores .* outside the likelihood's support"):
        check_stored(dataset({"x": modality}, train={"x": values}), {"x": modality}, registry)


@pytest.mark.parametrize(
    ("observed", "what"),
    [
        (lambda x: x.double(), "observed as 40 of float64 (3,), not float32 (3,)"),
        (lambda x: x[:, None], "observed as 40 of float32 (1, 3), not float32 (3,)"),
        (lambda x: x[:7], "observed as 7 of float32 (3,)"),
        (lambda x: None, "AttributeError"),
        (lambda x: x / 0, "outside finite numbers"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_an_observe_that_breaks_the_contract_is_one_message(observed, what) -> None:
    class Broken(Numbers):
        def observe(self, stored: Tensor, generator: Any = None) -> Tensor:
            return observed(stored)

    with pytest.raises(DataError) as error:
        check({"x": Broken()}, dataset({"x": Numbers()}, train={"x": torch.randn(ROWS, 3)}))
    assert what in str(error.value)


def test_a_support_that_is_a_nets_output_is_no_obstacle() -> None:
    class Interval(Numbers):
        def decoder(self, in_features: int) -> torch.nn.Module:
            class Net(torch.nn.Linear):
                def forward(self, z: Tensor) -> torch.distributions.Distribution:
                    low = super().forward(z)
                    uniform = torch.distributions.Uniform(low, low + 1)
                    return torch.distributions.Independent(uniform, 1)

            return Net(in_features, self.size)

    check({"x": Interval()}, dataset({"x": Numbers()}, train={"x": torch.randn(ROWS, 3)}))


class Scale(Numbers):
    """Numbers stored in a unit of their own."""

    stored_with: ClassVar[tuple[str, ...]] = ("unit", "size")
    unit: str = "m"
    width: PositiveInt = 8


def test_fields_that_values_were_stored_with_are_compared_with_defaults_too() -> None:
    values = {"x": torch.randn(ROWS, 3)}
    data = dataset({"x": Scale()}, train=values)
    check({"x": Scale(width=9)}, data)
    del data.modalities["x"]["unit"]  # written before there was such a field
    check({"x": Scale()}, data)
    with pytest.raises(ConfigError, match=r'modalities\.x\.unit is "km", .* written with "m"'):
        check({"x": Scale(unit="km")}, data)


def test_fields_that_do_not_exist_are_the_plugins_fault() -> None:
    class Misspelt(Scale):
        stored_with: ClassVar[tuple[str, ...]] = ("unti",)

    with pytest.raises(PluginError, match="stored_with names 'unti'"):
        check({"x": Misspelt()}, dataset({"x": Scale()}, train={"x": torch.randn(ROWS, 3)}))


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.int8, torch.int16, torch.int64, torch.uint16, torch.uint32, torch.float16,
     torch.bfloat16, torch.float64, torch.float8_e4m3fn],
)  # fmt: skip
def test_extremes_are_found_in_any_type(dtype) -> None:
    values = torch.zeros(ROWS, 3)
    values[7, 2] = 1
    split = Split(({"x": values[:5].to(dtype)}, {"x": values[5:].to(dtype)}))
    assert 7 in checking._extremes(split, "x")


def test_what_is_large_is_searched_in_part(monkeypatch) -> None:
    values = torch.arange(float(ROWS)).view(ROWS, 1)
    monkeypatch.setattr("mmgen.data.shard.BLOCK", 4)  # one row
    assert checking._extremes(Split(({"x": values},)), "x") == {0, ROWS - 1}
    monkeypatch.setattr(checking, "SCANNED", ROWS)  # a quarter of its bytes
    assert checking._extremes(Split(({"x": values},)), "x") == {0, ROWS - 5}
