"""The rows that a run is shown and measured on."""

import pytest
from conftest import ROOT, small

from mmgen.data.store import read_dataset, write_dataset
from mmgen.errors import DataError
from mmgen.experiment import Experiment
from mmgen.held_out import held_out, rows_of
from mmgen.registry.loading import load as plugins
from mmgen.run import load
from mmgen.training import run_folder, session


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("train", "validation", "test"), "test"),
        (("validation", "train"), "validation"),
        (("train", "all"), None),
    ],
)
def test_the_test_split_is_held_out_before_that_of_validation(names, chosen):
    assert held_out(names) == chosen


def write(path, data, names=None, *, without=""):
    """Writes a data set anew, with some of its modalities, and without one of its splits."""
    dataset = read_dataset(data)
    names = names or [*dataset.modalities]
    splits = {n: s.load(names) for n, s in dataset.splits.items() if n != without}
    modalities = {n: dataset.modalities[n] for n in names}
    write_dataset(path, name="part", about="", modalities=modalities, splits=splits)
    return path


def opened(run, **asked):
    return rows_of(load(run, device="cpu"), plugins(), run_folder.environment(run), **asked)


def test_rows_are_of_the_split_that_is_held_out_or_asked_for(trained, small_glyphs, tmp_path):
    rows = opened(trained)
    assert (rows.name, rows.split.count, rows.notes) == ("test", 80, ())
    assert opened(trained, split="train", count=7).split.count == 7
    data = write(tmp_path / "data", small_glyphs, without="test")
    rows = opened(trained, data=data, other=True)
    assert (rows.name, rows.split.count) == ("validation", 80)
    assert "is not the data set" in rows.notes[0]
    with pytest.raises(DataError, match=r"--split test: .* has train, validation"):
        opened(trained, data=data, other=True, split="test")
    with pytest.raises(DataError, match="hashes differ"):
        opened(trained, data=data)


def test_other_data_need_not_have_what_takes_no_part(mmgen, small_glyphs, tmp_path):
    overrides = ["model.kind=cvae", "model.targets=['image']", "model.given=['label']"]
    experiment = Experiment.read(
        ROOT / "examples" / "glyphs.toml", [*overrides, *small(small_glyphs, epochs=1)]
    )
    prepared = session.prepare(experiment)
    session.start(prepared, tmp_path / "run")
    list(session.train(prepared, tmp_path / "run"))
    data = write(tmp_path / "data", small_glyphs, ["image", "label"])
    quick = ("--rows", 5, "--samples", 1, "--importance", 1, "--device", "cpu")
    code, out, err = mmgen("evaluate", tmp_path / "run", "--data", data, *quick)
    assert code == 0, err
    assert "5 rows of test" in out
    data = write(tmp_path / "less", small_glyphs, ["label", "attributes"])
    code, _, err = mmgen("evaluate", tmp_path / "run", "--data", data, *quick)
    assert code == 2
    assert "has no modality image" in err
