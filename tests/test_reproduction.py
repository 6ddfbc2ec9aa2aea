import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
import torch

from mmgen import build
from mmgen.batch import Batch
from mmgen.data.store import Split
from mmgen.errors import RunError
from mmgen.evaluation.directions import Direction
from mmgen.evaluation.likelihood.estimates import SamplingBudget
from mmgen.evaluation.likelihood.estimators import likelihoods
from mmgen.experiment import Experiment
from mmgen.inference.sample import sample_latent
from mmgen.run import load
from mmgen.training import plan, session
from mmgen_image.files import read_picture
from mmgen_suzuki2018 import jobs, page, table
from mmgen_suzuki2018.folder import Reproduction
from mmgen_suzuki2018.mnist import (
    BEYOND,
    COLUMNS,
    MNIST,
    PAPER,
    PROFILES,
    READINGS,
    RUNS,
    chains,
    drawings,
)
from mmgen_suzuki2018.mnist.claims import claims, settled

PICTURES = Path(__file__).parents[1] / os.environ.get("MMGEN_DATA", "../shared/data") / "mnist"


def reproduction(folder, **changes):
    settings = {"profile": "fast", "epochs": 20, **changes}
    return Reproduction(study=MNIST, out=folder / "out", data=folder / "data", **settings)


# What is planned.


@pytest.mark.parametrize("planned", [*RUNS, *BEYOND, *READINGS], ids=lambda p: p.name)
def test_every_configuration_is_one_that_train_reads_and_the_papers(planned, tmp_path):
    file = tmp_path / "planned.toml"
    file.write_text(
        MNIST.configuration(planned, tmp_path / 'a "quoted" folder', 100, {}), encoding="utf-8"
    )
    experiment = Experiment.read(file)
    assert experiment.model.kind == planned.model["kind"]
    assert list(experiment.modalities) == ["image", "label"]
    settings = build.model_settings(experiment, build.registry())
    assert settings.latent == (2 if planned.name.endswith("-2d") else 64)
    written = settings.model_dump(mode="json")
    assert {key: written[key] for key in planned.model if key != "kind"} == {
        key: value for key, value in planned.model.items() if key != "kind"
    }
    train = experiment.train
    assert (train.batch_size, train.learning_rate) == (100, 1e-3)
    assert train.warmup == train.epochs / 10
    if planned.row in PAPER or planned in READINGS:
        assert (train.epochs, train.schedule) == (100, "constant")


def test_the_authors_adam_is_a_profile(tmp_path):
    here = reproduction(tmp_path, profile="authors")
    here.begin()
    for planned in RUNS:
        train = Experiment.read(here.configuration(planned)).train
        assert train.eps == 1e-4
        assert (train.gradient_clip, train.gradient_clip_value) == (5.0, 1.0)
        assert train.learning_rate == 1e-3
    paper = reproduction(tmp_path / "other", profile="paper")
    paper.begin()
    assert Experiment.read(paper.configuration(RUNS[0])).train.eps == 1e-8


def test_the_seven_models_of_table_1_are_trained():
    table_runs = [p for p in RUNS if p.row]
    assert len(table_runs) == 7
    assert {p.row for p in table_runs} == set(PAPER)
    for one_way in ("CVAE", "CMMA"):
        targets = [p.model["targets"] for p in table_runs if p.row == one_way]
        assert sorted(targets) == [["image"], ["label"]]


# The folder.


def test_a_folder_is_begun_once_and_goes_on_with_the_same_settings_only(tmp_path):
    reproduction(tmp_path).begin()
    written = {p.stem: p for p in (tmp_path / "out" / "configs").iterdir()}
    assert set(written) == {p.name for p in RUNS}
    data = tomllib.loads(written["jmvae"].read_text(encoding="utf-8"))["data"]["path"]
    assert data == str((tmp_path / "data").resolve())
    before = written["jmvae"].stat().st_mtime_ns
    reproduction(tmp_path).begin()
    assert written["jmvae"].stat().st_mtime_ns == before
    with pytest.raises(RunError, match=r"begun with epochs 20, not 30.*--epochs 20"):
        reproduction(tmp_path, epochs=30).begin()
    with pytest.raises(RunError, match="begun with profile fast, not paper"):
        reproduction(tmp_path, profile="paper").begin()


def test_a_folder_is_not_gone_on_with_where_its_profile_meant_something_else(tmp_path):
    for profile, refused in (("paper", False), ("authors", True)):
        here = reproduction(tmp_path / profile, profile=profile)
        here.begin()
        manifest = here.out / "reproduction.json"
        begun = json.loads(manifest.read_text(encoding="utf-8"))
        here.begin()
        del begun["train"]  # as before profiles were noted
        manifest.write_text(json.dumps(begun), encoding="utf-8")
        configuration = here.configuration(RUNS[0])
        configuration.write_text("as it was", encoding="utf-8")
        if refused:
            with pytest.raises(RunError, match="--profile authors trains otherwise"):
                here.begin()
            assert configuration.read_text(encoding="utf-8") == "as it was"
        else:
            here.begin()


def test_the_data_set_is_written_by_a_command_as_all_else_is_done_by_one(tmp_path):
    here = reproduction(tmp_path, plugins=("mine.py",))
    job = here.importing(tmp_path / "root")
    words = ("data", "mnist", str(tmp_path / "root"), "--out", str(here.data))
    assert job.command == ("-p", "mine.py", *words)
    with pytest.raises(RunError, match=r"data: no mnist in .*root"):
        list(jobs.run([job.__class__(job.name, words, job.log)], 1))
    assert not here.data.exists()


def test_another_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match="holds something else"):
        reproduction(tmp_path).begin()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_what_is_left_to_measure_follows_the_weights(tmp_path):
    here = reproduction(tmp_path)
    assert {job.name for job in here.trainings()} == {p.name for p in RUNS}
    left = {job.name for job in here.likelihoods()}
    assert left == {p.name for p in RUNS if p.row}
    run = here.run("jmvae")
    run.mkdir(parents=True)
    (run / "best.safetensors").write_bytes(b"")
    (run / "likelihoods.json").write_bytes(b"")
    os.utime(run / "best.safetensors", ns=(1, 1))
    assert {job.name for job in here.likelihoods()} == left - {"jmvae"}
    os.utime(run / "likelihoods.json", ns=(0, 0))  # measured of other weights
    assert {job.name for job in here.likelihoods()} == left
    command = next(job.command for job in here.likelihoods() if job.name == "jmvae")
    assert command[command.index("--iterations") + 1] == str(PROFILES["fast"].iterations)
    command = next(job.command for job in here.likelihoods() if job.name == "jmvae-kl")
    assert "--iterations" not in command


def test_rows_beyond_the_paper_are_measured_at_their_temperature(tmp_path):
    here = dataclasses.replace(reproduction(tmp_path), extras=("beyond",))
    for found in (here.likelihoods(), here.recognitions()):
        commands = {job.name: job.command for job in found}
        assert {p.name for p in BEYOND} <= set(commands)
        for planned in here.runs:
            if planned.name in commands:
                words = commands[planned.name]
                assert float(words[words.index("--temperature") + 1]) == planned.temperature
    assert all(p.temperature == 1 for p in RUNS)
    assert all(0 < p.temperature < 1 for p in BEYOND)


def test_readings_are_rows_that_differ_from_the_papers_in_one_setting(tmp_path):
    here = dataclasses.replace(reproduction(tmp_path), extras=("readings",))
    assert here.runs == (*READINGS, *RUNS)
    assert reproduction(tmp_path).runs == RUNS
    papers = {p.row: p.model for p in RUNS}
    found = {p.name: papers[p.row.partition(",")[0]].items() ^ p.model.items() for p in READINGS}
    assert found == {
        "jmvae-kl-mean": {("alpha", 0.5)},
        "hierarchical-mean": {("bottom_up", "mean")},
        "hierarchical-sample": {("bottom_up", "sample")},
    }
    assert all((p.train, p.share, p.temperature) == ({}, 1, 1) for p in READINGS)
    measured = {job.name: job.command for job in here.likelihoods()}
    assert {p.name for p in READINGS} < set(measured)
    assert "--iterations" in measured["hierarchical-mean"]
    assert "--iterations" not in measured["jmvae-kl-mean"]
    assert {p.name for p in READINGS} < {job.name for job in here.recognitions()}


def test_rows_that_the_paper_lacks_say_what_they_are(tmp_path):
    said = page.beyond(dataclasses.replace(reproduction(tmp_path), extras=("beyond", "readings")))
    for planned in (*BEYOND, *READINGS):
        assert planned.row not in PAPER
        assert f"- **{planned.row}** {planned.about}: `kind = " in said
    assert "temperature = 1" not in said
    assert page.beyond(reproduction(tmp_path)) == ""


# The processes.


def job(folder, name, *command):
    return jobs.Job(name, command, folder / f"{name}.log")


def test_jobs_run_side_by_side_and_all_are_reported(tmp_path):
    wanted = [job(tmp_path, f"job-{n}", "--version") for n in range(3)]
    most, done = 0, []
    for look in jobs.run(wanted, 2):
        most = max(most, len(look.running))
        done += look.done
    assert sorted(j.name for j in done) == ["job-0", "job-1", "job-2"]
    assert most == 2
    assert (tmp_path / "job-0.log").read_text(encoding="utf-8").startswith("mmgen ")


def test_a_failing_job_says_what_it_said_and_stops_the_others(tmp_path):
    wrong = job(tmp_path, "wrong", "train", str(tmp_path / "missing.toml"), "--out", "x")
    with pytest.raises(RunError) as caught:
        list(jobs.run([wrong, job(tmp_path, "never", "--version")], 1))
    assert "wrong: " in str(caught.value)
    assert "missing.toml: there is no such file" in str(caught.value)
    assert not (tmp_path / "never.log").exists()


@pytest.mark.ci
def test_who_stops_looking_stops_the_jobs(tmp_path):
    endless = tmp_path / "endless.toml"
    endless.write_text(
        '[data]\nsource = "synthetic"\n[modalities.image]\nkind = "image"\n'
        '[modalities.label]\nkind = "label"\nclasses = ["a", "b"]\n'
        '[model]\nkind = "jmvae"\n[train]\nepochs = 100000\n',
        encoding="utf-8",
    )
    run = tmp_path / "run"
    wanted = job(tmp_path, "endless", "train", str(endless), "--out", str(run), "--no-figures")
    with closing(jobs.run([wanted], 1)) as looks:
        for _ in looks:
            if (run / "metrics.jsonl").exists():
                break
    said = (tmp_path / "endless.log").read_text(encoding="utf-8")
    assert "nothing is lost" in said  # it was asked, and could save


# Table and claims.


def records(numbers):
    return {
        "likelihoods": [
            {
                "targets": [*targets],
                "given": [*given],
                "estimator": estimator,
                "mean_of_logs": nats,
                "standard_error": 0.25,
                "z_from": "q(z|x)",
                "rows": 100,
            }
            for (_, targets, given, estimator), nats in zip(COLUMNS, numbers, strict=True)
            if nats is not None
        ]
    }


def measured(folder, changes=None):
    numbers = {**PAPER, **(changes or {})}
    files = {}
    for planned in (*RUNS, *BEYOND, *READINGS):
        if planned.row not in numbers:
            continue
        cells = list(numbers[planned.row])
        if "targets" in planned.model:  # one direction has half of the cells
            for column, (_, targets, _, _) in enumerate(COLUMNS):
                if [*targets] != planned.model["targets"]:
                    cells[column] = None
        files[planned.name] = folder / f"{planned.name}.json"
        files[planned.name].write_text(json.dumps(records(cells)), encoding="utf-8")
    runs = [p for p in (*BEYOND, *READINGS, *RUNS) if p.row in numbers]
    return table.cells(MNIST, files, runs)


def test_the_table_holds_every_cell_once_in_the_papers_order(tmp_path):
    flow = (-460.0, -0.1, -70.0, -0.05)
    found = measured(tmp_path, {"JMVAE-kl, flow": flow})
    assert [c.row for c in found[::4]] == [*PAPER, "JMVAE-kl, flow"]
    for row, numbers in {**PAPER, "JMVAE-kl, flow": flow}.items():
        assert tuple(c.nats for c in found if c.row == row) == numbers
    assert [c.paper for c in found if c.row == "CVAE"] == [*PAPER["CVAE"]]
    assert [c.paper for c in found if c.row == "JMVAE-kl, flow"] == [None] * 4
    sides = {c.quantity: c.run for c in found if c.row == "CVAE"}
    assert sides["log p(x|w)"] == "cvae-label-to-image"
    assert sides["log p(w|w,x)"] == "cvae-image-to-label"


def test_the_table_is_written_in_four_formats(tmp_path):
    found = measured(tmp_path)
    table.save(MNIST, found, tmp_path)
    markdown = (tmp_path / "table-1.md").read_text(encoding="utf-8").splitlines()
    assert markdown[0] == "|  | log p(x\\|w) | log p(w\\|x) | log p(x\\|w,x) | log p(w\\|w,x) |"
    assert markdown[2].startswith("| **CVAE** | −448.8 ± 0.25 | −5.293 ± 0.25 |")
    assert markdown[3] == "| *paper* | −448.8 | −5.293 | −70.42 | −5.304 |"
    latex = (tmp_path / "table-1.tex").read_text(encoding="utf-8")
    assert r"$\log p(x\mid w)$" in latex
    assert r"CVAE & $-448.8 \pm 0.25$" in latex
    assert latex.count(r"\\") == 1 + 2 * len(PAPER)
    cells = json.loads((tmp_path / "table-1.json").read_text(encoding="utf-8"))["cells"]
    assert len(cells) == 20
    lines = (tmp_path / "table-1.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 21
    assert lines[1].startswith("CVAE,log p(x|w),-448.8,0.25,")


def test_measurements_of_before_are_read_with_their_symbols_in_today_s_spelling(tmp_path):
    file = tmp_path / "jmvae-kl.json"
    old = records(PAPER["JMVAE-kl"])
    today = ["q(z | label)", "q(z | image)", "q(z | image, label)", "T = 50 from label"]
    before = ["q(z|label)", "q(z|image)", "q(z|image, label)", "T = 50 from label"]
    for symbols in (before, today):
        for record, symbol in zip(old["likelihoods"], symbols, strict=True):
            record["z_from"] = symbol
        file.write_text(json.dumps(old), encoding="utf-8")
        found = table.cells(MNIST, {"jmvae-kl": file}, [p for p in RUNS if p.name == "jmvae-kl"])
        assert [cell.z_from for cell in found] == today


def test_a_damaged_measurement_is_named(tmp_path):
    file = tmp_path / "jmvae.json"
    file.write_text("{", encoding="utf-8")
    runs = [p for p in RUNS if p.name == "jmvae"]
    with pytest.raises(RunError, match=r"jmvae\.json: is not valid JSON"):
        table.cells(MNIST, {"jmvae": file}, runs)


RISES = {"JMVAE": [-3.0, -2.0, -1.5, -1.2, -1.0], "Hierarchical": [-9.0, -3.0, -3.0, -3.0, -3.0]}


def test_the_papers_own_numbers_bear_out_what_it_states(tmp_path):
    judged = claims(measured(tmp_path), RISES)
    assert all(claim.holds for claim in judged), [c.words for c in judged if not c.holds]


def test_statements_are_of_the_papers_rows_whatever_else_there_is(tmp_path):
    better = (-1.0, -0.001, -1.0, -0.001)
    found = measured(tmp_path, {p.row: better for p in READINGS})
    assert [c.row for c in found[::4]] == [*PAPER, *(p.row for p in READINGS)]
    assert claims(found, RISES) == claims(measured(tmp_path), RISES)


def test_other_numbers_do_not(tmp_path):
    changes = {"JMVAE": (-430.0, -6.0, -69.0, -0.2), "JMVAE-kl": (-460.0, -0.2, -90.0, -0.2)}
    falling = {"JMVAE": [-1.0, -2.0], "Hierarchical": [-1.0, -2.0]}
    judged = {c.words: c for c in claims(measured(tmp_path, changes), falling)}
    wrong = [
        "log p(x|w): JMVAE is far below JMVAE-kl and the hierarchy",
        "log p(x|w): JMVAE-kl is at least as good as CVAE",
        "log p(x|w): JMVAE-kl is at least as good as CMMA",
        "log p(w|x): JMVAE is at least as good as CVAE",
        "Figure 4: JMVAE rises with the iterations",
        "Figure 4: Hierarchical rises with the iterations",
        "Figure 4: the hierarchy rises faster than JMVAE",
        "log p(x|w): JMVAE-kl reaches the paper's number",
        "log p(x|w,x): JMVAE-kl reaches the paper's number",
        "log p(w|w,x): JMVAE-kl reaches the paper's number",
    ]
    assert [words for words, claim in judged.items() if not claim.holds] == wrong
    assert judged[wrong[0]].evidence == "JMVAE −430.0, JMVAE-kl −460.0, Hierarchical −475.5"


def test_settled_finds_nine_tenths_of_the_rise():
    assert settled([-10.0, -2.0, -1.0, 0.0]) == 3
    assert settled([-1.0]) == 1


def test_numbers_are_written_as_in_the_paper():
    assert [table.nats(n) for n in (-448.8, -70.42, -5.293, -0.2971)] == [
        "−448.8",
        "−70.42",
        "−5.293",
        "−0.2971",
    ]


# Figures.


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trains the two iterative models and JMVAE-kl for a moment on synthetic pictures."""
    folder = tmp_path_factory.mktemp("runs")
    config = folder / "tiny.toml"
    config.write_text(
        '[data]\nsource = "synthetic"\nrows = 200\nclasses = 3\n'
        '[modalities.image]\nkind = "image"\nheight = 8\nwidth = 8\n'
        "encoder_widths = [16]\ndecoder_widths = [16]\n"
        '[modalities.label]\nkind = "label"\nclasses = ["a", "b", "c"]\n'
        "encoder_widths = [16]\ndecoder_widths = [16]\n"
        '[model]\nkind = "jmvae"\nlatent = 2\n[train]\nepochs = 2\ndevice = "cpu"\n',
        encoding="utf-8",
    )
    trained = {}
    for kind in ("jmvae", "hierarchical", "jmvae-kl"):
        prepared = session.prepare(Experiment.read(config, [f"model.kind={kind}"]))
        session.start(prepared, folder / kind)
        list(session.train(prepared, folder / kind))
        trained[kind] = load(folder / kind, device="cpu")
    return trained, plan.splits(prepared.dataset)["test"]


def test_pictures_are_those_of_the_chain_at_each_iteration(runs):
    run = runs[0]["jmvae"]
    before = torch.get_rng_state()
    shown = chains.pictures(run, "label", "image", (1, 4), samples=2, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert shown.shape == (2, 3, 2, 1, 8, 8)
    x = Batch({"label": torch.eye(3)})
    for position, iterations in enumerate((1, 4)):
        torch.manual_seed(3)
        z = sample_latent(run.model, x, 2, iterations=iterations)
        expected = run.model.decode(z[1], names=["image"])["image"].mean  # the second chain of each
        torch.testing.assert_close(shown[position, :, 1], expected)


@pytest.mark.parametrize(("target", "given"), [("label", "image"), ("image", "label")])
@pytest.mark.parametrize("kind", ["jmvae", "hierarchical", "jmvae-kl"])
def test_the_last_iteration_is_what_evaluate_measures(runs, kind, target, given):
    trained, split = runs
    run = trained[kind]
    iterations = None if kind == "jmvae-kl" else 5
    points = chains.likelihood_by_iteration(
        kind, run, split, target, given, iterations=5, samples=400
    )
    steps = [0] if kind == "jmvae-kl" else [1, 2, 3, 4, 5]
    assert [p.iteration for p in points] == steps
    budget = SamplingBudget(samples=400, importance=0, iterations=iterations, seed=1)
    single = likelihoods(run.model, split, [Direction((target,), (given,))], budget)[0]
    assert single.estimator == "single"
    # Other draws of z and of pixels: within Monte Carlo error.
    difference = abs(points[-1].nats - single.nats)
    assert difference < 4 * math.hypot(points[-1].standard_error, single.standard_error)
    assert points[-1].standard_error == pytest.approx(single.standard_error, rel=0.3)


def test_likelihoods_move_along_the_chain(runs):
    trained, split = runs
    points = chains.likelihood_by_iteration(
        "JMVAE", trained["jmvae"], split, "image", "label", iterations=3, samples=10
    )
    assert len({p.nats for p in points}) == 3


def test_latents_are_drawn_from_the_encoder_where_there_is_one(runs):
    trained, split = runs
    few = Split((split.take(torch.arange(20)),))
    label = few.take(torch.arange(20), ["label"])["label"]
    z = chains.latents(trained["jmvae-kl"], few, ["label"], iterations=3, seed=5)
    assert z.shape == (20, 2)
    q = trained["jmvae-kl"].model.posterior(Batch({"label": torch.eye(3)[label.long()]}))
    assert ((z - q.mean) / q.stddev).abs().max() < 5
    assert not torch.allclose(z, q.mean)


def test_latents_of_a_hierarchy_are_those_that_its_decoders_read(runs):
    trained, split = runs
    few = Split((split.take(torch.arange(20)),))
    for given in (["image", "label"], ["label"]):
        z = chains.latents(trained["hierarchical"], few, given, iterations=3, seed=5)
        assert z.shape == (20, 2)


def test_figures_are_drawn(runs, tmp_path):
    trained, split = runs
    few = Split((split.take(torch.arange(20)),))
    shown = {"JMVAE": chains.pictures(trained["jmvae"], "label", "image", (1, 2))}
    image = trained["jmvae"].modalities["image"]
    z = chains.latents(trained["jmvae"], few, ["label"], iterations=2)
    points = [chains.Point("JMVAE", "label", "image", t, -1.0 / t, 0.1) for t in (1, 2, 3)]
    points.append(chains.Point("JMVAE-kl", "label", "image", 0, -0.5, 0.1))
    classes = few.take(torch.arange(20), ["label"])["label"]
    for file in (
        drawings.figure_3(shown, (1, 2), image, tmp_path / "3.png"),
        drawings.figure_4(points, tmp_path / "4.png"),
        drawings.figure_5({"JMVAE": {"label": z}}, classes.double(), "abc", tmp_path / "5.png"),
    ):
        assert len(set(read_picture(str(file), (3, 60, 80)).flatten().tolist())) > 10


# The whole.


@pytest.mark.slow
@pytest.mark.skipif(not PICTURES.is_dir(), reason=f"no MNIST at {PICTURES}: set MMGEN_DATA")
def test_the_fast_profile_stops_and_goes_on_to_table_and_figures(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mmgen", "reproduce", "mnist", "--data", str(PICTURES)]
    command += ["--out", str(out), "--profile", "fast", "--epochs", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not [*out.glob("runs/*/metrics.jsonl")]:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert "The same command goes on" in process.communicate()[1]
    assert process.returncode == 130
    assert not (out / "README.md").exists()

    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Table 1" in done.stdout
    cells = json.loads((out / "table-1.json").read_text(encoding="utf-8"))["cells"]
    assert len(cells) == 20
    assert all(cell["nats"] < 0 and cell["rows"] == 300 for cell in cells)
    page = (out / "README.md").read_text(encoding="utf-8")
    for file in ("figure-3.png", "figure-4.png", "figure-5.png"):
        assert f"({file})" in page
        assert (out / file).stat().st_size > 10_000
    for file in ("figure-3.safetensors", "figure-4.csv", "figure-5.csv", "table-1.tex"):
        assert f"({file})" in page
        assert (out / file).exists()
    weights = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/*.safetensors")}
    subprocess.run(command, capture_output=True, check=True)  # nothing is left to do
    assert {p: p.stat().st_mtime_ns for p in weights} == weights
