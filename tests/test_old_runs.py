"""Runs that older versions wrote: they load, generate, evaluate and resume, with the same numbers.

``old_runs`` holds small runs of format 1, on synthetic data, with nets of modalities named by
number; and the losses of twenty steps of each model, as the code of then computed them.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

import mmgen
from mmgen import build
from mmgen.batch import Batch
from mmgen.data.batches import Batches
from mmgen.evaluation.directions import all_directions
from mmgen.evaluation.likelihood.estimates import SamplingBudget
from mmgen.evaluation.likelihood.estimators import likelihoods
from mmgen.experiment import Experiment
from mmgen.training import run_folder, session
from mmgen.training.loop import Training, evaluate

OLD = Path(__file__).parent / "old_runs"
RECORD = json.loads((OLD / "losses.json").read_text())
RUNS = list(RECORD["losses"])

SAME_MACHINE = (
    torch.__version__ == RECORD["torch"]
    and torch.backends.cpu.get_cpu_capability() == RECORD["cpu"]
)
"""Whether sums are added up as they were then: only so are they equal to the last bit."""


def same(found, recorded):
    if SAME_MACHINE:
        assert found == recorded
    else:
        assert found == pytest.approx(recorded, rel=1e-4)


@pytest.fixture(params=RUNS)
def old(request, tmp_path):
    """A copy of an old run."""
    return Path(shutil.copytree(OLD / request.param, tmp_path / request.param))


def prepared(run, *overrides):
    return session.prepare(Experiment.read(run / "experiment.json", overrides))


@pytest.mark.parametrize("name", RUNS)
def test_twenty_steps_have_the_losses_that_they_had(name):
    start = prepared(OLD / name)
    training = start.training
    training.model.train()
    torch.manual_seed(11)
    losses = []
    for epoch in range(5):
        for n, x in enumerate(start.train.epoch(7, epoch)):
            noted = training.step(x, epoch + (n + 1) / len(start.train))
            losses.append(noted["loss"].item())
    same(losses[:20], [float.fromhex(loss) for loss in RECORD["losses"][name]])


def test_the_weights_have_the_validation_loss_that_they_had(old):
    run = mmgen.load(old, device="cpu", weights="last")
    registry = build.registry()
    split = build.dataset(run.experiment, registry).splits["validation"]
    size = run.experiment.train.batch_size
    batches = Batches(split, run.modalities, device=run.device, batch_size=size)
    found = evaluate(Training(run.model, run.experiment.train, run.device), batches)
    recorded = run_folder.read_metrics(old)[-1]["validation"]
    same([found[term] for term in recorded], [*recorded.values()])
    assert {*found} == {*recorded}


def test_it_generates_and_is_evaluated(old):
    run = mmgen.load(old, device="cpu")
    directions = all_directions(run.model)
    for direction in directions:
        given = {n: run.modalities[n].choices()[0] for n in direction.given if n != "picture"}
        if "picture" in direction.given:
            given["picture"] = torch.zeros(run.modalities["picture"].shape)
        generated = run.generate(given, list(direction.targets), 3)
        assert all(generated[n].mean.isfinite().all() for n in direction.targets)
    split = build.dataset(run.experiment, build.registry()).splits["test"]
    budget = SamplingBudget(samples=2, importance=3)
    for estimate in likelihoods(run.model, split, directions[:2], budget):
        assert estimate.values.isfinite().all()


def test_it_resumes_and_is_then_of_todays_format(old, mmgen):
    before = run_folder.read_metrics(old)
    code, _, err = mmgen("train", old, "--resume", "train.epochs=3", "--no-figures")
    assert code == 0, err
    after = run_folder.read_metrics(old)
    assert after[: len(before)] == before
    assert {*after[-1]["train"]} == {*before[-1]["train"]}
    assert run_folder.environment(old)["format"] == run_folder.FORMAT
    assert (old / "last.safetensors").read_bytes().count(b"decoders.0.") == 0


def test_resuming_gives_the_weights_of_a_run_that_was_not_interrupted(old):
    """The same three epochs by today's code alone, from the first step on."""
    resumed = prepared(old, "train.epochs=3")
    run_folder.resume(old, resumed.training, len(resumed.train))
    list(session.fit(resumed.training, resumed.train, resumed.validation))
    whole = prepared(old, "train.epochs=3")
    list(session.fit(whole.training, whole.train, whole.validation))
    for name, weight in whole.training.model.state_dict().items():
        found = resumed.training.model.state_dict()[name]
        if SAME_MACHINE:
            assert torch.equal(found, weight), name
        else:
            torch.testing.assert_close(found, weight, rtol=1e-3, atol=1e-4)


def test_what_is_given_may_be_a_plain_dictionary(old):
    run = mmgen.load(old, device="cpu")
    x = run.model.blank(run.model.names, 2)
    assert {t.name for t in run.model(Batch(dict(x)))} == {t.name for t in run.model(x)}
