"""Every shipped configuration and script runs, in a small version."""

import importlib.util
import sys
from pathlib import Path

import pytest
from conftest import ROOT, small

from mmgen.data.sources.synthetic import synthetic
from mmgen.data.store import write_dataset
from mmgen.experiment import Experiment
from mmgen.registry.loading import load

PRESETS = sorted((ROOT / "examples").glob("*.toml"))
SCRIPTS = sorted(
    [
        *(ROOT / "examples").glob("*.py"),
        *(ROOT / "benchmarks" / f for f in ("experts.py", "memory.py")),
    ]
)


def data_for(preset: Path, folder: Path) -> Path:
    """Writes synthetic values of the preset's modalities, as many as nets need to move."""
    experiment = Experiment.read(preset)
    kinds = {"image": {}, "label": {"classes": list("0123456789")},
             "attributes": {"names": ["thick", "wide"]}}  # fmt: skip
    settings = {
        name: {"kind": name, **kinds[name], **experiment.modalities.get(name, {})}
        for name in experiment.modalities or kinds
    }
    registry = load()
    modalities = {name: registry.create(name, given) for name, given in settings.items()}
    splits = synthetic(modalities, {"train": 200, "validation": 50, "test": 50})
    configurations = {name: m.to_config() for name, m in modalities.items()}
    write_dataset(folder, name="synthetic", about="test", modalities=configurations, splits=splits)
    return folder


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_trains_and_draws(mmgen, preset, tmp_path):
    words = small(data_for(preset, tmp_path / "data"))
    code, _, err = mmgen("train", preset, *words, "--out", tmp_path / "run")
    assert code == 0, err
    assert (tmp_path / "run" / "figures" / "losses.png").exists()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_names_a_data_command_that_exists(mmgen, preset):
    source = Experiment.read(preset).data.source
    assert source is not None
    assert mmgen("data", source.split()[0], "--help")[0] == 0


def test_recognition_is_measured(trained, small_glyphs, tmp_path, monkeypatch, capsys):
    script = module(ROOT / "examples" / "recognise.py")
    words = [str(small_glyphs), str(trained), "--classifier-epochs", "1"]
    words += ["--figure", str(tmp_path / "compared.png")]
    monkeypatch.setattr(sys, "argv", ["recognise.py", *words])
    script.main()
    out = capsys.readouterr().out
    assert "base rate" in out
    assert out.count("small") == 2
    assert (tmp_path / "compared.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_explains_itself(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit) as stop:
        module(script).main()
    assert stop.value.code == 0
    assert "usage" in capsys.readouterr().out


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
