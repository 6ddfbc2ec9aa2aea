"""``[data] source = "synthetic"``: examples made up on the spot, the same each time."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmgen import build
from mmgen.data.sources.synthetic import synthetic_dataset
from mmgen.errors import ConfigError, DataError, PluginError
from mmgen.experiment import Experiment
from mmgen_image import Image
from mmgen_label import Label

WIDTHS = "encoder_widths = [8]\ndecoder_widths = [8]\n"
EXPERIMENT = f"""
[data]
source = "synthetic"
rows = 60
classes = 3
seed = 1

[modalities.size]
kind = "vector"
names = ["height", "weight"]
{WIDTHS}
[modalities.label]
kind = "label"
classes = ["a", "b", "c"]
{WIDTHS}
[modalities.attributes]
kind = "attributes"
{WIDTHS}
[model]
kind = "jmvae-kl"
latent = 3

[train]
epochs = 2
batch_size = 20
"""


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "experiment.toml"
    path.write_text(EXPERIMENT)
    return path


def experiment(config: Path, *overrides: str) -> Experiment:
    return Experiment.read(config, overrides)


def made(config: Path, *overrides: str):
    return build.dataset(experiment(config, *overrides), build.registry())


def test_rows_to_train_on_and_a_fifth_to_validate_and_to_test(config):
    data = made(config)
    counts = {"train": 60, "validation": 12, "test": 12}
    assert {name: split.count for name, split in data.splits.items()} == counts
    assert (data.name, list(data.modalities)) == ("synthetic", ["size", "label", "attributes"])
    assert "3 classes" in data.about
    assert made(config, "data.rows=1").splits["test"].count == 1


def test_the_same_settings_make_the_same_data(config):
    torch.manual_seed(0)
    first = made(config)
    state = torch.random.get_rng_state()
    again = made(config)
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.hash == again.hash
    for split in first.splits:
        for name, values in first.splits[split].load().items():
            assert torch.equal(values, again.splits[split].load()[name])


@pytest.mark.parametrize(
    "override",
    ["data.seed=2", "data.classes=2", "data.rows=61", "modalities.size.names=['a', 'b']"],
)
def test_other_settings_make_data_of_another_hash(config, override):
    assert made(config, override).hash != made(config).hash


def test_nets_and_the_training_s_seed_do_not_change_the_values(config):
    overrides = ("train.seed=5", "modalities.size.encoder_widths=[9]")
    one, other = (made(config, *words).splits["train"].load() for words in ((), overrides))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_modalities_are_fitted_to_the_training_examples(config):
    data = made(config)
    values = data.splits["train"].load()["size"].double()
    assert data.modalities["size"]["mean"] == pytest.approx(values.mean(0).tolist())
    assert data.modalities["size"]["standard_deviation"] == pytest.approx(
        values.std(0, correction=0).tolist()
    )


def test_fields_without_a_default_take_their_examples_and_what_is_set_wins(config):
    data = made(config)
    assert data.modalities["attributes"]["names"] == ["bold", "italic"]
    assert data.modalities["size"]["names"] == ["height", "weight"]


def test_rows_of_a_class_show_the_same_thing_in_every_modality():
    modalities = {"picture": Image(height=4, width=4), "label": Label(classes=("a", "b"))}
    train = synthetic_dataset(modalities, 400, classes=2).splits["train"].load()
    means = [train["picture"][train["label"] == c].float().mean(0) for c in (0, 1)]
    assert (means[0] - means[1]).abs().mean() > 40  # of 255; noise alone would be about 4


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.rowz=3", r"data\.rowz: unknown key; did you mean 'rows'\?"),
        ("data.rows=0", r"data\.rows: Input should be greater than 0, not 0"),
        ("data.classes=none", r"data\.classes: Input should be a valid integer.*not 'none'"),
        ("data.seed=-1", r"data\.seed: Input should be greater than or equal to 0"),
        ("modalities.label.kind=lable", r"modalities\.label\.kind: no plugin .*; did you mean"),
        ("modalities.label.clases=[]", r"modalities\.label\.clases: unknown key"),
        ("modalities.label.classes=['a']", r"modalities\.label\.classes: .* at least 2 items"),
        ("modalities.sound.kind=3", r"modalities\.sound\.kind must be one of .*vector, not 3"),
        (
            "modalities.sound.size=3",
            r"no modality 'sound' takes part.*modalities\.sound\.kind=\.\.",
        ),
        ("modalities.lable.classes=[]", r"no modality 'lable' takes part.*did you mean 'label'"),
        ("data.modalities=size,lable", r"modalities\.lable: the synthetic data has .*label"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_written(mmgen, config, override, words):
    with pytest.raises((ConfigError, DataError, PluginError), match=words):
        made(config, override)
    code, out, err = mmgen("train", config, override, "--out", config.parent / "run")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert [p.name for p in config.parent.iterdir()] == [config.name]


def test_without_modalities_the_message_says_which_kinds_there_are(mmgen, config):
    head, _, rest = config.read_text().partition("[modalities.size]")
    config.write_text(head + rest[rest.index("[model]") :])
    code, _, err = mmgen("train", config, "--out", config.parent / "run")
    assert code == 2
    assert 'data.source = "synthetic" is made of what the modalities are: write at least two' in err
    assert "attributes, counts, image, label, vector" in err


def test_a_plugin_whose_examples_fail_is_named(mmgen, config, tmp_path):
    (tmp_path / "bad.py").write_text(
        "from mmgen import hookimpl\nfrom mmgen_vector import Vector\n"
        "class Bad(Vector):\n    kind = 'bad'\n    api_version = 1\n"
        "    def example(self, classes, generator):\n        raise LookupError('no examples')\n"
        "@hookimpl\ndef mmgen_modalities():\n    return [Bad]\n"
    )
    words = ("-p", tmp_path / "bad.py", "train", config, "modalities.size.kind=bad")
    code, _, err = mmgen(*words, "--out", tmp_path / "run")
    assert code == 2
    assert f"bad of plugin {tmp_path / 'bad.py'}" in err.replace("\n", "")
    assert "no examples" in err


def test_a_run_goes_on_bit_for_bit_and_generates_without_any_folder_of_data(mmgen, config):
    folder = config.parent
    one, two = folder / "one", folder / "two"
    assert mmgen("train", config, "--out", one, "--no-figures")[0] == 0
    assert mmgen("train", config, "train.epochs=1", "--out", two, "--no-figures")[0] == 0
    code, _, err = mmgen("train", two, "--resume", "train.epochs=2", "--no-figures")
    assert code == 0, err
    assert "going on after epoch 1" in err
    weights, again = (load_file(run / "last.safetensors") for run in (one, two))
    assert all(torch.equal(weights[name], again[name]) for name in weights)

    kept = json.loads((one / "experiment.json").read_text())
    source = {"source": "synthetic", "rows": 60, "classes": 3, "seed": 1}
    assert kept["data"] == {**source, "modalities": None}
    code, out, _ = mmgen("generate", one, "--given", "label=b", "size=0.5,-1")
    assert code == 0
    assert "attributes: " in out
    code, out, _ = mmgen("generate", one, "--given", "label=b", "--targets", "size")
    assert "height " in out


def test_a_run_does_not_go_on_with_other_data(mmgen, config):
    run = config.parent / "run"
    assert mmgen("train", config, "train.epochs=1", "--out", run, "--no-figures")[0] == 0
    before = (run / "last.safetensors").read_bytes()
    code, _, err = mmgen("train", run, "--resume", "data.seed=2", "train.epochs=2")
    assert code == 2
    assert "was trained with other settings of data.seed" in err
    assert (run / "last.safetensors").read_bytes() == before


def test_a_folder_of_data_replaces_the_synthetic_source(mmgen, config, small_glyphs):
    one = experiment(config, f"data.path='{small_glyphs}'")
    assert one.data.path == small_glyphs
    code, _, err = mmgen("train", config, "--data", small_glyphs, "--out", config.parent / "run")
    assert code == 2
    assert "modalities.size: the data set" in err  # which has image, label, attributes
