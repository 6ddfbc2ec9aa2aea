"""mmgen evaluate: the tables, their files, and what cannot be."""

import csv
import json
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from conftest import ROOT, small

from mmgen import denormals
from mmgen.data.sources import Glyphs
from mmgen.data.store import write_dataset
from mmgen.errors import ConfigError
from mmgen.evaluation import measure
from mmgen.evaluation.likelihood.estimates import Estimate, SamplingBudget
from mmgen.evaluation.likelihood.tables import Evaluation
from mmgen.evaluation.measure import Request, measure_likelihoods
from mmgen.experiment import Experiment
from mmgen.run import load
from mmgen.training import session

QUICK = ("--rows", 30, "--samples", 3, "--importance", 5, "--device", "cpu")


@pytest.fixture(scope="module")
def one_way(small_glyphs, tmp_path_factory):
    """A run of a CVAE: the image from label and attributes."""
    out = tmp_path_factory.mktemp("runs") / "cvae"
    overrides = ["model.kind=cvae", "model.targets=['image']", *small(small_glyphs, epochs=1)]
    experiment = Experiment.read(ROOT / "examples" / "glyphs.toml", overrides)
    prepared = session.prepare(experiment)
    session.start(prepared, out)
    list(session.train(prepared, out))
    return out


def likelihoods(path):
    records = json.loads(path.read_text())["likelihoods"]
    return {(r["likelihood"], r["estimator"]): r for r in records}


def test_all_directions_of_three_modalities_are_in_the_tables(mmgen, trained, tmp_path):
    file = tmp_path / "new" / "likelihoods.json"
    code, out, _ = mmgen("evaluate", trained, *QUICK, "-o", file)
    assert code == 0
    assert "30 rows of test" in out
    assert f"tables in {file}" in out
    record = json.loads(file.read_text())
    assert (record["model"], record["split"], record["rows"]) == ("jmvae-kl", "test", 30)
    estimators = [r["estimator"] for r in record["likelihoods"]]
    # 9 directions; their 6 marginals and the joint.
    assert [estimators.count(e) for e in ("single", "multiple", "importance")] == [9, 9, 16]
    for r in record["likelihoods"]:
        weighed = r["estimator"] == "importance"
        assert r["rows"] == 30
        pooled = 2 if weighed and r["given"] else 1  # two posteriors of 5 z each
        assert r["samples"] == (5 * pooled if weighed else 3)
        assert (r["mean_of_logs"] is None) == weighed
        assert (r["log_mean_exp"] is None) == (not weighed)
        assert (r["mean_of_logs"] or r["log_mean_exp"]) < 0
        assert r["standard_error"] > 0
        if weighed:
            assert 1 <= r["ess_least"] <= r["ess_mean"] <= r["samples"]


def test_the_numbers_of_the_terminal_are_those_of_the_file(mmgen, trained, tmp_path):
    words = ("evaluate", trained, *QUICK, "--given", "label", "--targets", "image")
    _, out, _ = mmgen(*words, "-o", tmp_path / "a.json")
    found = likelihoods(tmp_path / "a.json")
    single = found["log p(image | label)", "single"]["mean_of_logs"]
    weighed = found["log p(image | label)", "importance"]["log_mean_exp"]
    assert f"{single:.2f}" in out
    assert f"{weighed:.2f}" in out
    assert single != weighed


def test_the_same_command_writes_the_same_file(mmgen, trained, tmp_path):
    for name in ("a.csv", "b.csv"):
        torch.manual_seed(len(name))
        assert mmgen("evaluate", trained, *QUICK, "-o", tmp_path / name)[0] == 0
    mmgen("evaluate", trained, *QUICK, "--seed", 1, "-o", tmp_path / "c.csv")
    texts = [(tmp_path / name).read_text() for name in ("a.csv", "b.csv", "c.csv")]
    assert texts[0] == texts[1] != texts[2]


def test_given_and_targets_name_one_direction_or_leave_a_side_open(mmgen, trained, tmp_path):
    def quantities(*words):
        file = tmp_path / "tables.json"
        assert mmgen("evaluate", trained, *QUICK, *words, "-o", file)[0] == 0
        return [q for q, estimator in likelihoods(file) if estimator == "single"]

    both = quantities("--targets", "attributes", "image", "--given", "label")
    assert both == ["log p(image, attributes | label)"]
    assert quantities("--given", "attributes", "image") == ["log p(label | image, attributes)"]
    assert quantities("--targets", "label") == [
        "log p(label | image)",
        "log p(label | attributes)",
        "log p(label | image, attributes)",
    ]


def test_either_sort_of_number_can_be_left_out(mmgen, trained, tmp_path):
    file = tmp_path / "tables.json"
    mmgen("evaluate", trained, *QUICK, "--importance", 0, "-o", file)
    assert {e for _, e in likelihoods(file)} == {"single", "multiple"}
    mmgen("evaluate", trained, *QUICK, "--samples", 0, "-o", file)
    assert {e for _, e in likelihoods(file)} == {"importance"}


def test_iterations_are_taken_instead_of_an_encoder(mmgen, trained, tmp_path):
    file = tmp_path / "tables.json"
    mmgen("evaluate", trained, *QUICK, "--iterations", 2, "--importance", 0, "-o", file)
    found = likelihoods(file)
    assert found["log p(image | label)", "single"]["z_from"] == "T = 2 from label"
    assert found["log p(image | label, attributes, image)", "multiple"]["z_from"] == "q(z | x)"


@pytest.fixture
def at_two_temperatures(mmgen, trained, tmp_path):
    """Returns the records at temperatures of 1 and 0.5."""

    def evaluate(*words):
        found = []
        for temperature in (1, 0.5):
            file = tmp_path / f"{temperature}.json"
            noise = ("--temperature", temperature, "-o", file)
            code, _, err = mmgen("evaluate", trained, *QUICK, *words, *noise)
            assert code == 0, err
            found.append(json.loads(file.read_text())["likelihoods"])
        return found

    return evaluate


def test_a_temperature_is_of_z_given_some_and_of_means_of_logs_alone(at_two_temperatures):
    plain, tempered = at_two_temperatures("--given", "label", "--targets", "image")
    assert [r["z_from"] for r in plain][:2] == ["q(z | label)", "q(z | image, label)"]
    names = ["q(z | label), τ = 0.5", "q(z | image, label), τ = 0.5"]
    assert [r["z_from"] for r in tempered][:2] == names
    for one, other in zip(plain[:2], tempered[:2], strict=True):
        assert one["mean_of_logs"] != other["mean_of_logs"]
    assert plain[2:] == tempered[2:]  # importance


def test_with_everything_given_z_has_no_temperature(at_two_temperatures):
    words = ("--given", "label", "attributes", "--targets", "image", "--importance", 0)
    (_, multiple), (_, again) = at_two_temperatures(*words)
    assert multiple == again
    assert multiple["z_from"] == "q(z | x)"


def test_markdown_csv_and_latex_hold_the_same_numbers(mmgen, trained, tmp_path):
    for suffix in ("md", "csv", "tex", "json"):
        mmgen("evaluate", trained, *QUICK, "--given", "label", "-o", tmp_path / f"t.{suffix}")
    records = list(likelihoods(tmp_path / "t.json").values())
    numbers = [r["mean_of_logs"] or r["log_mean_exp"] for r in records]
    markdown, tex = (tmp_path / "t.md").read_text(), (tmp_path / "t.tex").read_text()
    rows = [line for line in markdown.splitlines() if line.startswith("| log p")]
    bodies = [line for line in tex.splitlines() if line.startswith(r"$\log p$")]
    assert len(rows) == len(bodies) == len(records)
    for number, row, body in zip(numbers, rows, bodies, strict=True):
        assert f"| {number:.2f} |" in row
        assert f"& {number:.2f} &" in body
        assert body.endswith(r" \\")
    # A bar inside a cell would end it.
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5, 7}
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    with (tmp_path / "t.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    read = [float(line["mean_of_logs"] or line["log_mean_exp"]) for line in table]
    assert read == pytest.approx(numbers)
    assert all(bool(line["mean_of_logs"]) != bool(line["log_mean_exp"]) for line in table)


def test_names_are_safe_in_latex_and_numbers_that_are_not_finite_in_json():
    one = Estimate(("a_b",), ("c%",), "single", "q(z|c%)", 1, torch.tensor([-torch.inf]))
    evaluation = Evaluation("run", "jmvae", "data", "test", 1, SamplingBudget(), [one])
    assert r"$\log p$(a\_b $\mid$ c\%) & q(z$\mid$c\%) & -inf & --" in evaluation.latex()
    (record,) = json.loads(evaluation.json(), parse_constant=pytest.fail)["likelihoods"]
    assert record["mean_of_logs"] is record["standard_error"] is None


def test_rows_are_spread_over_the_split(mmgen, trained, tmp_path, small_glyphs):
    file = tmp_path / "tables.json"
    mmgen("evaluate", trained, *QUICK, "--rows", 1000, "--given", "label", "-o", file)
    assert json.loads(file.read_text())["rows"] == 80
    mmgen("evaluate", trained, *QUICK, "--split", "validation", "--rows", 7, "-o", file)
    record = json.loads(file.read_text())
    assert (record["split"], record["rows"]) == ("validation", 7)


def test_few_effective_samples_are_told_once_an_estimate(mmgen, trained, tmp_path):
    words = ("--given", "label", "--targets", "image")
    for suffix in ("json", "md", "tex"):
        code, _, err = mmgen("evaluate", trained, *QUICK, *words, "-o", tmp_path / f"t.{suffix}")
        assert code == 0
    notes = json.loads((tmp_path / "t.json").read_text())["notes"]
    assert [note.partition(": ")[0] for note in notes] == [
        "log p(image, label, attributes)",
        "log p(label)",
        "log p(image, label)",
        "log p(image | label)",
    ]
    told = " ".join(err.split())
    markdown, tex = ((tmp_path / f"t.{suffix}").read_text() for suffix in ("md", "tex"))
    for note in notes:
        assert "is below 10 in 30 of 30 rows (least " in note
        assert told.count(f"note: {note}") == markdown.count(f"- {note}\n") == 1
        assert tex.count(f"% {note}\n") == 1


# Models of one direction.


def test_a_cvae_has_one_direction(mmgen, one_way, tmp_path):
    file = tmp_path / "tables.json"
    code, _, _ = mmgen("evaluate", one_way, *QUICK, "-o", file)
    assert code == 0
    found = likelihoods(file)
    assert list(found) == [
        ("log p(image | label, attributes)", "single"),
        ("log p(image | label, attributes, image)", "multiple"),
        ("log p(image | label, attributes)", "importance"),
    ]
    asked = tmp_path / "asked.json"
    mmgen("evaluate", one_way, *QUICK, "--targets", "image", "-o", asked)
    assert likelihoods(asked) == found


@pytest.mark.parametrize(
    "words",
    [("--targets", "label"), ("--given", "label"), ("--given", "image", "--targets", "label")],
)
def test_the_other_directions_of_a_cvae_are_one_clear_error(mmgen, one_way, words):
    code, out, err = mmgen("evaluate", one_way, *QUICK, *words)
    assert (code, out) == (2, "")
    assert "is a cvae of one direction: it generates image from label, attributes" in err


def test_a_cvae_does_not_iterate(mmgen, one_way):
    code, _, err = mmgen("evaluate", one_way, *QUICK, "--iterations", 3)
    assert code == 2
    assert "one direction: no iterations" in err


# What cannot be.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--given", "lable"), "did you mean 'label'"),
        (("--targets", "lable"), "did you mean 'label'"),
        (("--given", "label", "--targets", "label"), "given and asked for"),
        (("--given", "label", "image", "attributes"), "all modalities are given"),
        (("--targets", "label", "image", "attributes"), "all modalities are targets"),
        (("--split", "tset"), "has train, validation, test; did you mean 'test'"),
        (("--samples", 0, "--importance", 0), "nothing is left to estimate"),
        (("--weights", "first"), "it is best or last"),
        (("--out", "table.xls"), "written as .md, .csv, .json, .tex"),
        (("--data", "nowhere"), "nowhere"),
        (("--coherence",), "--coherence is a command of its own: mmgen coherence"),
        (("--temperature", "inf"), "a temperature of inf"),
        (("--temperature", "-1"), "be greater than or equal to"),
    ],
)
def test_what_cannot_be_is_one_message(mmgen, trained, words, message):
    code, out, err = mmgen("evaluate", trained, *QUICK, *words)
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""


def test_a_table_that_cannot_be_written_is_an_error_before_the_work(mmgen, trained, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = mmgen("evaluate", trained, *QUICK, "-o", tmp_path / "file" / "a.md")
    assert code == 2
    assert "Not a directory" in err
    assert out == ""


def test_another_data_set_must_be_named(mmgen, tmp_path, small_glyphs):
    data, other, run = tmp_path / "data", tmp_path / "other", tmp_path / "run"
    for path, seed in ((data, 3), (other, 4)):
        drawn = Glyphs(train=60, validation=20, test=20, seed=seed).read()
        write_dataset(path, name="g", about="", modalities=drawn.modalities, splits=drawn.splits)
    experiment = Experiment.read(ROOT / "examples" / "glyphs.toml", small(data, epochs=1))
    prepared = session.prepare(experiment)
    session.start(prepared, run)
    list(session.train(prepared, run))
    assert mmgen("evaluate", run, *QUICK)[0] == 0
    data.rename(tmp_path / "gone")
    code, _, err = mmgen("evaluate", run, *QUICK)
    assert code == 2
    assert "not there" in err
    other.rename(data)
    code, _, err = mmgen("evaluate", run, *QUICK)
    assert code == 2
    assert "hashes differ" in err
    code, out, err = mmgen("evaluate", run, *QUICK, "--data", data)
    assert code == 0
    assert "is not the data set" in err
    assert "20 rows of test" in out


def test_from_python_the_rows_are_there_one_by_one(trained, small_glyphs):
    run = load(trained, device="cpu")
    asked = Request(targets=["image"], given=["label"], samples=2, importance=2)
    done = []
    found = measure_likelihoods(run, asked, done=lambda *counts: done.append(counts))
    assert found.rows == 80
    assert len(found.notes) == 4  # each of the importance-sampled: two z are few
    assert done == [(0, 80), (80, 80)]
    assert {len(e.values) for e in found.estimates} == {80}
    assert {e.values.dtype for e in found.estimates} == {torch.float64}
    assert all(e.values.isfinite().all() for e in found.estimates)
    with pytest.raises(ConfigError, match="nothing is left to estimate"):
        measure_likelihoods(run, Request(samples=0, importance=0))


def test_the_command_measures_what_python_does(mmgen, trained, tmp_path):
    words = ("--given", "label", "--seed", 3)
    assert mmgen("evaluate", trained, *QUICK, *words, "-o", tmp_path / "a.json")[0] == 0
    asked = Request(given=["label"], rows=30, samples=3, importance=5, seed=3)
    assert (tmp_path / "a.json").read_text() == measure_likelihoods(
        load(trained, device="cpu"), asked
    ).json()


# Denormal numbers.


@pytest.mark.parametrize("before", [False, True])
def test_denormal_numbers_are_flushed_and_are_as_before_afterwards(
    mmgen, trained, monkeypatch, before
):
    seen = []

    def measured(*args, **options):
        seen.append(denormals.flushing())
        return measure_likelihoods(*args, **options)

    monkeypatch.setattr(measure, "measure_likelihoods", measured)
    torch.set_flush_denormal(before)
    try:
        assert mmgen("evaluate", trained, *QUICK, "--given", "label")[0] == 0
        assert seen == [True]
        assert denormals.flushing() == before
        assert mmgen("evaluate", trained, *QUICK, "--given", "lable")[0] == 2
        assert denormals.flushing() == before
    finally:
        torch.set_flush_denormal(False)


# Side by side.


def test_processes_side_by_side_measure_what_one_does(mmgen, trained, tmp_path):
    found = []
    for jobs in (1, 2):
        file = tmp_path / f"{jobs}.json"
        words = ("--split", "train", "--rows", 250, "--iterations", 3, "--given", "label")
        code, out, err = mmgen("evaluate", trained, *QUICK, *words, "--jobs", jobs, "-o", file)
        assert code == 0, err
        assert "250 rows of train" in out
        found.append(likelihoods(file))
    assert found[0].keys() == found[1].keys()
    for key, one in found[0].items():
        numbers = {name: value for name, value in one.items() if isinstance(value, float)}
        assert len(numbers) >= 2
        # Another number of threads may round otherwise.
        assert {name: found[1][key][name] for name in numbers} == pytest.approx(numbers, rel=1e-4)


@pytest.mark.ci
def test_processes_measure_on_data_that_was_made_up(mmgen, tmp_path):
    (tmp_path / "made.toml").write_text(MADE_UP)
    run = tmp_path / "run"
    code, _, err = mmgen("train", tmp_path / "made.toml", "--out", run, "--no-figures")
    assert code == 0, err
    words = ("--rows", 4, "--samples", 2, "--importance", 2, "--device", "cpu")
    for jobs in (1, 2):
        file = tmp_path / f"{jobs}.md"
        code, _, err = mmgen("evaluate", run, *words, "--jobs", jobs, "-o", file)
        assert code == 0, err
    assert (tmp_path / "1.md").read_text() == (tmp_path / "2.md").read_text()


MADE_UP = """
name = "made up"
data = { source = "synthetic", rows = 60 }
model = { kind = "jmvae-kl", latent = 2 }
train = { epochs = 1 }
modalities.a = { kind = "label", classes = ["x", "y"] }
modalities.b = { kind = "label", classes = ["p", "q"] }
"""


WRITES = """
import multiprocessing, sys
from pathlib import Path
if multiprocessing.parent_process() is not None:
    Path(__file__).with_suffix(f".{sys.float_info.min / 2 == 0}").touch()
"""


@pytest.mark.ci
def test_processes_side_by_side_flush_denormal_numbers(mmgen, trained, tmp_path):
    (tmp_path / "writes.py").write_text(WRITES)
    plugin = ("-p", tmp_path / "writes.py")
    words = ("--importance", 0, "--given", "label", "--jobs", 2)
    code, _, err = mmgen(*plugin, "evaluate", trained, *QUICK, *words)
    assert code == 0, err
    assert {path.name for path in tmp_path.glob("writes.*")} == {"writes.py", "writes.True"}


DIES = """
import multiprocessing, os
if multiprocessing.parent_process() is not None:
    os._exit(9)
"""


@pytest.mark.ci
def test_a_process_that_is_killed_is_one_message(mmgen, trained, tmp_path):
    (tmp_path / "dies.py").write_text(DIES)
    plugin = ("-p", tmp_path / "dies.py")
    code, out, err = mmgen(*plugin, "evaluate", trained, *QUICK, "--jobs", 2)
    assert code == 2
    assert "was killed" in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.ci
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 130), ("SIGKILL", -9)])
def test_no_process_outlives_the_first(trained, tmp_path, number, code):
    words = ["evaluate", str(trained), "--iterations", "1000000", "--jobs", "2"]
    command = [sys.executable, "-m", "mmgen", *words, "--device", "cpu"]
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err)
    children = []
    while process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        if any(c.cpu_times().user > 1 for c in children):
            break
        time.sleep(0.2)
    process.send_signal(getattr(signal, number))
    assert process.wait(60) == code, (tmp_path / "err").read_text()
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert children
    assert psutil.wait_procs(children, timeout=60)[1] == []
