"""``mmgen plugins new``: the package works at once; a name that is taken or wrong is refused."""

import math
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from environments import Environment

from mmgen import distribution
from mmgen.errors import PluginError, WriteError
from mmgen.experiment import Experiment
from mmgen.registry.loading import load
from mmgen.scaffold import FILES, Scaffold, write_package
from mmgen.testing import CHECKS, MODEL_CHECKS, Setup, run_checks
from mmgen.testing.model import toys


def kind_of(text: str, kind: str, folder: Path):
    """Returns the class of a plugin's source."""
    file = folder / f"{kind}.py"
    file.write_text(text)
    return load([str(file)], environ={"MMGEN_PLUGINS": ""}).get(kind)


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """The class of a package as it is written."""
    folder = tmp_path_factory.mktemp("audio")
    return kind_of(
        Scaffold.named("mmgen-audio").files()["mmgen_audio/__init__.py"], "audio", folder
    )


@pytest.mark.ci
def test_a_new_package_is_installed_found_checked_trained_and_generates(mmgen, tmp_path):
    """In an environment of its own, as the fourth modality beside image, label and attributes."""
    words = ("plugins", "new", "mmgen-audio", "--out", tmp_path / "mmgen-audio")
    assert mmgen(*words)[::2] == (0, "")
    other = Environment(tmp_path / "environment")
    offline = ("--no-index", "--no-build-isolation", "--no-deps")
    other.run("-m", "pip", "install", *offline, "./mmgen-audio", cwd=tmp_path)
    # What is used is the installed package, not the folder that it came from.
    (tmp_path / "mmgen-audio" / "mmgen_audio").rename(tmp_path / "moved")
    tested = other.run("-m", "pytest", "mmgen-audio", cwd=tmp_path)
    assert f"{2 * len(CHECKS)} passed" in summed(tested)

    small = "train.epochs=1 data.rows=200 model.latent=4 modalities.image.kind=image"
    small += " modalities.image.height=8 modalities.image.width=8"
    wave = ",".join(f"{math.sin(6 * math.pi * t / 64):.3f}" for t in range(64))
    listing, checks, trained, drawn, told = other.mmgen(
        "plugins",
        "plugins check audio",
        f"train mmgen-audio/example.toml {small} --out run --no-figures",
        "generate run --given label=three --targets audio -n 4 -o three.png",
        f"generate run --given audio={wave} --targets label attributes",
        cwd=tmp_path,
    )
    assert re.search(
        r"^audio +mmgen-audio +0\.1\.0 +ok +modalities: audio", listing, flags=re.MULTILINE
    )
    assert (checks.count("  ok "), checks.count("failed")) == (len(CHECKS), 0)
    assert "jmvae-kl, any of audio, label, attributes, image from any; 32 encoder nets" in trained
    assert "audio: 4 pictures in three.png" in drawn
    assert (tmp_path / "three.png").read_bytes().startswith(b"\x89PNG")
    assert "label: " in told
    assert "attributes: " in told
    # This environment is as it was.
    assert "audio" not in load(environ={}).kinds


@pytest.mark.ci
def test_a_new_model_is_installed_found_checked_trained_and_generates(mmgen, tmp_path):
    words = ("plugins", "new", "--model", "mmgen-mine", "--out", tmp_path / "mmgen-mine")
    assert mmgen(*words)[::2] == (0, "")
    other = Environment(tmp_path / "environment")
    offline = ("--no-index", "--no-build-isolation", "--no-deps")
    other.run("-m", "pip", "install", *offline, "./mmgen-mine", cwd=tmp_path)
    (tmp_path / "mmgen-mine" / "mmgen_mine").rename(tmp_path / "moved")
    tested = other.run("-m", "pytest", "mmgen-mine", cwd=tmp_path)
    assert f"{2 * len(MODEL_CHECKS)} passed" in summed(tested)

    small = "train.epochs=1 data.rows=200 modalities.image.height=8 modalities.image.width=8"
    listing, checks, trained, drawn, told, grown = other.mmgen(
        "plugins",
        "plugins check mine",
        f"train mmgen-mine/example.toml {small} --out run --no-figures",
        "generate run --given label=three --targets image -n 4 -o three.png",
        "generate run --given attributes=even --targets label",
        "growth --modalities 2-3 --layers 1",
        cwd=tmp_path,
    )
    assert re.search(r"^mine +mmgen-mine +0\.1\.0 +ok +models: mine", listing, flags=re.MULTILINE)
    assert (checks.count("  ok "), checks.count("failed")) == (len(MODEL_CHECKS), 0)
    assert "mine, any of image, label, attributes from any; 3 encoder nets" in trained
    assert "image: 4 pictures in three.png" in drawn
    assert "label: " in told
    assert "mine" in grown


def summed(out: str) -> str:
    """Returns pytest's last line, with those skipped counted as passed."""
    passed, skipped = (re.search(rf"(\d+) {word}", out) for word in ("passed", "skipped"))
    return f"{int(passed[1]) + int(skipped[1] if skipped else 0)} passed" if passed else out


def test_the_commands_to_type_next_are_printed(mmgen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = mmgen("plugins", "new", "Heart_Rate")
    assert code == 0
    assert out.splitlines()[1:] == [
        "  pip install --editable Heart_Rate",
        "  mmgen plugins check heart-rate",
        "  python -m pytest Heart_Rate",
        "  mmgen train Heart_Rate/example.toml --out runs/heart-rate",
        "  mmgen generate runs/heart-rate --given label=three --targets heart-rate -o three.png",
    ]
    assert out.startswith("Heart_Rate: a package with the modality heart-rate, all of it in ")
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {
        "Heart_Rate/README.md",
        "Heart_Rate/example.toml",
        "Heart_Rate/mmgen_heart_rate/__init__.py",
        "Heart_Rate/pyproject.toml",
        "Heart_Rate/tests/test_heart_rate.py",
    }


@pytest.mark.parametrize(
    ("name", "kind", "cls"),
    [
        ("mmgen-audio", "audio", "Audio"),
        ("MMGEN_Audio", "audio", "Audio"),
        ("Heart_Rate.v2", "heart-rate-v2", "HeartRateV2"),
        ("mmgen-mmgen-x", "mmgen-x", "MmgenX"),
        ("x1", "x1", "X1"),
        # What the code itself needs is not called twice the same:
        ("mmgen-tensor", "tensor", "TensorModality"),
        ("mmgen-modality", "modality", "ModalityModality"),
        ("mmgen-value-error", "value-error", "ValueErrorModality"),
        ("mmgen-none", "none", "NoneModality"),
    ],
)
def test_any_legal_name_gives_a_kind_that_keeps_the_contract(name, kind, cls, tmp_path):
    package = Scaffold.named(name)
    assert (package.kind, package.class_name) == (kind, cls)
    files = package.files()
    code = files[f"{package.module}/__init__.py"]
    assert "$" not in "".join(files.values())
    assert len(code.splitlines()) <= 80
    made = kind_of(code, kind, tmp_path)
    assert made.__name__ == cls
    assert [result.name for result in run_checks(made()) if not result.passed] == []
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["name"] == name
    assert project["project"]["entry-points"]["mmgen"] == {kind: package.module}
    assert project["project"]["dependencies"] == [distribution.NAME]
    (tmp_path / "example.toml").write_text(files["example.toml"])
    experiment = Experiment.read(tmp_path / "example.toml")
    assert list(experiment.modalities) == [kind, "label", "attributes"]


@pytest.mark.parametrize(
    ("name", "kind", "cls"),
    [
        ("mmgen-mine", "mine", "Mine"),
        ("Info_VAE.v2", "info-vae-v2", "InfoVaeV2"),
        ("mmgen-model", "model", "ModelModel"),
        ("mmgen-objective", "objective", "ObjectiveModel"),
    ],
)
def test_any_legal_name_gives_a_model_that_can_be_used(name, kind, cls, tmp_path):
    package = Scaffold.named(name, "model")
    assert (package.kind, package.class_name) == (kind, cls)
    files = package.files()
    code = files[f"{package.module}/__init__.py"]
    assert "$" not in "".join(files.values())
    assert len(code.splitlines()) <= 80
    (tmp_path / "made.py").write_text(code)
    made = load([str(tmp_path / "made.py")], environ={"MMGEN_PLUGINS": ""}).model(kind)
    assert made.__name__ == cls
    assert Setup(made).build(toys.mixed(3)).names == tuple(toys.mixed(3))
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["description"] == f"The model kind {kind} for mmgen."
    assert project["project"]["entry-points"]["mmgen"] == {kind: package.module}
    (tmp_path / "example.toml").write_text(files["example.toml"])
    assert Experiment.read(tmp_path / "example.toml").model.kind == kind


@pytest.mark.ci
def test_the_model_of_the_template_keeps_the_contract(tmp_path):
    code = Scaffold.named("mine", "model").files()["mmgen_mine/__init__.py"]
    (tmp_path / "made.py").write_text(code)
    cls = load([str(tmp_path / "made.py")], environ={"MMGEN_PLUGINS": ""}).model("mine")
    assert [result for result in run_checks(cls) if not result.passed] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is no name for a package"),
        ("-audio", "is no name for a package"),
        ("mmgen-", "is no name for a package"),
        ("my audio", "is no name for a package"),
        ("../audio", "is no name for a package"),
        ("tön", "is no name for a package"),
        ("\N{KELVIN SIGN}elvin", "is no name for a package"),
        ("audio\n", "is no name for a package"),
        ("mmgen-3d", "would provide the kind '3d', but a kind starts with a letter"),
        ("7", "a kind starts with a letter"),
    ],
)
def test_an_illegal_name_is_refused_before_anything_is_written(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=words):
        Scaffold.named(name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_taken_is_refused_with_its_owner(mmgen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tone.py").write_text(Scaffold.named("tone").files()["mmgen_tone/__init__.py"])
    monkeypatch.setenv("MMGEN_PLUGINS", "label")
    for words, cause in [
        (
            ("plugins", "new", "mmgen-image"),
            "kind 'image' exists already, from plugin image (mmgen",
        ),
        (("-p", "tone.py", "plugins", "new", "tone"), "kind 'tone' exists already, from plugin to"),
        (("plugins", "new", "--model", "jmvae"), "kind 'jmvae' exists already, from plugin mod"),
        (("plugins", "new", "--model", "mmgen-image"), "a plugin image (mmgen"),
        (("plugins", "new", "torch"), "a package torch 2"),
        (("plugins", "new", "mmgen"), "'mmgen' is taken: mmgen-vae is mmgen itself"),
        (("plugins", "new", "MMGen_VAE"), "'MMGen_VAE' is taken: mmgen-vae is mmgen itself"),
        (("plugins", "new", "no/such"), "no name for a package"),
    ]:
        code, out, err = mmgen(*words)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert cause in err
    assert [p.name for p in tmp_path.iterdir()] == ["tone.py"]


def test_a_broken_plugin_of_that_name_is_named_with_its_cause(tmp_path, monkeypatch):
    info = tmp_path / "tone-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tone\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mmgen]\nmelody = no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        PluginError, match=r"melody \(tone 1.0\) is installed already, and is broken"
    ):
        write_package(Scaffold.named("mmgen-melody"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_what_is_there_is_never_touched(mmgen, tmp_path, there):
    out = tmp_path / "mmgen-audio"
    if there == "folder":
        out.mkdir()
    elif there == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    code, _, err = mmgen("plugins", "new", "mmgen-audio", "--out", out)
    assert code == 2
    assert f"{out} exists; choose another folder with --out" in err
    assert [p.name for p in tmp_path.iterdir()] == ["mmgen-audio"]
    assert there != "file" or out.read_text() == "mine"


def test_a_package_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    written = []
    write_text = Path.write_text

    def full(path, *words, **options):
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return write_text(path, *words, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(WriteError, match="cannot be written: No space left on device"):
        write_package(Scaffold.named("mmgen-audio"), tmp_path / "audio")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "audio", tmp_path / ("long" * 99)):
        with pytest.raises(WriteError, match="cannot be written"):
            write_package(Scaffold.named("mmgen-audio"), out)


def test_the_templates_and_all_of_the_plugins_ship_in_the_wheel(tmp_path):
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        assert f"\nName: {distribution.NAME}\n" in archive.read(metadata).decode()
        points = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    for line in (
        "[console_scripts]",
        "mmgen = mmgen.__main__:main",
        "[mmgen]",
        "image = mmgen_image",
    ):
        assert line in points.splitlines()
    for template in FILES.values():
        for noun in ("modality", "model"):
            file = template.replace("$noun", noun)
            assert f"mmgen/scaffold/templates/{file}.template" in names
    plugins = {p.relative_to(ROOT / "plugins").as_posix() for p in ROOT.glob("plugins/*/*.py")}
    assert "mmgen_vector/units.py" in plugins
    assert plugins <= {*names}


def test_examples_of_the_new_kind_swing_as_often_as_their_class_says(audio):
    modality = audio()
    x = modality.example(torch.tensor([0, 1, 2, 7, 32]), torch.Generator().manual_seed(0))
    assert (x.dtype, x.shape) == (torch.float32, (5, 64))
    told = [text.split(",")[0] for text in modality.describe(x)]
    assert told == ["1 wave", "2 waves", "3 waves", "8 waves", "1 wave"]
    assert 0.4 < x.abs().amax(1).min() < x.abs().amax(1).max() < 1.1


def test_signals_of_the_new_kind_are_read_from_numbers_and_from_files(audio, tmp_path):
    modality = audio(length=3)
    file = tmp_path / "signal.txt"
    file.write_text("0.5\n-1\n0\n")
    for cell in ("0.5 -1 0", "0.5, -1, 0", str(file)):
        assert modality.parse(cell).tolist() == [0.5, -1, 0]
    for cell, words in [
        ("1 2", "2 numbers, but a signal is 3"),
        ("1 2 nan", "3 finite ones"),
        ("1 2 loud", "could not convert string to float: 'loud'"),
        ("gone.txt", "No such file"),
        ("1 2 3 " * 999, "2997 numbers"),
    ]:
        with pytest.raises(ValueError, match=words):
            modality.parse(cell)


def test_signals_of_the_new_kind_are_drawn_as_one_stroke(audio):
    modality = audio(length=4)
    picture = modality.render(torch.tensor([[0.0, 0.0, 1.0, 5.0]]))
    assert picture.shape == (1, 3, 64, 4)
    ink = (picture[0, 0] == 0).sum(0).tolist()
    assert ink[0] == ink[1] == 2  # a line in the middle
    assert ink[2] > 25  # up to the top
    assert ink[3] in range(1, 6)  # what leaves the picture is cut off
    assert (picture[0, 0, 31:33, 0] == 0).all()
