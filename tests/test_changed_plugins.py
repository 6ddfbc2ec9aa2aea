"""A run whose plugin is gone, or has changed since it was trained, says so."""

import sys

import pytest

from mmgen import build
from mmgen.errors import ConfigError

TONE = """
from typing import ClassVar
import torch
from torch import nn
from mmgen.hooks import hookimpl
from mmgen.modality import Modality
from mmgen.nets.blocks import Likelihood, gaussian, mlp


class Tone(Modality):
    kind: ClassVar[str] = "tone"
    api_version: ClassVar[int] = 1
    length: int = 4
    width: int = 8

    @property
    def shape(self):
        return (self.length,)

    def encoder(self):
        return mlp(self.length, [self.width])

    def decoder(self, in_features):
        net = mlp(in_features, [self.width], self.length)
        return Likelihood(net, lambda mean: gaussian(mean, 1.0))


@hookimpl
def mmgen_modalities():
    return [Tone]
"""

CONFIG = """
[data]
source = "synthetic"
rows = 40
[modalities.tone]
kind = "tone"
[modalities.label]
kind = "label"
encoder_widths = [8]
decoder_widths = [8]
[model]
kind = "jmvae-kl"
latent = 2
[train]
epochs = 1
"""


class Site:
    """A folder on the path with one distribution, ``mmgen-tone``."""

    def __init__(self, path, monkeypatch):
        self.path = path
        path.mkdir()
        monkeypatch.syspath_prepend(path)

    def install(self, version, text):
        self.remove()
        (self.path / "mmgen_tone.py").write_text(text)
        information = self.path / f"mmgen_tone-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Name: mmgen-tone\nVersion: {version}\n")
        (information / "entry_points.txt").write_text("[mmgen]\ntone = mmgen_tone\n")

    def remove(self):
        sys.modules.pop("mmgen_tone", None)
        for folder in self.path.glob("*.dist-info"):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        for file in self.path.rglob("*.py*"):
            file.unlink()  # a compiled file of the same second would be taken for the new one


@pytest.fixture
def site(tmp_path, monkeypatch):
    made = Site(tmp_path / "site", monkeypatch)
    yield made
    made.remove()


@pytest.fixture
def run(site, mmgen, tmp_path):
    """A run that was trained with version 1."""
    site.install("1.0", TONE)
    (tmp_path / "config.toml").write_text(CONFIG)
    code, _, err = mmgen("train", tmp_path / "config.toml", "--out", tmp_path / "run")
    assert code == 0, err
    return tmp_path / "run"


def uses(run):
    """The commands that need the run's plugins."""
    return [
        ("generate", run, "--given", "label=yes", "--targets", "tone"),
        ("train", run, "train.epochs=2", "--resume"),
    ]


def test_a_plugin_as_it_was_still_works(run, mmgen):
    for words in uses(run):
        code, _, err = mmgen(*words)
        assert code == 0, err


def test_a_plugin_that_is_gone_is_named_with_its_version(run, site, mmgen):
    site.remove()
    for words in uses(run):
        code, _, err = mmgen(*words)
        assert code == 2
        assert "no plugin provides modality kind 'tone'" in err
        assert (
            "kind 'tone' was plugin tone (mmgen-tone 1.0) when it was trained; now no plugin" in err
        )


CHANGES = {
    "a field that is gone": (
        ("    length: int = 4\n", ""),
        "modalities.tone.length: unknown key",
    ),
    "a field that is called otherwise": (("length", "samples"), "modalities.tone.length: unknown"),
    "nets of another size": (("[self.width]", "[self.width + 1]"), "weights do not fit the model"),
    "a value that is no longer allowed": (
        ("    width: int = 8\n", "    width: bool = False\n"),
        "modalities.tone.width",
    ),
    "another version of the contract": (
        ("api_version: ClassVar[int] = 1", "api_version: ClassVar[int] = 99"),
        "api_version 99",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_plugin_that_has_changed_is_named_with_both_versions(run, site, mmgen, change):
    (old, new), message = CHANGES[change]
    text = TONE.replace(old, new)
    if change == "a field that is gone":
        text = text.replace("self.length", "4")
    assert text != TONE
    site.install("2.0", text)
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for words in uses(run):
        code, _, err = mmgen(*words)
        assert code == 2, words
        assert message in err
        assert "kind 'tone' was plugin tone (mmgen-tone 1.0) when it was trained; now " in err
    after = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert before == after


def test_a_new_version_that_fits_is_taken(run, site, mmgen):
    site.install("1.1", TONE + "\n# better words\n")
    for words in uses(run):
        code, _, err = mmgen(*words)
        assert code == 0, err


def test_a_setting_that_is_new_has_its_default_when_training_goes_on(run, site, mmgen):
    site.install("1.1", TONE.replace("    width", "    noise: float = 1.0\n    width"))
    for words in uses(run):  # its default is what there was
        code, _, err = mmgen(*words)
        assert code == 0, err
    code, _, err = mmgen("train", run, "--resume", "train.epochs=9", "modalities.tone.noise=2.0")
    assert code == 2
    assert "modalities.tone.noise" in err
    assert "now tone (mmgen-tone 1.1)" in err


def test_the_plugin_of_the_model_is_named_too_if_it_is_another_now():
    registry = build.registry()
    now = str(registry.model_provider("jmvae"))
    for then, told in ((now, False), ("mine (mmgen-mine 1.0)", True)):
        with (
            pytest.raises(ConfigError) as raised,
            build.note_plugin_changes(registry, {"plugins": {}, "model": then}),
        ):
            raise ConfigError("model.gamma: unknown key")
        assert ("model was of plugin mine (mmgen-mine 1.0)" in str(raised.value)) == told
