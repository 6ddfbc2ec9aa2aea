"""From data of one's own to a trained run: what train and init make of a path, and say of it."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
import pytest
import torch
import toys
from conftest import ROOT
from safetensors.torch import load_file

from mmgen import build, settings, shell, toml
from mmgen.batch import Batch
from mmgen.data.sources.synthetic import synthetic
from mmgen.data.store import read_dataset, write_dataset
from mmgen.experiment import Experiment
from mmgen.template import default_experiment, model_of, training_of
from mmgen_label import Label
from mmgen_vector import Vector

HOSTILE = ('a "b"', "back\\slash", "[red]", "new\nline", "\u200e右", "日本", "#", "\x7f")
QUICK = [
    "train.epochs=1",
    *(f"modalities.{n}.{s}_widths=[4]" for n in ("word", "size") for s in ("encoder", "decoder")),
]


def dataset(folder, rows=40, name='my "data"\nof \'24', **modalities):
    """Writes a small data set whose words are hostile."""
    made = modalities or {
        "word": Label(classes=HOSTILE[:2] + HOSTILE[4:7]),
        "size": Vector(names=("h",)),
    }
    splits = synthetic(made, {"train": rows, "validation": 10, "test": 10}, classes=5)
    made = {n: m.fit(splits["train"][n]) for n, m in made.items()}
    configurations = {n: m.to_config() for n, m in made.items()}
    write_dataset(folder, name=name, about="", modalities=configurations, splits=splits)
    return folder


@pytest.fixture
def data(tmp_path):
    return dataset(tmp_path / "a 'b' \\ 日")


def resolved(experiment):
    registry = build.registry()
    stored = build.dataset(experiment, registry).modalities
    modalities = build.modalities(experiment, registry, stored)
    return build.resolved(experiment, modalities, build.model_settings(experiment, registry))


def typed(mmgen, text, *more):
    """Types the last command in a text."""
    line = [line for line in text.splitlines() if line.strip().startswith("mmgen ")][-1]
    words = shlex.split(line)
    assert words[0] == "mmgen"
    return mmgen(*words[1:], *more)


def test_a_data_set_is_trained_and_what_it_was_trained_with_trains_the_same(
    mmgen, data, tmp_path, monkeypatch
):
    monkeypatch.chdir(data.parent)
    one, two = tmp_path / "one", tmp_path / "two"
    code, _, err = mmgen("train", data.name, *QUICK, "--out", one, "--no-figures")
    assert code == 0, err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = mmgen("train", one / "config.toml", "--out", two, "--no-figures")
    assert code == 0, err
    assert (one / "experiment.json").read_text() == (two / "experiment.json").read_text()
    weights, again = (load_file(run / "last.safetensors") for run in (one, two))
    assert toys.differing(weights, again) == []
    assert (one / "config.toml").read_text().partition("\n\n")[2] == (
        (two / "config.toml").read_text().partition("\n\n")[2]
    )


def test_init_writes_what_the_data_set_is_trained_with(mmgen, data, tmp_path):
    code, out, err = mmgen("init", data)
    assert (code, err) == (0, "")
    file = tmp_path / "my.toml"
    file.write_text(out, encoding="utf-8")
    assert resolved(Experiment.read(file)) == resolved(default_experiment(data))
    table = tomllib.loads(out)
    assert table["name"] == 'my "data"\nof \'24'
    # As the data set has them, and what a kind recommends.
    assert table["modalities"] == {"word": {"likelihood_weight": 10.0}, "size": {}}
    for section in (toys.REGISTRY.model("jmvae-kl").Settings, settings.TrainConfig):
        for name in section.model_fields:
            assert f"\n{name} = " in out or f"\n# {name} = " in out
    assert all(line.isprintable() for line in out.splitlines())


def test_what_init_writes_as_comments_holds_when_it_is_made_a_line(mmgen, data, tmp_path):
    text = mmgen("init", data)[1]
    head, _, rest = text.partition("[modalities.word]")
    lines = re.sub(r"^# (\w+ = )", r"\1", rest, flags=re.MULTILINE)
    lines = lines.replace("adversarial = ...", 'adversarial = {modality = "word"}')
    lines = lines.replace("subsets_per_step = ...", "subsets_per_step = 1")
    lines = lines.replace("early_stopping = ...", "early_stopping = 9")
    lines = lines.replace(" = ...", " = 9.0")
    file = tmp_path / "my.toml"
    file.write_text(head + "[modalities.word]" + lines)
    table = tomllib.loads(file.read_text())
    assert table["modalities"]["word"]["classes"] == list(HOSTILE[:2] + HOSTILE[4:7])
    words = ["train.gradient_clip=9.0", "train.gradient_clip_value=9.0", "train.warmup_epochs=30.0"]
    words += ['model.adversarial={modality = "word"}', "model.subsets_per_step=1"]
    words += ["train.early_stopping=9"]
    assert resolved(Experiment.read(file)) == resolved(default_experiment(data, words))


def test_init_takes_settings_and_writes_only_who_takes_part(mmgen, tmp_path):
    kinds = {n: Label(classes=("a", "b")) for n in ("one", "two", "three")}
    data = dataset(tmp_path / "data", **kinds)
    words = [
        "model.kind=hierarchical",
        "data.modalities=three,one",
        "modalities.one.classes=['x','y']",
    ]
    code, out, _ = mmgen("init", data, *words, "--out", tmp_path / "my.toml")
    assert code == 0
    assert str(tmp_path / "my.toml") in out
    experiment = Experiment.read(tmp_path / "my.toml")
    assert experiment.participants == ("three", "one")
    assert experiment.modalities["one"] == {"classes": ["x", "y"], "likelihood_weight": 10.0}
    assert resolved(experiment) == resolved(default_experiment(data, words))


def test_init_never_replaces_a_file_unless_told(mmgen, data, tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("years of work")
    code, _, err = mmgen("init", data, "--out", file)
    assert code == 2
    assert "--force" in err
    assert file.read_text() == "years of work"
    assert mmgen("init", data, "--out", file, "--force")[0] == 0
    assert Experiment.read(file).participants == ("word", "size")
    for out in (tmp_path, tmp_path / "absent" / "my.toml"):
        code, _, err = mmgen("init", data, "--out", out, "--force")
        assert (code, err.count("error: ")) == (2, 1)


@pytest.mark.parametrize(
    ("count", "subsets", "alpha"), [(2, "all", 0.5), (3, "all", 0.167), (6, "single", 0.167)]
)
def test_the_subsets_together_weigh_as_one(tmp_path, count, subsets, alpha):
    kinds = {f"m{n}": Label(classes=("a", "b")) for n in range(count)}
    model = default_experiment(dataset(tmp_path / "data", **kinds)).model
    assert (model.kind, model.subsets, model.alpha) == ("jmvae-kl", subsets, alpha)
    if count > 2:  # of those that take part
        few = default_experiment(tmp_path / "data", ['data.modalities=["m0", "m1"]']).model
        assert (few.subsets, few.alpha) == ("all", 0.5)


def test_where_rows_lack_modalities_the_subsets_of_what_they_have_weigh_as_one(tmp_path):
    kinds = {f"m{n}": Label(classes=("a", "b")) for n in range(3)}
    dataset(tmp_path / "whole", **kinds)
    rows = read_dataset(tmp_path / "whole").splits["train"]
    has = {n: torch.ones(rows.count, dtype=torch.bool) for n in kinds}
    has["m0"][1:] = has["m1"][4:] = False  # one row has all, three have two, the others one
    write_dataset(
        tmp_path / "holes",
        name="holes",
        about="",
        modalities={n: kind.to_config() for n, kind in kinds.items()},
        splits={"train": Batch(dict(rows.load()), has)},
    )
    mean = (6 + 3 * 2) / rows.count
    model = default_experiment(tmp_path / "holes").model
    assert (model.alpha, model.prediction) == (round(1 / mean, 3), round(0.3 * 6 / mean, 3))
    assert default_experiment(tmp_path / "whole").model.prediction == 0.3
    assert "alpha" not in model_of({("m0",): 3, ("m1",): 2})  # no row has a KL


def test_another_kind_keeps_what_it_calls_alpha(data):
    experiment = default_experiment(data, ["model.kind=mvtcae"])
    chosen = build.model_settings(experiment, build.registry())
    plain = type(chosen)()
    assert (chosen.alpha, chosen.latent) == (plain.alpha, 32)
    assert default_experiment(data).model.alpha != plain.alpha


def test_the_papers_preset_changes_nothing_of_the_papers_settings(mmgen, data, tmp_path):
    code, out, err = mmgen("init", data, "--preset", "paper")
    assert (code, err) == (0, "")
    file = tmp_path / "paper.toml"
    file.write_text(out, encoding="utf-8")
    experiment = Experiment.read(file)
    plain = toys.REGISTRY.model("jmvae-kl").Settings()
    assert experiment.model.settings == {
        key: value for key, value in plain.model_dump(mode="json").items() if value is not None
    }
    assert experiment.train == settings.TrainConfig()
    assert experiment.modalities == {"word": {}, "size": {}}
    word = resolved(default_experiment(data)).modalities["word"]
    assert (word["likelihood_weight"], word["kind"]) == (10.0, "label")


@pytest.mark.parametrize("verb", ["train", "init"])
def test_a_preset_that_there_is_not_is_told(mmgen, data, verb):
    code, _, err = mmgen(verb, data, "--preset", "papr")
    assert (code, "it is default or paper" in err) == (2, True)


def test_a_preset_is_for_a_data_set_and_for_a_new_run(mmgen, data, tmp_path):
    file = tmp_path / "my.toml"
    assert mmgen("init", data, "--out", file)[0] == 0
    code, _, err = mmgen("train", file, "--preset", "paper", "--out", tmp_path / "run")
    assert (code, "says its settings itself" in err) == (2, True)
    out = ("--out", tmp_path / "run")
    code, _, err = mmgen("train", data, "--preset", "paper", "--resume", *out)
    assert (code, "--resume goes on with one" in err) == (2, True)


def test_who_asks_for_products_has_their_family(mmgen, data):
    assert mmgen("train", data, "model.subset_encoder=product", "--dry-run")[0] == 0
    words = ["model.subset_encoder = 'product'"]
    assert default_experiment(data, words).model.settings["subset_encoder"] == "product"
    assert "subset_posterior" not in default_experiment(data, words).model.settings


@pytest.mark.parametrize(("rows", "epochs"), [(40, 300), (6_000, 250), (100_000, 30)])
def test_small_data_sets_are_seen_more_often(rows, epochs):
    assert training_of(rows) == {"epochs": epochs, "schedule": "cosine", "precision": "auto"}


def pictures(folder):
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            PIL.Image.new("L", (4, 4), 40 * number).save(folder / name / f"{number}.png")
    return folder


def table(folder):
    folder.mkdir()
    rows = [f"{'red' if i % 2 else 'blue'},{i % 3 / 7 + i:.2f}" for i in range(30)]
    (folder / "-my 'table'.csv").write_text("colour,size\n" + "\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("verb", ["train", "init"])
@pytest.mark.parametrize("make", [pictures, table])
def test_raw_material_gets_the_commands_that_make_a_run_of_it(
    mmgen, tmp_path, monkeypatch, make, verb
):
    monkeypatch.chdir(tmp_path)
    make(Path("my 'raw' data"))
    (tmp_path / "data" / "my 'raw' data").mkdir(parents=True)  # the first name is taken
    code, out, err = mmgen(verb, "my 'raw' data", *([] if verb == "init" else ["--out", "x"]))
    assert (code, out) == (2, "")
    first, second = (line for line in err.splitlines() if line.startswith("  mmgen "))
    code, _, err = typed(mmgen, first)
    assert code == 0, err
    code, _, err = typed(mmgen, second, "train.epochs=1", "--no-figures")
    assert code == 0, err
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize("page", ["README.md", "docs/your-data.md"])
def test_the_two_commands_of_the_docs_train(mmgen, tmp_path, monkeypatch, page):
    text = (ROOT / page).read_text()
    commands = re.findall(
        r"^mmgen (data table photos|train data/photos)([^#\n]*)", text, re.MULTILINE
    )
    assert [first for first, _ in commands] == ["data table photos", "train data/photos"]
    monkeypatch.chdir(pictures(tmp_path / "here"))
    rows = [f"{name}/{i}.png,{name},{i % 2}" for name in ("cat", "dog") for i in range(6)] * 3
    Path("photos.csv").write_text("photo,animal,asleep\n" + "\n".join(rows) + "\n")
    for first, rest in commands:
        more = ["train.epochs=1", "--no-figures"] if first.startswith("train") else []
        code, _, err = mmgen(*shlex.split(first + rest), *more)
        assert code == 0, err
    assert Path("runs/photos/config.toml").exists()


def test_a_table_gets_them_too(mmgen, tmp_path, monkeypatch):
    monkeypatch.chdir(table(tmp_path / "here"))
    for words in (["train", "./-my 'table'.csv", "--out", "run"], ["init", "./-my 'table'.csv"]):
        code, _, err = mmgen(*words)
        assert code == 2
        first, second = (line for line in err.splitlines() if line.startswith("  mmgen "))
        assert shlex.split(first)[3:] == ["./-my 'table'.csv", "--out", "data/-my 'table'"]
        assert shlex.split(second)[2] == "data/-my 'table'"
    assert typed(mmgen, first)[0] == 0


def test_folders_that_are_no_data_set_get_one_message(mmgen, tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat").mkdir()
    PIL.Image.new("L", (4, 4)).save(tmp_path / "flat" / "a.png")
    (tmp_path / "empty").mkdir()
    for folder, words in {
        "flat": "at least two modalities",
        "empty": "no data set and no run",
        ".": f"holds the data sets {data.name}",
        data.name + "/dataset.json": "named by its folder",
        "absent": "no such",
    }.items():
        code, out, err = mmgen("train", folder, "--out", "run")
        assert (code, out, err.count("error: ")) == (2, "", 1)
        assert words in err
    assert not (tmp_path / "run").exists()


def test_a_run_s_folder_gets_the_commands_that_go_on_or_train_anew(mmgen, data, tmp_path):
    run = tmp_path / "-a run"
    assert mmgen("train", data, *QUICK, "--out", run, "--no-figures")[0] == 0
    code, _, err = mmgen("train", run)
    assert code == 2
    first, second = (line for line in err.splitlines() if line.startswith("  mmgen "))
    assert typed(mmgen, first, "train.epochs=2", "--no-figures")[0] == 0
    words = shlex.split(second)
    assert words[:3] == ["mmgen", "train", str(run / "config.toml")]
    assert mmgen(*words[1:-1], tmp_path / "other", "--no-figures")[0] == 0
    # What it was trained with says that it went on for longer.
    assert Experiment.read(run / "config.toml").train.epochs == 2
    code, _, err = mmgen("init", run)
    assert (code, "config.toml" in err) == (2, True)


def test_a_configuration_that_was_edited_in_the_run_stays(mmgen, data, tmp_path):
    run = tmp_path / "run"
    assert mmgen("train", data, *QUICK, "--out", run, "--no-figures")[0] == 0
    edited = (run / "config.toml").read_text().replace("seed = 0", "seed = 5")
    (run / "config.toml").write_text(edited)
    assert mmgen("train", run, "--resume", "train.epochs=2", "--no-figures")[0] == 0
    assert (run / "config.toml").read_text() == edited


def test_a_folder_that_is_both_is_trained_on_when_it_is_said_so(mmgen, data, tmp_path):
    (data / "experiment.json").write_text("{}")
    code, _, err = mmgen("train", data, "--out", tmp_path / "run")
    assert code == 2
    assert err.count("  mmgen ") == 3
    assert shlex.split(err.splitlines()[-1])[:2] == ["mmgen", "init"]
    assert mmgen("init", data)[0] == 0


def test_without_out_the_message_says_where_a_run_could_go(mmgen, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = mmgen("train", data, *QUICK)
    assert code == 2
    assert typed(mmgen, err, "--no-figures")[0] == 0


@pytest.mark.parametrize("option", ["--data", "data.path"])
def test_a_path_with_quotes_is_a_path(mmgen, data, tmp_path, option):
    config = tmp_path / "c.toml"
    config.write_text('data.path = "absent"\nmodel.kind = "jmvae"\n')
    words = ["--data", data] if option == "--data" else [f"data.path={data}"]
    assert mmgen("train", config, *words, "--dry-run")[0] == 0


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A folder with a plugin and a configuration that needs it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-my plugin.py").write_text(Path(toys.PLUGIN).read_text())
    config = tmp_path / "toys.toml"
    config.write_text(
        'data = {source = "synthetic", rows = 40}\nmodel = {kind = "jmvae", latent = 2}\n'
        "train = {epochs = 2, batch_size = 10}\n"
        'modalities = {w = {kind = "word"}, n = {kind = "numbers"}}\n'
    )
    return "./-my plugin.py"


def stopped(monkeypatch):
    """Lets training be interrupted from the start, until it is undone."""

    @contextmanager
    def interrupted():
        yield [2]

    patch = pytest.MonkeyPatch()
    patch.setattr("mmgen.cli.train._interruptible", interrupted)
    return patch


def test_a_stopped_run_goes_on_by_the_command_that_is_printed(mmgen, plugin, monkeypatch):
    patch = stopped(monkeypatch)
    code, _, err = mmgen("-p", plugin, "train", "toys.toml", "--out", "./-a 'run'", "--no-figures")
    patch.undo()
    assert code == 130
    code, _, err = typed(mmgen, err, "--no-figures")
    assert code == 0, err
    assert "epoch 2/2" in err


def test_a_taken_folder_gives_the_command_that_goes_on(mmgen, plugin):
    words = ("-p", plugin, "train", "toys.toml", "--out", "a run", "--no-figures")
    assert mmgen(*words)[0] == 0
    code, _, err = mmgen(*words, "--device", "cpu")
    assert code == 2
    assert "--device cpu" in err
    code, _, err = typed(mmgen, err, "train.epochs=3", "--no-figures")
    assert code == 0, err
    assert "epoch 3/3" in err


def test_a_full_disk_gives_the_command_that_goes_on(mmgen, plugin, monkeypatch):
    from mmgen.errors import WriteError
    from mmgen.training import run_folder

    def full(*_):
        raise WriteError("no space left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "save_checkpoint", full)
        code, _, err = mmgen("-p", plugin, "train", "toys.toml", "--out", "a run", "--no-figures")
    assert code == 2
    code, _, err = typed(mmgen, err, "--no-figures")
    assert code == 0, err


def test_numbers_that_are_not_finite_give_the_command_that_goes_on(mmgen, plugin):
    words = ("-p", plugin, "train", "toys.toml", "--out", "a run", "--no-figures")
    code, _, err = mmgen(*words, "train.learning_rate=1e30")
    assert code == 2
    code, _, err = typed(mmgen, err, "train.learning_rate=1e-3", "--no-figures")
    assert code == 0, err


def test_commands_are_quoted():
    words = shell.command("train", Path("-x y"), "--out", Path("a'b"), plugins=["-p.py", "mod"])
    assert shlex.split(words) == [
        "mmgen", "-p", "./-p.py", "-p", "mod", "train", "./-x y", "--out", "a'b",
    ]  # fmt: skip
    assert shell.resume(Path("r"), "a=1", device="cpu").split()[1:] == [
        "train", "r", "--resume", "--device", "cpu", "a=1",
    ]  # fmt: skip


@pytest.mark.parametrize("word", [*HOSTILE, "\u2028", "\U000e0001", "", "]", "\x00\x1f", "'''"])
def test_words_come_back_from_toml(word):
    written = f"{toml.key(word)} = {toml.value([word, {word: 1.5}])}"
    assert written.isprintable()
    assert tomllib.loads(written) == {word: [word, {word: 1.5}]}
    assert tomllib.loads(toml.comment(word)) == {}


FIRST = """
import sys
import mmgen.cli.app, mmgen.cli.train, mmgen.cli.growth, mmgen.cli.init
def said(words):
    assert not {"torch", "matplotlib", "PIL"} & {*sys.modules}, "too late"
    print(words)
    sys.exit(7)
module = getattr(mmgen.cli, sys.argv[1])
module.status = said
mmgen.cli.app.main()
"""


@pytest.mark.parametrize("words", [["train", "data/x"], ["init", "data/x"], ["growth"]])
def test_what_is_done_is_said_before_anything_heavy_is_imported(words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", FIRST, *words],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.strip().endswith("...")


def test_an_environment_notes_no_more_than_before(mmgen, data, tmp_path):
    run = tmp_path / "run"
    assert mmgen("train", data, *QUICK, "--out", run, "--no-figures")[0] == 0
    table = json.loads((run / "experiment.json").read_text())
    assert table["data"] == {"path": str(data), "source": None, "modalities": None}
    assert list(table["modalities"]) == ["word", "size"]
