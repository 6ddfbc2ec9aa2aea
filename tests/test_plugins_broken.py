"""Nine broken plugins at once, installed beside healthy ones: these work, those are explained."""

import json
import re
import sys

import pytest
from test_plugins import HOOK, VERSION, Site, changed, source

from mmgen.scaffold import Scaffold

# name: (module's text, what the one line of its cause must say, the culprit included)
NINE = {
    "import": ("import no_such_library\n", "No module named 'no_such_library'"),
    "misspelt": (
        source("misspelt", HOOK.replace("mmgen_modalities", "mmgen_modalites")),
        "unknown hook 'mmgen_modalites' in plugin",
    ),
    "version": (
        changed("version", VERSION, VERSION.replace("1", "99")),
        "class Tone is written for api_version 99, but this mmgen has 1",
    ),
    "duplicate": (source("audio"), "kind 'audio' is also provided by other (fake-other 1.0)"),
    "raising": (
        source("raising", HOOK.replace("return [{name}]", "raise OSError('disk full')")),
        "OSError: disk full (",
    ),
    "type": (
        source("type", HOOK.replace("[{name}]", "'{name}'")),
        "mmgen_modalities() must return a list of classes, not 'Tone'",
    ),
    "hookless": (source("hookless", ""), "it has no function such as mmgen_modalities() marked"),
    "abstract": (
        changed("abstract", "def decoder(self", "def decode(self"),
        "class Tone is abstract: it lacks decoder",
    ),
    "config": (
        changed("config", "    width: int = 3\n", "    width: int = 3\n    colour = 'red'\n"),
        "A non-annotated attribute was detected: `colour = 'red'`",
    ),
}

EXPERIMENT = """
[data]
source = "synthetic"
rows = 60
classes = 2
[modalities.sound]
kind = "tone"
length = 8
widths = [8]
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


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Ten distributions: the nine, and the one that the duplicate is in conflict with; one more."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("MMGEN_PLUGINS", raising=False)
    before = set(sys.modules)
    site = Site(folder)
    for name, (text, _) in NINE.items():
        site.add(name, text)
    site.add("other", source("audio"))
    site.add("healthy", Scaffold.named("tone").files()["mmgen_tone/__init__.py"])
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("fake_"):
            del sys.modules[name]


def test_each_is_listed_with_its_cause_in_one_line_beside_the_healthy(mmgen, installed):
    code, out, err = mmgen("plugins")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    for name, (_, cause) in NINE.items():
        assert [x for x in lines if re.match(rf"{name} +fake-{name} +1\.0 +broken *$", x)], name
        [line] = [x for x in lines if x.startswith(f"{name}: ")]
        assert cause in line
        assert "Traceback" not in line
    for name, kind in [("healthy", "tone"), ("image", "image"), ("label", "label")]:
        assert [x for x in lines if re.match(rf"{name} .* ok +modalities: {kind} *$", x)], name
    records = {record["name"]: record for record in json.loads(mmgen("plugins", "--json")[1])}
    assert sorted(n for n in records if records[n]["status"] == "broken") == sorted(
        [*NINE, "other"]
    )
    assert all("\n" not in records[name]["cause"] for name in NINE)


def test_what_raises_is_named_with_the_author_s_file_and_line(mmgen, installed):
    lines = mmgen("plugins")[1].splitlines()
    for name in ("import", "raising"):
        [line] = [x for x in lines if x.startswith(f"{name}: ")]
        text = (installed / f"fake_{name}.py").read_text().splitlines()
        number = next(n for n, code in enumerate(text, 1) if "no_such" in code or "raise O" in code)
        assert line.endswith(f"({installed / f'fake_{name}.py'}, line {number})")


def test_a_healthy_one_passes_its_checks_trains_and_generates_all_the_same(
    mmgen, installed, tmp_path
):
    code, out, _ = mmgen("plugins", "check", "tone")
    assert (code, out.count("failed")) == (0, 0)
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    run = tmp_path / "run"
    code, out, err = mmgen("train", tmp_path / "experiment.toml", "--out", run, "--no-figures")
    assert code == 0, err
    code, out, err = mmgen("generate", run, "--given", "label=no", "--out", tmp_path / "a.png")
    assert code == 0, err
    assert "sound: 16 pictures" in out
    environment = json.loads((run / "environment.json").read_text())
    assert environment["plugins"]["tone"] == "healthy (fake-healthy 1.0)"


@pytest.mark.parametrize("kind", ["raising", "audio", "abstract"])
def test_an_experiment_that_needs_a_broken_one_is_told_every_cause(
    mmgen, installed, tmp_path, kind
):
    (tmp_path / "experiment.toml").write_text(EXPERIMENT.replace('"tone"', f'"{kind}"'))
    run = tmp_path / "run"
    code, out, err = mmgen("train", tmp_path / "experiment.toml", "--out", run)
    assert (code, out) == (2, "")
    assert f"modalities.sound.kind: no plugin provides modality kind '{kind}'" in err
    for name, (_, cause) in NINE.items():
        assert f"broken plugin {name} (fake-{name} 1.0): " in err
        assert cause in err
    assert not run.exists()


def test_a_broken_one_that_is_checked_says_why_it_cannot_be(mmgen, installed):
    code, out, err = mmgen("plugins", "check", "abstract")
    assert (code, out) == (2, "")
    assert "broken plugin abstract (fake-abstract 1.0): class Tone is abstract" in err
