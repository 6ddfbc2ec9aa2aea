import json
import math
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from toys import KINDS, REGISTRY

from mmgen import build
from mmgen.errors import ConfigError, MmgenError, listed, nearest
from mmgen.experiment import Experiment, explain

TOML = """
name = "demo"

[data]
path = "glyphs"
source = "glyphs"

[modalities.photo]
kind = "image"
[modalities.label]

[model]
kind = "jmvae-kl"
latent = 16
subsets = ["photo"]

[train]
epochs = 30
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "demo.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def model_settings(experiment):
    """The settings of the model, as its kind reads them."""
    return build.model_settings(experiment, REGISTRY)


def test_a_toml_file_becomes_an_experiment(file):
    experiment = Experiment.read(file)
    assert experiment.name == "demo"
    assert experiment.modalities == {"photo": {"kind": "image"}, "label": {}}
    assert list(experiment.modalities) == ["photo", "label"]
    assert experiment.model.kind == "jmvae-kl"
    assert experiment.model.settings == {"latent": 16, "subsets": ["photo"]}
    settings = model_settings(experiment)
    assert (settings.latent, settings.alpha, settings.subsets) == (16, 1.0, ("photo",))
    assert experiment.train.epochs == 30
    assert experiment.data.source == "glyphs"


def test_a_relative_data_path_starts_at_the_file(file, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert Experiment.read(file).data.path == tmp_path.resolve() / "glyphs"


def test_an_absolute_data_path_stays(file):
    assert Experiment.read(file, ["data.path=/there"]).data.path == Path("/there")


def test_a_relative_override_starts_at_the_current_folder_and_survives_the_run(
    file, tmp_path, monkeypatch
):
    """A run's experiment.json lies in another folder than the one the command ran in."""
    monkeypatch.chdir(tmp_path)
    experiment = Experiment.read(file, ["data.path=other/set"])
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "experiment.json").write_text(experiment.model_dump_json(), encoding="utf-8")
    again = Experiment.read(run / "experiment.json")
    assert again.data.path == tmp_path.resolve() / "other" / "set"


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.epochs=3", "train", "epochs", 3),
        ("train.learning_rate=1e-4", "train", "learning_rate", 1e-4),
        ("train.betas=[0.5, 0.9]", "train", "betas", (0.5, 0.9)),
        ("train.compile=true", "train", "compile", True),
        ("train.device=cuda:1", "train", "device", "cuda:1"),
        ('train.device="cpu"', "train", "device", "cpu"),
        (" train.epochs = 3 ", "train", "epochs", 3),
        ("model.subsets=all", "model", "subsets", "all"),
        ('model.subsets=["label", "photo"]', "model", "subsets", ("label", "photo")),
        ("model.fusion=[4]", "model", "fusion", (4,)),
    ],
)
def test_an_override_lies_over_the_file(file, override, section, key, value):
    experiment = Experiment.read(file, [override])
    part = model_settings(experiment) if section == "model" else getattr(experiment, section)
    found = getattr(part, key)
    assert found == value
    assert type(found) is type(value)


def test_the_last_override_wins_and_others_stay(file):
    experiment = Experiment.read(file, ["train.epochs=3", "train.seed=7", "train.epochs=4"])
    assert (experiment.train.epochs, experiment.train.seed) == (4, 7)
    assert model_settings(experiment).latent == 16


def test_an_override_may_name_a_section_that_the_file_has_not(file):
    experiment = Experiment.read(file, ["modalities.photo.channels=[8, 16]"])
    assert experiment.modalities["photo"] == {"kind": "image", "channels": [8, 16]}


def test_an_override_of_a_setting_does_not_decide_who_takes_part(file, tmp_path):
    every = tmp_path / "every.toml"
    every.write_text('data.path = "glyphs"\nmodel.kind = "jmvae"\n')
    assert Experiment.read(every).participants is None
    experiment = Experiment.read(every, ["modalities.image.net=convolution"])
    assert experiment.participants is None
    assert experiment.modalities == {"image": {"net": "convolution"}}
    for overrides in ([], ["modalities.photo.height=8"], ["modalities={label={classes=['a']}}"]):
        assert Experiment.read(file, overrides).participants == ("photo", "label")


@pytest.mark.parametrize("value", ["label,sound", '["label", "sound"]', " label , sound "])
def test_who_takes_part_is_chosen_by_one_setting(file, value):
    words = [f"data.modalities={value}", "modalities.sound.rate=3"]
    experiment = Experiment.read(file, words)
    assert experiment.participants == ("label", "sound")
    with pytest.raises(ConfigError, match="no modality 'photo' takes part, only label, sound"):
        Experiment.read(file, [*words, "modalities.photo.height=8"])
    assert Experiment.read(file, ["data.modalities=all"]).participants is None


def test_a_run_s_json_names_who_takes_part_by_its_settings(tmp_path):
    """As those of runs from before there was data.modalities, and of all since."""
    path = tmp_path / "experiment.json"
    table = {
        "data": {"path": "/there", "source": None},
        "modalities": {"b": {"kind": "image"}, "a": {"kind": "label"}},
        "model": {"kind": "jmvae"},
    }
    for data in ({}, {"modalities": None}):
        path.write_text(json.dumps(table | {"data": table["data"] | data}))
        for overrides in ([], ["modalities.a.classes=['x', 'y']"]):
            assert Experiment.read(path, overrides).participants == ("b", "a")


def test_a_data_set_whose_name_is_not_utf_8_cannot_be_noted(file):
    with pytest.raises(ConfigError, match=r"data\.path: the name .* is not UTF-8"):
        Experiment.read(file, ["data.path=/\udcff"])


@pytest.mark.parametrize("kind", KINDS)
def test_json_gives_the_same_experiment_back(tmp_path, kind):
    experiment = Experiment.checked(
        {
            "data": {"path": "/there"},
            "modalities": {"b": {"kind": "image", "shape": [1, 2]}, "a": {"kind": "label"}},
            "model": {"kind": kind, "fusion": [3]},
            "train": {"warmup_epochs": 0.5, "gradient_clip": 2.0, "betas": [0.1, 0.2]},
        },
        "here",
    )
    path = tmp_path / "experiment.json"
    path.write_text(experiment.model_dump_json(), encoding="utf-8")
    again = Experiment.read(path)
    assert again == experiment
    assert again.model.settings == {"fusion": [3]}
    assert list(again.modalities) == ["b", "a"]


def test_the_defaults_are_the_papers(file):
    train = Experiment.read(file, ["train={}"]).train
    assert (train.learning_rate, train.betas, train.eps) == (1e-3, (0.9, 0.999), 1e-8)
    model = model_settings(Experiment.read(file, ['model={kind="hierarchical"}']))
    assert (model.latent, model.layers) == (64, 2)


def test_warmup_is_a_tenth_of_all_epochs_unless_set(file):
    assert Experiment.read(file).train.warmup == 3
    assert Experiment.read(file, ["train.warmup_epochs=0"]).train.warmup == 0
    assert Experiment.read(file, ["train.warmup_epochs=12.5"]).train.warmup == 12.5


def test_an_experiment_does_not_change(file):
    with pytest.raises(ValidationError, match="frozen"):
        Experiment.read(file).train.epochs = 3


WRONG = {
    # an override, and what the message must say
    "nam=1": "nam: unknown key; did you mean 'name'?",
    "trian.epochs=1": "trian: unknown key; did you mean 'train'?",
    "train.epoch=1": "train.epoch: unknown key; did you mean 'epochs'?",
    "data.pth=1": "data.pth: unknown key; did you mean 'path'?",
    "model={latent=3}": "model.kind: missing",
    "model.kind=3": "model.kind: Input should be a valid string, not 3",
    "model=3": "model: ",
    "train.epochs=0": "train.epochs: Input should be greater than 0, not 0",
    "train.epochs=[1]": "train.epochs: Input should be a valid integer, not [1]",
    "train.learning_rate=0": "train.learning_rate: Input should be greater than 0, not 0",
    "train.learning_rate=nan": "train.learning_rate: ",
    "train.learning_rate=inf": "train.learning_rate: ",
    "train.betas=[0.9, 1]": "train.betas.1: Input should be less than 1, not 1",
    "train.betas=[0.9]": "train.betas.1: missing",
    "train.precision=float16": "train.precision: Input should be 'float32', 'bfloat16' or 'auto'",
    "train.seed=-1": "train.seed: ",
    "train.seed=18446744073709551616": "train.seed: ",
    "train.compile=maybe": "train.compile: Input should be a valid boolean",
    "train=3": "train: ",
    "data={}": "data.path: missing",
    "data.path=3": "data.path: ",
    "modalities.photo=3": "modalities.photo: ",
    "data.modalities=photo": "data.modalities: only photo takes part, but a joint model needs",
    "data.modalities=photo,photo": "data.modalities: photo is named twice",
    "data.modalities=[]": "data.modalities: ",
    "data.modalities=3": "data.modalities: ",
    "modalities.foto.net=mlp": "no modality 'foto' takes part, only photo, label; did you mean",
    "modalities.sound.net=mlp": "to choose who does: data.modalities=photo,label,sound",
    "modalities={sound={}}": "no modality 'sound' takes part, only photo, label",
    'modalities={"a+b"={}, c={}}': "modalities: 'a+b' is no name for a modality",
    "modalities.a=b.kind=3": "modalities.a: ",
    "train.epochs.first=1": "'train.epochs.first=1': epochs is a value, not a table",
    "train.epochs": "'train.epochs': write overrides as key=value",
    "=3": "'=3': write overrides as key=value",
    "train..epochs=3": "'train..epochs=3': write overrides as key=value",
    "a[b=1": "a[b: unknown key",
    "train.a[b=1": "train.a[b: unknown key",
}


WRONG_MODEL = {
    # known when plugins are loaded
    "model.latnt=1": "model.latnt: unknown key; did you mean 'latent'?",
    "model.layers=2": "model.layers: unknown key",
    "model.kind=jmvae_kl": "model.kind: no plugin provides model kind 'jmvae_kl'; did you mean "
    "'jmvae-kl'?",
    "model.kind=gan": "model.kind: no plugin provides model kind 'gan'",
    "model.latent=0": "model.latent: Input should be greater than 0, not 0",
    "model.latent=many": "model.latent: Input should be a valid integer",
    "model.latent=1.5": "model.latent: Input should be a valid integer",
    "model.alpha=-1": "model.alpha: Input should be greater than or equal to 0, not -1",
    "model.subsets=some": "model.subsets: ",
    "model.fusion=[8, 0]": "model.fusion.1: Input should be greater than 0, not 0",
}


@pytest.mark.parametrize("override", WRONG_MODEL)
def test_a_wrong_setting_of_the_model_is_one_error_with_its_key(file, override):
    with pytest.raises(MmgenError) as caught:
        model_settings(Experiment.read(file, [override]))
    message = str(caught.value)
    assert WRONG_MODEL[override] in message
    assert "pydantic" not in message
    for line in message.splitlines():
        assert "tuple" not in line.split(": ")[0], "the type of a union is no key"


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_one_error_with_its_key(file, override):
    with pytest.raises(ConfigError) as caught:
        Experiment.read(file, [override])
    assert WRONG[override] in str(caught.value)


@pytest.mark.parametrize("override", [o for o in WRONG if " write overrides" not in WRONG[o]])
def test_the_message_is_lines_of_keys_without_the_names_of_python_types(file, override):
    with pytest.raises(ConfigError) as caught:
        Experiment.read(file, [override])
    message = str(caught.value)
    assert "pydantic" not in message
    assert "Value error" not in message
    if message.startswith(str(file)):
        where, *lines = message.splitlines()
        assert where == f"{file}:"
        for line in lines:
            key = line.strip().split(": ")[0]
            assert not key.startswith("data.folder"), "the tag of the union is no key"
            assert "tuple" not in key


def test_all_that_is_wrong_is_reported_at_once(file):
    with pytest.raises(ConfigError) as caught:
        Experiment.read(file, ["train.epochs=0", "train.seed=-1", "nam=1"])
    for key in ("train.epochs", "train.seed", "nam"):
        assert f"\n  {key}: " in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        model_settings(Experiment.read(file, ["model.alpha=-1", "model.latent=0", "model.nam=1"]))
    for key in ("model.alpha", "model.latent", "model.nam"):
        assert f"  {key}: " in str(caught.value)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"demo\.toml: there is no such file"):
        Experiment.read(tmp_path / "demo.toml")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.toml", b"[data\npath=3", "not valid TOML: .*line 1"),
        ("bad.toml", b"epochs = ten", "not valid TOML"),
        ("bad.json", b"{", "not valid JSON"),
        ("bad.json", b"[1, 2]", "holds no JSON object"),
        ("bad.toml", b"name = '\xff'", "is not text in UTF-8"),
        ("empty.toml", b"", "data: missing"),
        ("text", b"[data", r"text: is not valid TOML"),
        ("long.toml", b"[train]\nseed = " + b"9" * 5000, "long.toml"),
        ("deep.toml", b"name = " + b"[" * 3000, "deep.toml"),
        ("deep.json", b"[" * 100_000, "deep.json"),
        ("null.toml", b'[data]\npath = "\\u0000"', "null.toml"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_experiment_is_one_error(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        Experiment.read(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_experiment(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        Experiment.read(tmp_path)


KEYS = st.one_of(
    st.sampled_from(
        [
            "name", "data", "data.path", "modalities", "modalities.label.kind", "model",
            "model.kind", "model.latent", "model.subsets", "model.fusion", "train",
            "train.epochs", "train.betas", "train.seed", "train.device", "train.warmup_epochs",
        ]
    ),
    st.text(alphabet=string.ascii_letters + "._-[]+ ", max_size=12),
    st.text(max_size=8),
)  # fmt: skip
TABLES = st.dictionaries(st.sampled_from(["kind", "path", "latent", "a"]), st.integers()).map(
    lambda table: "{" + ", ".join(f"{k} = {v}" for k, v in table.items()) + "}"
)
VALUES = st.one_of(
    st.sampled_from(["jmvae", "hierarchical", "all", "{}", "[]", '["photo"]', "nan", "-inf", ""]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=10),
    TABLES,
)
OVERRIDES = st.lists(
    st.one_of(st.builds("{}={}".format, KEYS, VALUES), st.text(max_size=10)), max_size=3
)
SAME_FILE = [HealthCheck.function_scoped_fixture]


@settings(max_examples=300, deadline=None, suppress_health_check=SAME_FILE)
@given(OVERRIDES)
@example(["model.kind=hierarchical", "model.subsets=3"])
@example(["train.seed=" + "9" * 5000])
@example(["data.path=\x00"])
def test_any_override_gives_an_experiment_or_a_config_error(file, overrides):
    try:
        experiment = Experiment.read(file, overrides)
    except ConfigError:
        return
    numbers = (experiment.train.learning_rate, experiment.train.warmup, experiment.train.eps)
    assert not any(math.isnan(number) for number in numbers)
    # What can be read can be written into a run folder, and read again.
    table = json.loads(experiment.model_dump_json())
    assert Experiment.checked(table, "again").train == experiment.train


def test_errors_are_explained_under_a_prefix():
    class Settings(BaseModel, extra="forbid"):
        width: int

    with pytest.raises(ValidationError) as caught:
        Settings(width="wide", hight=3)
    lines = explain(caught.value, Settings, "modalities.photo").splitlines()
    assert lines[0].startswith("  modalities.photo.width: Input should be a valid integer")
    assert lines[0].endswith("not 'wide'")
    assert lines[1].startswith("  modalities.photo.hight: unknown key")


def test_the_nearest_word_is_suggested_if_it_is_near():
    assert nearest("lable", ["image", "label"]) == "; did you mean 'label'?"
    assert nearest("xyz", ["image", "label"]) == ""
    assert nearest("", []) == ""


def test_lists_are_words():
    assert listed(["a", "b"]) == "a, b"
    assert listed([]) == "none"


def test_another_kind_of_model_leaves_out_what_only_the_files_kind_has(tmp_path):
    file = tmp_path / "kl.toml"
    file.write_text("""
        data.path = "data"
        model = {kind = "jmvae-kl", latent = 7, alpha = 0.3, subsets = "single"}
    """)
    experiment = Experiment.read(file, ["model.layers=3", "model.kind=hierarchical"])
    settings = model_settings(experiment)
    assert (settings.latent, settings.layers) == (7, 3)
    with pytest.raises(ConfigError, match=r"model\.alpha: unknown key"):
        model_settings(Experiment.read(file, ["model.alpha=1", "model.kind=hierarchical"]))


@pytest.mark.parametrize("wrong", ["alhpa", "laetnt", "layers"])
def test_a_setting_that_neither_kind_has_is_told_though_the_kind_is_another(tmp_path, wrong):
    """A misspelt setting that both have would be lost without a word."""
    file = tmp_path / "kl.toml"
    file.write_text(f'data.path = "data"\nmodel = {{kind = "jmvae-kl", latent = 7, {wrong} = 3}}')
    overrides = ["model.kind=hierarchical" if wrong != "layers" else "model.kind=jmvae"]
    with pytest.raises(ConfigError, match=rf"model\.{wrong}: unknown key"):
        model_settings(Experiment.read(file, overrides))
    # Of a kind that no plugin provides, nobody knows.
    file.write_text(file.read_text().replace("jmvae-kl", "elsewhere"))
    assert model_settings(Experiment.read(file, overrides)).latent == 7


def test_what_an_override_has_replaced_is_no_setting_of_a_file():
    table = {"data": {"path": "x"}, "model": {"kind": "jmvae", "inherited": {"latent": 3}}}
    experiment = Experiment.checked(table, "file")
    with pytest.raises(ConfigError, match=r"model\.inherited: unknown key"):
        build.model_settings(experiment, REGISTRY)
