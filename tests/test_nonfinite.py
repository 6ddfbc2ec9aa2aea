"""Numbers that stop being finite are located: term, modality, parameter, epoch, batch and rows."""

import json
import math
import re
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from toys import CPU, KINDS, Numbers, Word, small_settings, training

from mmgen import hookimpl
from mmgen.data.batches import Batches
from mmgen.data.store import Split, write_dataset
from mmgen.errors import RunError
from mmgen.experiment import Experiment
from mmgen.modality import Modality
from mmgen.nets.blocks import Likelihood
from mmgen.training import nonfinite
from mmgen.training.session import prepare, start, train

PLUGIN = str(Path(__file__).resolve())
ROWS = 24  # three batches of eight


class Fuse(nn.Module):
    """Burns through: gives NaN once its weight has learned its way down to the limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + torch.where(self.weight < self.limit, math.nan, 0.0)


class Root(nn.Module):
    """√max(x, 0): finite everywhere, but its gradient at 0 is ∞ · 0."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * (x > 0)).sqrt()


class Fragile(Numbers):
    """Numbers whose decoder breaks when it has learned for a while."""

    kind: ClassVar[str] = "fragile"
    limit: float = 1.0

    def decoder(self, in_features: int) -> nn.Module:
        net = nn.Sequential(nn.Linear(in_features, self.size), Fuse(self.limit))
        return Likelihood(net, _normal)


class Rooted(Numbers):
    """Numbers whose encoder has a gradient that is not finite."""

    kind: ClassVar[str] = "rooted"

    def encoder(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.size, 4), Root())


class Steep(Numbers):
    """Numbers whose likelihood overflows for large values, though all nets are finite."""

    kind: ClassVar[str] = "steep"
    deviation: PositiveFloat = 1e-18

    def decoder(self, in_features: int) -> nn.Module:
        def family(mean: Tensor) -> Independent:
            noise = torch.full_like(mean, 1e-3)
            return Independent(Cliff(mean, noise, validate_args=False), 1, validate_args=False)

        return Likelihood(nn.Linear(in_features, self.size), family)


class Cliff(Normal):
    """A normal distribution whose density is lost beyond 100."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + torch.where(value.abs() > 100, -math.inf, 0.0)


def _normal(mean: Tensor) -> Independent:
    noise = torch.ones_like(mean)
    return Independent(Normal(mean, noise, validate_args=False), 1, validate_args=False)


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    return [Fragile, Rooted, Steep, Numbers, Word]


def found(kind, modality, *, point=None, **settings):
    """Locates what breaks in a training of ``point`` and ``colour``."""
    modalities = {"point": modality, "colour": Word()}
    values = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
    values = values if point is None else point(values)
    stored = {"point": values, "colour": torch.arange(ROWS) % 3}
    state = training(kind, modalities, **settings)
    data = Batches(Split((stored,)), modalities, device=CPU, batch_size=8)
    return nonfinite.locate(state, data), data


def where(data, epoch, rows):
    """Returns the batch, from 1, that holds a row in an epoch."""
    order = data.order(0, epoch - 1)
    return int((order == rows).nonzero()) // 8 + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_value_in_the_data_is_found_by_modality_and_row(kind, value):
    def broken(values):
        values[13, 1] = value
        return values

    finding, data = found(kind, Numbers(), point=broken)
    assert (finding.source, finding.modality, finding.rows) == ("data", "point", (13,))
    assert (finding.epoch, finding.batch) == (1, where(data, 1, 13))
    assert "the data of 'point' is not finite, from rows 13 of the training split" in str(finding)
    assert "(1 of the batch's 8)" in str(finding)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_whose_output_breaks_is_found_by_net_and_step(kind):
    finding, _ = found(kind, Fragile(limit=0.9975))
    assert (finding.source, finding.modality, finding.rows) == ("net", "point", ())
    assert finding.what == "the output of the net decoders.point.net.1"
    # Adam's steps are 1e-3 at most: the weight is not below the limit before the fourth.
    assert (finding.epoch, finding.batch) >= (2, 1)
    assert "from all 8 rows of the batch alike" in str(finding)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_breaks_is_found_by_parameter(kind):
    finding, _ = found(kind, Rooted())
    assert (finding.source, finding.modality) == ("gradient", "point")
    assert re.fullmatch(
        r"the gradient of (encoder\.)?encoders\.point\.\S*(weight|bias)", finding.what
    )
    assert (finding.epoch, finding.batch) == (1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_term_that_breaks_is_found_by_name_and_row(kind):
    def far(values):
        values[[4, 21], 0] = 1e3
        return values

    finding, data = found(kind, Steep(), point=far)
    assert (finding.source, finding.what) == ("term", "the term reconstruction/point")
    assert finding.modality == "point"
    assert set(finding.rows) <= {4, 21}
    assert finding.batch == min(where(data, 1, 4), where(data, 1, 21))


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_overflows_is_found_by_name(kind):
    finding, _ = found(kind, Numbers(), learning_rate=1e39)
    assert finding.source == "weight"
    assert finding.what.startswith("the weight ")
    assert finding.batch == 1
    assert "smaller train.learning_rate" in nonfinite.advice(finding, None, "")


def test_nothing_is_found_where_nothing_is_broken_and_the_steps_are_those_of_training():
    finding, _ = found("jmvae-kl", Numbers())
    assert finding is None


class Half(Numbers):
    """Numbers whose encoder has weights that do not learn."""

    kind: ClassVar[str] = "half"

    def encoder(self) -> nn.Module:
        frozen = nn.Linear(self.size, 4)
        frozen.requires_grad_(False)
        return nn.Sequential(frozen, nn.Linear(4, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_do_not_learn_are_no_obstacle(kind):
    def broken(values):
        values[13, 1] = math.nan
        return values

    assert found(kind, Half())[0] is None
    assert found(kind, Half(), point=broken)[0].rows == (13,)


def test_a_modality_that_takes_no_part_is_not_blamed():
    modalities = {"point": Fragile(limit=0.9975), "colour": Word(), "other": Numbers()}
    values = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
    stored = {"point": values, "colour": torch.arange(ROWS) % 3, "other": values * math.nan}
    state = training("cvae", modalities, model={"targets": ["point"], "given": ["colour"]})
    data = Batches(Split((stored,)), modalities, device=CPU, batch_size=8)
    finding = nonfinite.locate(state, data)
    assert (finding.modality, finding.what) == (
        "point",
        "the output of the net decoders.point.net.1",
    )


def test_watching_changes_no_weight():
    modalities = {"point": Numbers(), "colour": Word()}
    stored = {"point": torch.randn(ROWS, 3), "colour": torch.arange(ROWS) % 3}
    data = Batches(Split((stored,)), modalities, device=CPU, batch_size=8)
    watched = training("jmvae-kl", modalities)
    assert nonfinite.locate(watched, data) is None  # two epochs
    plain = training("jmvae-kl", modalities)
    plain.model.train()
    for epoch in range(2):
        for number, x in enumerate(data.epoch(0, epoch)):
            plain.step(x, epoch + (number + 1) / 3)
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, watched.model.state_dict()[name]), name


def test_many_rows_are_counted_not_listed():
    finding = nonfinite.Finding("x", None, 1, 2, tuple(range(20)), 32, "term")
    assert "rows 0, 1, 2, 3, 4, 5, 6, 7 and 12 more of" in str(finding)


# In a run.


def run(tmp_path, kind, modality, values, *, epochs=4, **settings):
    data = tmp_path / "data"
    modalities = {"point": modality.to_config(), "colour": Word().to_config()}
    splits = {"train": {"point": values, "colour": torch.arange(ROWS) % 3}}
    write_dataset(data, name="toys", about="", modalities=modalities, splits=splits)
    table = {"data": {"path": data}, "model": {"kind": kind, **small_settings(kind, modalities)}}
    table["train"] = {"epochs": epochs, "batch_size": 8, "device": "cpu", **settings}
    prepared = prepare(Experiment.checked(table, "toys"), [PLUGIN])
    out = tmp_path / "run"
    start(prepared, out)
    done = []
    with pytest.raises(RunError) as error:
        done.extend(train(prepared, out))
    return out, str(error.value), done


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_breaks_keeps_its_last_good_checkpoint(tmp_path, kind):
    values = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
    out, message, _ = run(tmp_path, kind, Fragile(limit=0.9965), values, learning_rate=5e-4)
    assert "the output of the net decoders.point.net.1 is not finite" in message
    assert "Try a smaller train.learning_rate" in message
    epoch = int(re.search(r"epoch (\d+), batch", message)[1])
    assert epoch > 1
    assert "The last checkpoint is kept; go on from there:" in message
    assert f"\n  mmgen -p {PLUGIN} train {out} --resume" in message
    from mmgen.run import load
    from mmgen.training import run_folder

    again = load(out, weights="last", plugin_modules=[PLUGIN])
    assert all(p.isfinite().all() for p in again.model.parameters())
    assert len(run_folder.read_metrics(out)) == epoch - 1


def test_a_gradient_that_breaks_in_the_last_step_of_an_epoch_never_reaches_a_checkpoint(tmp_path):
    # One batch an epoch: its loss is finite, and only the weights after it are not.
    values = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
    out, message, _ = run(tmp_path, "jmvae", Rooted(), values, batch_size=ROWS)
    assert "epoch 1, batch 1: the gradient of encoder.encoders.point" in message
    assert not (out / "last.safetensors").exists()
    assert "There was no checkpoint yet" in message


def test_the_command_line_says_it_and_exits_with_2(mmgen, tmp_path):
    values = torch.randn(ROWS, 3)
    values[7, 2] = 1e30  # finite, and so let through; its square is not
    modalities = {"point": Numbers().to_config(), "colour": Word().to_config()}
    splits = {"train": {"point": values, "colour": torch.arange(ROWS) % 3}}
    write_dataset(tmp_path / "data", name="toys", about="", modalities=modalities, splits=splits)
    config = tmp_path / "config.toml"
    config.write_text("data.path = 'data'\nmodel.kind = 'jmvae'\ntrain.epochs = 2\n")
    code, _, err = mmgen("-p", PLUGIN, "train", config, "--out", tmp_path / "run")
    assert code == 2
    assert "is not finite" in err
    assert "epoch 1, batch" in err


def test_a_run_that_broke_goes_on_with_a_smaller_step_size(mmgen, tmp_path):
    values = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
    out, message, _ = run(tmp_path, "jmvae", Fragile(limit=0.9965), values, learning_rate=5e-4)
    assert "train.learning_rate=5e-05" in message
    before = json.loads((out / "environment.json").read_text())["command"]
    words = ("train", out, "--resume", "--no-figures")
    assert mmgen("-p", PLUGIN, *words)[0] == 2  # the same steps lead to the same place
    code, _, err = mmgen("-p", PLUGIN, *words, "train.learning_rate=1e-9")
    assert code == 0, err
    environment = json.loads((out / "environment.json").read_text())
    assert environment["command"] == before
    assert len(environment["continued"]) == 1
    assert environment["continued"][0].endswith("train.learning_rate=1e-9")


def test_a_cause_that_cannot_be_looked_for_still_names_the_term(tmp_path, monkeypatch):
    def unwatchable(*_):
        raise TypeError("no hooks here")

    monkeypatch.setattr(nonfinite, "locate", unwatchable)
    values = torch.randn(ROWS, 3)
    values[3] = 1e30
    _, message, _ = run(tmp_path, "jmvae", Numbers(), values)
    assert "is no longer a finite number" in message
    assert "Looking for the cause failed: TypeError: no hooks here" in message
