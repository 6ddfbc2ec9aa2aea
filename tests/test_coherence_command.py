"""mmgen coherence: the table, its files, and what cannot be."""

import csv
import json

import pytest

from mmgen.data.sources import Glyphs
from mmgen.data.store import write_dataset
from mmgen.evaluation.coherence.tables import coherence_json
from mmgen.evaluation.measure import Request, measure_coherence
from mmgen.run import load


@pytest.mark.ci
def test_coherence_is_told_and_written(mmgen, trained, tmp_path):
    file = tmp_path / "new" / "coherence.csv"
    code, out, err = mmgen("coherence", trained, "--rows", 40, "-n", 2, "-o", file)
    assert code == 0, err
    assert "label → image" in out
    assert "nothing → image" in out
    assert "image + attributes → label" in out
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["measure"] for row in rows} == {"accuracy", "F1"}
    assert all(0 <= float(row["value"]) <= 1 for row in rows)


def test_one_direction_of_coherence_can_be_asked_for(mmgen, trained, tmp_path):
    words = ("--rows", 40, "--given", "image", "--targets", "label")
    code, out, _ = mmgen("coherence", trained, *words)
    assert code == 0
    assert "image → label" in out
    assert "attributes" not in out
    assert "nothing →" not in out


def test_coherence_is_not_written_as_latex(mmgen, trained, tmp_path):
    code, _, err = mmgen("coherence", trained, "-o", tmp_path / "coherence.tex")
    assert code == 2
    assert "tables are written as .md, .csv, .json" in err


def test_the_command_measures_what_python_does(mmgen, trained, tmp_path):
    file = tmp_path / "coherence.json"
    asked = Request(given=["image"], targets=["label"], rows=40, samples=2, seed=3)
    words = ("--given", "image", "--targets", "label", "--rows", 40, "-n", 2, "--seed", 3)
    assert mmgen("coherence", trained, *words, "--device", "cpu", "-o", file)[0] == 0
    found = measure_coherence(load(trained, device="cpu"), asked)
    about = json.loads(file.read_text())["about"]
    assert about == f"{trained}, test"
    assert file.read_text() == coherence_json(found, {"about": about})


def test_data_that_a_run_was_not_trained_on_is_noted(mmgen, trained, tmp_path):
    drawn = Glyphs(train=60, validation=20, test=20, seed=4).read()
    data = tmp_path / "other"
    write_dataset(data, name="g", about="", modalities=drawn.modalities, splits=drawn.splits)
    words = ("--given", "image", "--targets", "label", "-n", 1, "--data", data)
    code, _, err = mmgen("coherence", trained, *words, "-o", tmp_path / "coherence.md")
    assert code == 0, err
    assert "is not the data set" in err
    assert "is not the data set" in (tmp_path / "coherence.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--importance", 5), "No such option"),
        (("--jobs", 2), "No such option"),
        (("--weights", "first"), "it is best or last"),
        (("--split", "tset"), "did you mean 'test'"),
        (("--given", "lable"), "did you mean 'label'"),
    ],
)
def test_what_means_nothing_to_coherence_is_one_message(mmgen, trained, words, message):
    code, out, err = mmgen("coherence", trained, *words)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
