"""How good a run is: measured beside baselines, kept, and told as findings."""

import json
import math
from dataclasses import replace

import pytest
import torch
from pages import NETS, pictures, report, train

from mmgen import build
from mmgen.batch import Batch
from mmgen.data.batches import Batches
from mmgen.data.split import Split
from mmgen.errors import WriteError
from mmgen.evaluation import quality as measuring
from mmgen.evaluation.coherence.classifier import Recipe
from mmgen.evaluation.coherence.readout import readouts
from mmgen.evaluation.quality import FILE, Measured, Quality, Rate, quality
from mmgen.gallery.recognition import Advice, below, missed, of_quality, of_rows, of_units
from mmgen.inference.terms import terms
from mmgen.run import load
from mmgen.training import run_folder


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """One epoch on pictures of three classes: it learned next to nothing."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(folder, "jmvae-kl", pictures(), rows=250)


def opened(path):
    run = load(path, device="cpu")
    return run, build.dataset(run.experiment, build.registry())


def measured(path, **options):
    run, dataset = opened(path)
    return quality(run, dataset, "test", **options)


@pytest.fixture(scope="module")
def found(path):
    return measured(path)


def way(found, given, target, about):
    key = (tuple(given.split()), target, about)
    (each,) = (m for m in found.measured if (m.given, m.target, m.about) == key)
    return each


def test_answers_stand_beside_classifiers_of_the_same_rows(path, found):
    answer = way(found, "picture", "word", "word")
    assert (answer.sort, answer.measure, answer.encoded) == ("answer", "accuracy", True)
    assert answer.at_mean is answer.real is None
    # The classes lie apart: both classifiers learn to tell them, the run did not.
    assert answer.net.value > 0.85
    assert answer.linear.value > answer.constant + 0.2
    assert answer.run.value < answer.net.value - 0.1
    _, dataset = opened(path)
    words = dataset.splits["test"].load(["word"])["word"]
    assert answer.constant == words.bincount().max().item() / len(words)
    p = answer.run.value
    assert answer.run.error == pytest.approx(math.sqrt(p * (1 - p) / found.rows))


def test_what_the_run_answers_is_what_it_says_of_those_rows(path, found):
    run, dataset = opened(path)
    rows = dataset.splits["test"]
    batches = Batches(rows, run.modalities, device=run.device, batch_size=1000)
    (x,) = batches.epoch(None, 0)
    with torch.no_grad():
        z = run.model.posterior(x.select(["picture"])).mean
        right = run.model.decode(z)["word"].mean.argmax(1) == x["word"].argmax(1)
    answer = way(found, "picture", "word", "word")
    assert answer.run.value == pytest.approx(right.double().mean().item())


def test_what_is_made_up_is_seen_by_a_classifier_as_real_ones_are(found):
    shown = way(found, "word", "picture", "word")
    assert shown.sort == "shown"
    assert shown.net is shown.linear is None
    assert shown.real == way(found, "picture", "word", "word").net.value  # the same net, and rows
    assert shown.at_mean is not None
    assert shown.run.value < shown.real
    nothing = way(found, "", "picture", "word")
    assert (nothing.sort, nothing.constant, nothing.real) == ("nothing", None, shown.real)
    assert (found.split, found.samples, found.rows, found.notes) == ("test", 4, 50, ())


def test_rows_that_lack_something_are_no_part_of_what_baselines_are_asked(tmp_path):
    kinds = pictures()
    kinds["picture"]["likelihood"] = "gaussian"  # of which nothing is drawn
    run, dataset = opened(train(tmp_path / "run", "jmvae-kl", kinds, rows=250))
    rows, names = dataset.splits["test"], run.model.names
    known = readouts({n: run.modalities[n] for n in names}, dataset.splits["train"])
    pairs = [("picture", "word")]
    has = torch.arange(rows.count) % 3 > 0
    stored = rows.load(names)
    blank = torch.zeros_like(stored["picture"])
    holes = {**stored, "picture": torch.where(has[:, None, None, None], stored["picture"], blank)}
    lacking = Split((Batch(holes, {"picture": has}),))

    def rates(split):
        return measuring._baselines(
            run, dataset, split, pairs, known, Recipe(steps=20), lambda _: None
        )

    assert rates(lacking).keys() == rates(rows).keys()
    for key, rate in rates(lacking).items():
        assert rate.value == pytest.approx(rates(rows.where(has))[key].value, abs=1e-6)
    assert rates(Split((Batch(stored, {"picture": has & False}),))) == {}


def test_all_pairs_with_choices_on_one_side_are_measured(tmp_path):
    modalities = pictures(more={"kind": "attributes", "names": ["on", "up"], **NETS})
    found = measured(train(tmp_path / "run", "jmvae-kl", modalities))
    expected = {(g, t) for g in modalities for t in modalities if g != t}
    assert {(m.given[0], m.target) for m in found.measured if m.given} == expected
    assert way(found, "more", "picture", "more").measure == "F1"  # of attributes
    assert [m.about for m in found.measured if not m.given] == ["word", "more"]


def test_it_is_measured_once_and_kept(path, found, monkeypatch):
    text = (path / FILE).read_text()
    monkeypatch.setattr(measuring, "measure", lambda *_: pytest.fail("measured again"))
    assert measured(path) == found
    assert (path / FILE).read_text() == text


@pytest.mark.parametrize("change", ["damaged", "other weights", "hostile"])
def test_what_is_kept_of_another_run_or_damaged_is_measured_anew(path, found, change, tmp_path):
    kept = (path / FILE).read_bytes()
    if change == "damaged":
        (path / FILE).write_bytes(kept[:-40])
    elif change == "hostile":
        values = json.loads(kept)
        values["quality"]["measured"][0]["run"]["value"] = 7
        (path / FILE).write_text(json.dumps(values))
    else:
        (path / FILE).write_text(json.dumps({**json.loads(kept), "key": "0" * 64}))
    assert measured(path) == found
    assert (path / FILE).read_bytes() == kept  # and the same again: it follows from its seed


def test_a_folder_that_cannot_be_written_costs_the_file_alone(path, found, monkeypatch):
    def refuse(*_):
        raise WriteError("no permission")

    (path / FILE).unlink()
    monkeypatch.setattr(measuring, "write", refuse)
    torch.manual_seed(4)
    state = torch.get_rng_state()
    assert measured(path) == found
    assert torch.get_rng_state().equal(state)
    assert not (path / FILE).exists()


def test_dear_nets_are_trained_for_fewer_steps(path, monkeypatch):
    run, dataset = opened(path)
    monkeypatch.setattr(measuring, "TRAINING", 1e6)
    monkeypatch.setattr(measuring, "LOOKING", 1.0)
    monkeypatch.setattr(measuring, "LEAST_STEPS", 3)
    monkeypatch.setattr(measuring, "FEWEST", 20)
    found = measuring.measure(run, dataset, "test")
    assert (found.seen, found.rows) == (3 * 128, 20)


def test_a_conditional_model_is_measured_in_its_direction(tmp_path):
    run = train(tmp_path / "run", "cvae", pictures(), targets=["picture"], given=["word"])
    (only,) = measured(run).measured
    assert (only.given, only.target, only.about) == (("word",), "picture", "word")
    assert only.encoded  # z is from its prior


def test_where_nothing_has_choices_the_page_says_so(tmp_path):
    import toys

    point = {"kind": "numbers", "size": 4}
    run = train(tmp_path / "run", "jmvae-kl", {"a": point, "b": point}, [toys.PLUGIN], rows=40)
    page = report(run, plugin_modules=[toys.PLUGIN])
    assert "quality" not in page.ids
    loaded = load(run, device="cpu", plugin_modules=[toys.PLUGIN])
    found = quality(loaded, build.dataset(loaded.experiment, build.registry([toys.PLUGIN])), "test")
    assert found.measured == ()
    assert found.notes == ("none of a, b has choices that it could be told by",)


def test_the_page_shows_the_numbers_and_what_falls_short(path, found):
    page = report(path)
    answer = way(found, "picture", "word", "word")
    (row,) = (" ".join(r.split()) for r in page.text_in("tr") if r.startswith("picture → word"))
    for rate in (answer.run, answer.net, answer.linear):
        assert f"{100 * rate.value:.0f} %" in row.replace("\u00a0", " ")
    points = round(100 * (max(answer.net.value, answer.linear.value) - answer.run.value))
    assert f"word from picture is {points} points below a plain classifier" in page.text_in("h3")
    assert "Nothing to worry about" not in page.text
    assert any(h.endswith("things to look at") for h in page.text_in("h2"))


# Findings.


def answer(run, net=None, linear=None, error=0.01, given="image", target="label"):
    return Measured(
        given=(given,),
        target=target,
        about=target,
        measure="accuracy",
        run=Rate(run, error),
        at_mean=None,
        constant=0.1,
        linear=None if linear is None else Rate(linear, error),
        net=None if net is None else Rate(net, error),
        real=None,
        encoded=True,
    )


def shown(run, mean=0.99, real=0.98, given=("label",), error=0.005, **other):
    made = Measured(
        given=given,
        target="image",
        about="label",
        measure="accuracy",
        run=Rate(run, error),
        at_mean=None if mean is None else Rate(mean, error),
        constant=0.1 if given else None,
        linear=None,
        net=None,
        real=real,
        encoded=True,
    )
    return replace(made, **other)


def test_an_answer_is_compared_with_the_better_baseline_and_beyond_chance():
    assert below(answer(0.79, net=0.84, linear=0.7)) == pytest.approx(0.05)
    assert below(answer(0.79, net=0.7, linear=0.84)) == pytest.approx(0.05)
    assert below(answer(0.82, net=0.84)) == 0  # nobody would mind
    assert below(answer(0.79, net=0.84, error=0.03)) == 0  # it may be chance
    assert below(answer(0.9, net=0.84)) == 0
    assert below(answer(0.1)) == 0  # there is nothing to compare with


def test_what_is_made_up_is_compared_with_real_ones_that_are_seen():
    assert missed(shown(0.67)) == pytest.approx(0.31)
    assert missed(shown(0.9)) == 0
    assert missed(shown(0.2, real=0.4)) == 0  # a classifier that sees little judges nothing
    assert missed(shown(0.67, error=0.2)) == 0


@pytest.fixture(scope="module")
def advice(path):
    run, _ = opened(path)
    metrics = run_folder.read_metrics(path)
    return Advice(run, build.registry(), terms(run.model), metrics)


def told(advice, *found):
    return of_quality(Quality(found, (), "test", 2000, 4, 128_000), advice)


def named(measured):
    """Puts the fixture's names into what was made up by hand."""
    names = {"image": "picture", "label": "word"}
    return replace(
        measured,
        given=tuple(names[n] for n in measured.given),
        target=names[measured.target],
        about=names[measured.about],
    )


def test_findings_say_how_much_and_what_to_try(advice):
    (one,) = told(advice, named(answer(0.79, net=0.84)))
    assert one.title == "word from picture is 5 points below a plain classifier"
    assert "79\u00a0% of the rows; a small net that reads picture" in one.text
    assert "84\u00a0%" in one.text
    assert one.advice == (
        "Try modalities.word.likelihood_weight=10; or model.prediction=0.3; or train.epochs=2."
    )
    (two,) = told(advice, named(shown(0.67)))
    assert two.title == "A third of the samples of picture from word miss their word"
    assert two.advice.startswith(
        "Try mixtures to draw z from given word, fitted after training, of "
    )
    assert "--resume model.sampling_posterior=fitted; or model.subset_posterior=full." in two.advice
    assert "--temperature 0.6" in two.advice
    (bad,) = told(advice, named(shown(0.35, mean=0.4)))  # samples do not stray: z knows too little
    assert bad.advice.startswith("Try modalities.word.likelihood_weight=10;")
    assert "subset_posterior" not in bad.advice
    (three,) = told(advice, named(shown(0.64, mean=None, given=())))
    assert three.title == "What is made up from nothing agrees in only 64\u00a0%"
    assert "model.sampling_prior=fitted" in three.advice
    assert told(advice, named(answer(0.84, net=0.84)), named(shown(0.95))) == []


def test_one_finding_tells_of_all_that_fall_short_alike(advice):
    worse = replace(named(answer(0.5, net=0.84)), given=("sound",))
    (one,) = told(advice, named(answer(0.7, net=0.84)), worse)
    assert one.title.startswith("word from sound is 34 points")
    assert one.text.endswith("Likewise from picture.")


def test_without_an_encoder_that_is_what_to_try(tmp_path):
    run = load(train(tmp_path / "run", "jmvae", pictures()), device="cpu")
    advice = Advice(run, build.registry(), terms(run.model), [])
    (one,) = told(advice, named(shown(0.67, encoded=False)))
    assert "model.kind=jmvae-kl" in one.advice
    assert "subset_posterior" not in one.advice  # a jmvae has no such setting


def test_settings_are_named_only_where_a_model_can_be_built_with_them(advice, path):
    assert advice.possible(sampling_prior="fitted")
    assert not advice.possible(sampling_prior="prior")  # it has it
    assert not advice.possible(no_such_setting=1)
    assert not advice.possible(subset_posterior="no such family")
    assert not advice.possible(subsets_per_step=1000)  # the model itself refuses


def test_few_units_and_unusual_rows_are_told():
    assert [f.title for f in of_units({"z": 7}, 64)] == ["7 of 64 dimensions of z are used"]
    assert of_units({"z": 0, "z2": 16}, 64) == []
    found = of_rows({"image": 0.09, "label": 0.02}, "test")
    assert [f.title for f in found] == ["9\u00a0% of image in test are unlike those trained on"]
