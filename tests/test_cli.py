import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, small
from safetensors.torch import load_file

from mmgen.cli.app import spread
from mmgen.run import load
from mmgen.testing import CHECKS

CONFIG = ROOT / "examples" / "glyphs.toml"


def test_values_after_an_option_are_spread():
    words = ["RUN", "--given", "a=1", "b=x,y", "--targets", "c", "d", "-n", "4"]
    expected = ["RUN", "--given", "a=1", "--given", "b=x,y", "--targets", "c", "--targets", "d"]
    assert spread(words) == [*expected, "-n", "4"]
    assert spread(["RUN", "--given", "a=1", "--given", "b=2"]) == [
        "RUN", "--given", "a=1", "--given", "b=2",
    ]  # fmt: skip


@pytest.mark.parametrize("verb", [[], ["data"], ["train"], ["generate"], ["growth"], ["plugins"]])
def test_help_names_the_verb_and_ends_well(mmgen, verb):
    code, out, _ = mmgen(*verb, "--help")
    assert code == 0
    assert " ".join(["mmgen", *verb]) in out


def test_training_writes_a_whole_run(mmgen, small_glyphs, tmp_path):
    run = tmp_path / "run"
    code, out, err = mmgen("train", CONFIG, *small(small_glyphs), "--out", run)
    assert code == 0, err
    assert str(run / "report.html") in out
    assert len(re.findall(r"epoch \d/2 ", err)) == 2
    files = {path.name for path in run.iterdir()}
    expected = {"experiment.json", "config.toml", "environment.json", "metrics.jsonl"}
    expected |= {"quality.json", "familiar.safetensors"}
    assert (
        expected | {"last.safetensors", "best.safetensors", "figures", "report.html", ".lock"}
        == files
    )
    pictures = {path.name for path in (run / "figures").glob("*.png")}
    assert {"image_from_label.png", "image_from_attributes.png", "losses.png"} <= pictures
    assert {"prior.png", "image_reconstructed.png"} <= pictures
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert metrics[1]["validation"]["loss"] < metrics[0]["validation"]["loss"]


UNDRAWABLE = """
from typing import ClassVar
from torch import nn
from mmgen.hooks import hookimpl
from mmgen.modality import Modality
from mmgen.nets.blocks import Likelihood, gaussian


class Ghost(Modality):
    kind: ClassVar[str] = "ghost"
    api_version: ClassVar[int] = 1

    @property
    def shape(self):
        return (2,)

    def encoder(self):
        return nn.Linear(2, 3)

    def decoder(self, in_features):
        return Likelihood(nn.Linear(in_features, 2), lambda mean: gaussian(mean, 1.0))

    def describe(self, x):
        raise KeyError("no words for it")


@hookimpl
def mmgen_modalities():
    return [Ghost]
"""


def test_a_run_that_cannot_be_drawn_is_whole_nevertheless(mmgen, tmp_path):
    (tmp_path / "ghost.py").write_text(UNDRAWABLE)
    (tmp_path / "config.toml").write_text(
        "data.source = 'synthetic'\ndata.rows = 50\nmodel.kind = 'jmvae-kl'\nmodel.latent = 2\n"
        "train.epochs = 1\n[modalities.ghost]\nkind = 'ghost'\n[modalities.label]\nkind = 'label'\n"
    )
    plugin, run = tmp_path / "ghost.py", tmp_path / "run"
    code, _, err = mmgen("-p", plugin, "train", tmp_path / "config.toml", "--out", run)
    assert code == 2
    assert "is trained and whole, but cannot be drawn: KeyError: 'no words for it'" in err
    loaded = load(run, plugin_modules=[str(plugin)])
    assert loaded.generate({"label": "yes"}, ["ghost"], 3)["ghost"].mean.shape == (3, 2)


def test_a_taken_run_folder_is_kept(mmgen, small_glyphs, trained):
    before = (trained / "last.safetensors").read_bytes()
    code, _, err = mmgen("train", CONFIG, *small(small_glyphs), "--out", trained)
    assert code == 2
    assert "--resume" in err
    assert "--force" in err
    assert (trained / "last.safetensors").read_bytes() == before


def test_a_folder_that_is_no_run_is_never_replaced(mmgen, small_glyphs, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    words = ("train", CONFIG, *small(small_glyphs), "--out", tmp_path, "--force")
    code, _, err = mmgen(*words)
    assert code == 2
    assert "no run folder" in err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_resuming_with_other_settings_is_refused(mmgen, trained):
    code, _, err = mmgen("train", trained, "--resume", "model.alpha=0.5")
    assert code == 2
    assert "model.alpha" in err


@pytest.mark.parametrize("start", ["run", "configuration"])
def test_resuming_with_more_epochs_goes_on(mmgen, small_glyphs, tmp_path, start):
    run = tmp_path / "run"
    words = [*small(small_glyphs), "--no-figures", "--out", run]
    assert mmgen("train", CONFIG, *words)[0] == 0
    again = ["train", run, "--no-figures"] if start == "run" else ["train", CONFIG, *words]
    code, _, err = mmgen(*again, "--resume", "train.epochs=3")
    assert code == 0, err
    assert "epoch 3/3" in err
    assert "epoch 2/3" not in err
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train.epochs=1"], "other train.epochs;"),
        (["train.learning_rate=1e-5"], "other train.learning_rate;"),
        (["name=new", "train.epochs=1"], "other name, train.epochs;"),
    ],
)
def test_a_finished_run_takes_no_settings_that_change_nothing(mmgen, trained, words, named):
    before = {file: file.read_bytes() for file in trained.iterdir() if file.is_file()}
    code, out, err = mmgen("train", trained, "--resume", *words)
    assert code == 2
    assert "is trained to epoch 2 already" in err
    assert named in err
    assert "train.epochs above 2" in err
    assert out == ""
    assert {file: file.read_bytes() for file in trained.iterdir() if file.is_file()} == before


def test_a_finished_run_is_told_so_and_drawn_if_it_is_not(mmgen, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    kept = [run / name for name in ("experiment.json", "environment.json", "last.safetensors")]
    before = [file.read_bytes() for file in kept]
    code, out, err = mmgen("train", run, "--resume", "--no-figures", "--device", "cpu")
    assert (code, err) == (0, "")
    assert out == f"{run}: is trained to epoch 2 already, nothing is left to train\n"
    assert not (run / "report.html").exists()

    code, out, err = mmgen("train", run, "--resume")
    assert (code, err) == (0, "")
    assert "nothing is left to train; see" in out.replace("\n", " ")
    drawn = {
        file: file.stat().st_mtime_ns for file in [run / "report.html", *run.glob("figures/*")]
    }
    assert len(drawn) > 3
    assert mmgen("train", run, "--resume")[0] == 0
    assert {file: file.stat().st_mtime_ns for file in drawn} == drawn
    assert [file.read_bytes() for file in kept] == before


@pytest.mark.ci
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_says_how_to_go_on_and_ends_the_same(small_glyphs, tmp_path, number):
    words = [*small(small_glyphs, epochs=8), "train.batch_size=8", "--no-figures"]

    def command(*more: object) -> list[str]:
        return [sys.executable, "-m", "mmgen", *map(str, more)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(
        command("train", CONFIG, *words, "--out", whole),
        check=True, capture_output=True, env=environment,
    )  # fmt: skip
    process = subprocess.Popen(
        command("train", CONFIG, *words, "--out", cut),
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    while not (cut / "last.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"mmgen train {cut} --resume" in err
    subprocess.run(
        command("train", cut, "--resume", "--no-figures"),
        check=True, capture_output=True, env=environment,
    )  # fmt: skip
    a, b = load_file(whole / "last.safetensors"), load_file(cut / "last.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_images_are_generated_from_label_and_attributes(mmgen, trained, tmp_path):
    file = tmp_path / "letters.png"
    words = ("--given", "label=A", "attributes=bold,italic", "--targets", "image", "-n", "4")
    code, out, err = mmgen("generate", trained, *words, "-o", file)
    assert code == 0, err
    assert "4 pictures" in out
    assert file.read_bytes().startswith(b"\x89PNG")


def test_labels_and_attributes_are_generated_from_a_picture_file(mmgen, trained, tmp_path):
    import PIL.Image

    PIL.Image.new("L", (50, 60), 128).save(tmp_path / "digit.png")
    code, out, err = mmgen("generate", trained, "--given", f"image={tmp_path / 'digit.png'}")
    assert code == 0, err
    assert re.search(r"label: \w \(\d+ %\)", out)
    assert "attributes:" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--given", "lable=A"], "did you mean 'label'"),
        (["--given", "label=a"], "no class 'a'"),
        (["--given", "attributes=blod"], "did you mean 'bold'"),
        (["--given", "image=absent.png"], "is no picture"),
        (["--given", "label"], "NAME=VALUE"),
        (["--given", "label=A", "--targets", "label"], "given and asked for"),
        (["--given", "label=A", "--targets", "sound"], "no modality 'sound'"),
        (["--given", "label=A", "-n", "0"], "--samples"),
        (["--given", "label=A", "--targets", "attributes", "-o", "x.png"], "is a picture"),
        (["--given", "label=A", "--start", "one"], "zero or prior"),
        (["--given", "label=A", "--weights", "worst"], "best or last"),
    ],
)
def test_wrong_requests_get_one_message(mmgen, trained, words, message):
    code, out, err = mmgen("generate", trained, *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err
    assert not Path("x.png").exists()


def test_two_pictures_do_not_overwrite_each_other(mmgen, trained, monkeypatch, tmp_path):
    monkeypatch.setattr("mmgen.gallery.renderable", lambda modality: True)
    file = tmp_path / "two.png"
    code, _, err = mmgen("generate", trained, "--given", "label=A", "-o", file)
    assert code == 2
    assert "image, attributes are pictures; name one with --targets" in err
    assert not file.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.laten=3"], "did you mean 'latent'"),
        (["trian.epochs=3"], "did you mean 'train'"),
        (["model.kind=jmvea"], "did you mean 'jmvae'"),
        (["model.latent=0"], "greater than 0"),
        (["modalities.image.knid='image'", "modalities.label.x=1"], "modalities.image.knid"),
        (["modalities.label.kind='labell'", "modalities.image.width=28"], "did you mean 'label'"),
        (["modalities.lable.kind='label'", "modalities.image.width=28"], "did you mean 'label'"),
        (["modalities.image.net=convolution", "modalities.image.convolution_channels=[1,1,1,1,1,1]",
          "modalities.label.encoder_widths=[3]"], "do not fit"),
        (["model.subsets=['image+lable']"], "did you mean 'label'"),
        (["train.device=gpu"], "train.device"),
        (["train.epochs"], "key=value"),
    ],
)  # fmt: skip
def test_wrong_configurations_get_one_message(mmgen, small_glyphs, tmp_path, overrides, message):
    words = ("train", CONFIG, f"data.path='{small_glyphs}'", *overrides, "--out", tmp_path / "run")
    code, out, err = mmgen(*words)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err
    assert not (tmp_path / "run").exists()


def test_one_modality_alone_is_refused(mmgen, small_glyphs, tmp_path):
    config = tmp_path / "one.toml"
    config.write_text(f"data.path = '{small_glyphs}'\nmodel.kind = 'jmvae'\n[modalities.image]\n")
    code, _, err = mmgen("train", config, "--out", tmp_path / "run")
    assert code == 2
    assert "at least two" in err
    assert not (tmp_path / "run").exists()


def test_an_absent_data_set_names_the_command_that_writes_it(mmgen, tmp_path):
    absent = tmp_path / "absent"
    code, _, err = mmgen("train", CONFIG, "--data", absent, "--out", tmp_path / "run")
    assert code == 2
    assert f"mmgen data glyphs --out {absent}" in err


def test_debug_shows_the_traceback(mmgen, tmp_path):
    code, _, err = mmgen("--debug", "train", tmp_path / "absent.toml", "--out", tmp_path / "run")
    assert code == 2
    assert "Traceback" in err


def test_data_sets_are_written_and_shown(mmgen, tmp_path):
    path = tmp_path / "glyphs"
    counts = ("--train", 50, "--validation", 10, "--test", 10)
    assert mmgen("data", "glyphs", "--out", path, *counts)[0] == 0
    code, out, _ = mmgen("data", "show", path, "--verify")
    assert code == 0
    assert re.search(r"^ train +50 *$", out, flags=re.MULTILINE)
    assert re.search(r"^ bold( +\d+){3} +\d+\.\d % *$", out, flags=re.MULTILINE)
    assert mmgen("data", "glyphs", "--out", path, *counts)[0] == 2


def test_plugins_are_listed(mmgen):
    code, out, _ = mmgen("plugins", "--json")
    assert code == 0
    records = {record["name"]: record for record in json.loads(out)}
    assert {"image", "label", "attributes"} <= records.keys()
    assert all(records[name]["status"] == "ok" for name in ("image", "label", "attributes"))


def test_a_plugin_is_checked_and_a_broken_one_fails(mmgen, tmp_path):
    code, out, _ = mmgen("plugins", "check", "label")
    assert code == 0
    assert out.count("ok ") == len(CHECKS)
    broken = tmp_path / "broken_modality.py"
    broken.write_text((ROOT / "plugins/mmgen_label/__init__.py").read_text()
                      .replace('ClassVar[str] = "label"', 'ClassVar[str] = "broken"')
                      .replace("one_hot)", "lambda p: one_hot(p[:, :1]))"))  # fmt: skip
    code, out, _ = mmgen("plugins", "check", broken)
    assert code == 2
    assert "failed shapes" in out


def test_growth_is_counted_and_drawn(mmgen, tmp_path):
    code, out, _ = mmgen("growth", "--modalities", "2-3", "--layers", "1", "--kind", "label",
                         "-o", tmp_path / "growth.png", "--json")  # fmt: skip
    assert code == 0
    rows = json.loads(out[: out.rindex("]") + 1])
    nets = {(row["model"], row["variant"], row["modalities"]): row["nets"] for row in rows}
    assert nets["jmvae-kl", "", 3] == 12
    assert nets["jmvae-kl", "shared", 3] == 3
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert mmgen("growth", "--modalities", "1-3")[0] == 2
    code, _, err = mmgen("growth", "--modalities", "2", "--device", "cpu")
    assert code == 2
    assert "--device cpu: nothing is computed there without --time" in err


def test_growth_measures_steps_if_asked(mmgen):
    words = ["--modalities", "2", "--kind", "label", "--model", "jmvae", "--device", "cpu"]
    code, out, _ = mmgen("growth", *words, "--time", "--json")
    assert code == 0
    (row,) = json.loads(out)
    assert 0 < row["seconds"] < 60
    assert row["memory"] > 12 * row["parameters"]


def test_metrics_are_written_for_tensorboard_if_asked(mmgen, small_glyphs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [*small(small_glyphs), "train.tensorboard=true", "--no-figures"]
    assert mmgen("train", CONFIG, *words, "--out", tmp_path / "run")[0] == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    logged = events.Scalars("kl/prior/validation")
    assert [event.step for event in logged] == [1, 2]
    assert logged[-1].value == pytest.approx(metrics["validation"]["kl/prior"])
