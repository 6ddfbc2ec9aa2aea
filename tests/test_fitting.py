"""mmgen.train: settings and rows in memory, or a data set, become a run."""

import gc
import math

import pytest
import torch
from conftest import ROOT, small

import mmgen
from mmgen import fitting
from mmgen.errors import ConfigError, DataError, RunError
from mmgen.run import Run
from mmgen.template import default_experiment

NETS = {"encoder_widths": [16], "decoder_widths": [16]}
KINDS = {
    "side": {"kind": "label", "classes": ["left", "right"], **NETS},
    "size": {"kind": "vector", "names": ["height", "weight"], **NETS},
}
SMALL = {"modalities": KINDS, "model": {"latent": 2}, "train": {"epochs": 2, "batch_size": 50}}


def rows(count=300):
    g = torch.Generator().manual_seed(0)
    side = torch.randint(2, (count,), generator=g)
    height = 1.5 + 0.4 * side + 0.05 * torch.randn(count, generator=g)
    weight = 60 + 20 * side + 3 * torch.randn(count, generator=g)
    return {"side": side, "size": torch.stack([height, weight], 1)}


class Pairs(torch.utils.data.Dataset):
    def __init__(self, columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns["side"])

    def __getitem__(self, row):
        return {name: values[row] for name, values in self.columns.items()}


@pytest.fixture(scope="module")
def run():
    told = []
    settings = {**SMALL, "train": {"epochs": 20, "batch_size": 30, "learning_rate": 1e-2}}
    run = mmgen.train(settings, rows(), each=told.append)
    assert [each.epoch for each in told] == [*range(1, 21)]
    assert all("loss" in each.validation for each in told)
    return run


def test_tensors_become_a_run_that_has_learned(run):
    assert isinstance(run, Run)
    told = run.predict({"side": ["left", "right", None]}, "size")["size"]
    heights = told.columns["height"].values
    assert heights[0] == pytest.approx(1.5, abs=0.1)
    assert heights[1] == pytest.approx(1.9, abs=0.1)
    assert told.columns["weight"].deviation[2] > told.columns["weight"].deviation[0]
    side = run.predict({"height": [1.5, 1.9], "weight": [60.0, 80.0]}, "side")["side"]
    assert side.values == ["left", "right"]
    assert min(side.confidence) > 0.9


def test_a_vector_of_which_a_part_is_missing_is_missing(run):
    q = run.encode({"height": [1.5, 1.9], "weight": [60.0, math.nan], "side": ["left", "right"]})
    alone = run.encode({"side": ["right"]})
    torch.testing.assert_close(q.mean[1], alone.mean[0])


def test_a_frame_is_read_by_its_columns(run):
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    cells = {"height": [1.5, None], "weight": [60.0, 80.0], "side": ["left", None]}
    expected = run.encode(cells).mean
    torch.testing.assert_close(run.encode(pandas.DataFrame(cells)).mean, expected)
    torch.testing.assert_close(run.encode(polars.DataFrame(cells)).mean, expected)


def test_a_torch_dataset_and_raw_cells_are_the_same_rows(tmp_path):
    columns = rows(60)
    cells = {"side": [KINDS["side"]["classes"][i] for i in columns["side"]]}
    cells["size"] = [f"{a},{b}" for a, b in columns["size"].tolist()]
    runs = [mmgen.train(SMALL, each) for each in (columns, Pairs(columns), cells)]
    a, b, c = (r.predict({"side": ["left"]}, "size")["size"].mean for r in runs)
    assert torch.equal(a, b)
    torch.testing.assert_close(a, c, atol=1e-4, rtol=1e-3)


def test_a_run_stays_where_it_is_put_and_a_temporary_one_goes(tmp_path):
    data = {"train": rows(40), "validation": rows(20)}
    run = mmgen.train(SMALL, data, out=tmp_path / "run")
    assert mmgen.load(tmp_path / "run").experiment == run.experiment
    assert run.experiment.data.path == tmp_path / "run-data"
    assert (tmp_path / "run-data" / "dataset.json").exists()
    with pytest.raises(RunError, match="holds a run already"):
        mmgen.train(SMALL, data, out=tmp_path / "run")
    mmgen.train(SMALL, data, out=tmp_path / "run", force=True)
    other = mmgen.train(SMALL, data)
    folder = other.path
    assert folder.exists()
    del other
    gc.collect()
    assert not folder.exists()
    assert not folder.parent.exists()


def test_a_data_set_and_a_file_of_settings(small_glyphs, tmp_path):
    settings = {"model": {"latent": 3}, "train": {"epochs": 1}}
    nets = {"encoder_widths": [8], "decoder_widths": [8]}
    settings["modalities"] = {"image": nets, "label": nets}
    run = mmgen.train(settings, small_glyphs)
    assert run.experiment.model.kind == "jmvae-kl"
    assert run.experiment.model.settings["alpha"] == 0.5  # of two that take part
    file = tmp_path / "mine.toml"
    text = (ROOT / "examples" / "glyphs.toml").read_text()
    file.write_text(text.replace("epochs = ", "epochs = 1 # "))
    assert small  # the presets' own nets are larger
    assert mmgen.train(file, small_glyphs).experiment.train.epochs == 1


@pytest.mark.parametrize(
    ("config", "data", "error", "words"),
    [
        ({}, rows(9), ConfigError, "need to know what they are"),
        ({"modalities": {"side": {}}}, rows(9), ConfigError, "modalities.side: rows in memory"),
        (SMALL, {"side": [0], "size": ["1,2", "2,3"]}, DataError, "side has 1, size has 2"),
        (SMALL, {"side": ["up"], "size": ["1,2"]}, DataError, "row 0: side: no class 'up'"),
        (SMALL, {"side": [0]}, DataError, "row 0: there is no 'size', only side"),
        (SMALL, None, ConfigError, "there is no data"),
        (SMALL, {"side": [0], "size": torch.full((1, 2), math.nan)}, DataError, "finite"),
    ],
)
def test_what_cannot_be_trained_on_is_told(config, data, error, words):
    with pytest.raises(error, match=words):
        mmgen.train(config, data)


def test_what_is_left_out_is_as_of_the_command(small_glyphs):
    said = {"model": {"alpha": 0.3}, "train": {"epochs": 3, "betas": [0.5, 0.9]}}
    here = fitting._experiment(said, small_glyphs, "cpu")
    words = ["model.alpha=0.3", "train.epochs=3", "train.betas=[0.5, 0.9]", "train.device='cpu'"]
    there = default_experiment(small_glyphs.resolve(), words)
    assert here == there
    assert (here.train.schedule, here.recommended) == ("cosine", True)
    said = {
        "model": {"kind": "mvae"},
        "modalities": {"image": {}, "label": {"encoder_widths": [4]}},
    }
    here = fitting._experiment(said, small_glyphs, "cpu")
    assert (here.model.kind, here.participants) == ("mvae", ("image", "label"))
    assert here.modalities["label"] == {"encoder_widths": [4]}
