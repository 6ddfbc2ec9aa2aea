import csv
import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.distributions import Independent, Normal
from toys import CPU, ONE_WAY, Grid, Numbers, Word, on_gpu, toy_model

from mmgen.data.store import Dataset, Split, ensure_absent, read_dataset, write_dataset
from mmgen.errors import ConfigError, DataError, PluginError, WriteError
from mmgen.evaluation.coherence import classifier as judging
from mmgen.evaluation.coherence.classifier import Recipe, classifier
from mmgen.evaluation.coherence.coherence import Coherence, coherence
from mmgen.evaluation.coherence.readout import readouts
from mmgen.evaluation.coherence.scores import scores
from mmgen.evaluation.coherence.tables import (
    coherence_csv,
    coherence_json,
    coherence_markdown,
    coherence_table,
    save_coherence,
)
from mmgen.evaluation.directions import Direction
from mmgen.latent.base import Latent
from mmgen.model import Model, ModelSettings
from mmgen.nets.unflattened import unflattened
from mmgen_attributes import Attributes
from mmgen_label import Label

CLASSES = 5
LABEL = Label(classes=("zero", "one", "two", "three", "four"))
BITS = Attributes(names=("fours", "twos", "ones"))


class Coloured(Grid):
    """A grid of eight by eight pixels, large enough for one convolution."""

    side: int = 8


THREE = {"picture": Coloured(), "label": LABEL, "bits": BITS}


class Number(Latent):
    """The number that was given, or with probability ``flip`` the next one; its mean is itself."""

    def __init__(self, number, flip):
        self.number, self.flip = number, flip
        super().__init__(number.shape, (1,), "q(z | x)")

    @property
    def mean(self):
        return self.number.unsqueeze(-1).float()

    def rsample(self, sample_shape=()):
        z = self.number.expand(*sample_shape, -1)
        z = torch.where(torch.rand(z.shape) < self.flip, (z + 1) % CLASSES, z)
        return z.unsqueeze(-1).float()

    def tempered(self, temperature):
        return self

    def log_prob(self, value):
        raise NotImplementedError


class Scripted(Model):
    """Knows the number that it was given, and shows the next one with probability ``flip``.

    z is that number; what ``blind`` shows is always 0.
    """

    kind = "scripted"

    def __init__(self, modalities, flip=0.0, blind=False):
        super().__init__(modalities, ModelSettings(latent=1))
        self.flip, self.blind = flip, blind

    def posterior(self, x):
        if "label" in x:
            number = x["label"].argmax(1)
        elif "bits" in x:
            number = (x["bits"] > 0.5).long() @ torch.tensor([4, 2, 1])
        else:
            pixels = x["picture"].flatten(1)
            lit = torch.arange(64) % CLASSES == torch.arange(CLASSES).unsqueeze(1)
            number = (pixels @ lit.T.float()).argmax(1)
        return Number(number, self.flip)

    def decode(self, z, given=None, names=None):
        number = z[..., 0].long() * (not self.blind)
        flat = number.flatten()
        stored = {"label": flat, "bits": bits_of(flat), "picture": bright(flat)}
        means = {
            "label": 0.1 + 0.5 * LABEL.observe(stored["label"]),
            "bits": 0.2 + 0.5 * stored["bits"].float(),
            "picture": stored["picture"].float() / 255,
        }
        return {n: unflattened(point(means[n]), number.shape) for n in names or self.names}

    def prior(self, given):
        raise NotImplementedError

    objective = prior


def point(mean):
    return Independent(Normal(mean, torch.ones_like(mean)), mean.dim() - 1)


def bits_of(number):
    return (number.unsqueeze(1) // torch.tensor([4, 2, 1]) % 2).to(torch.uint8)


def bright(number):
    return Coloured().example(number, torch.Generator())


def split_of(rows, seed):
    number = torch.randint(CLASSES, (rows,), generator=torch.Generator().manual_seed(seed))
    return {"picture": bright(number), "label": number, "bits": bits_of(number)}


def in_memory(modalities, **splits):
    return Dataset(
        path=Path("nowhere"),
        name="made up",
        about="",
        modalities={n: m.to_config() for n, m in modalities.items()},
        splits={n: Split((values,)) for n, values in splits.items()},
        hash="of the test",
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The data set of three on disk, whose classifiers are trained by the first test."""
    path = tmp_path_factory.mktemp("data") / "three"
    settings = {n: m.to_config() for n, m in THREE.items()}
    splits = {"train": split_of(400, 1), "test": split_of(300, 2)}
    return write_dataset(path, name="three", about="", modalities=settings, splits=splits)


def scripted(**settings):
    return Scripted(THREE, **settings).eval()


def only(found: Coherence, given, target, about, measure="accuracy", z="mean"):
    key = (tuple(given.split("+")), target, about, measure, z)
    (row,) = (r for r in found.rows if (r.given, r.target, r.about, r.measure, r.z) == key)
    return row


def test_a_perfect_model_is_always_right(kept):
    found = coherence(scripted(), kept, kept.splits["test"], samples=3)
    assert found.notes == ()
    for row in found.rows:
        seen_by_classifier = row.target == "picture"
        assert row.value >= (0.99 if seen_by_classifier else 1), row
        assert (row.ceiling is None) == (not seen_by_classifier)
        assert row.ceiling is None or row.ceiling >= 0.95
        assert row.rows == 300


def test_all_directions_are_measured_and_compared_with_what_was_given(kept):
    found = coherence(scripted(), kept, kept.splits["test"], samples=1)
    looks = {("+".join(r.given), r.target, r.about) for r in found.rows}
    assert looks == {
        ("picture", "label", "label"),
        ("bits", "label", "label"),
        ("picture+bits", "label", "label"),
        ("picture", "bits", "bits"),
        ("label", "bits", "bits"),
        ("picture+label", "bits", "bits"),
        ("label", "picture", "label"),
        ("bits", "picture", "bits"),
        ("label+bits", "picture", "label"),
        ("label+bits", "picture", "bits"),
    }
    measures = {(r.about, r.measure) for r in found.rows}
    assert measures == {("label", "accuracy"), ("bits", "accuracy"), ("bits", "F1")}
    assert {r.z for r in found.rows} == {"mean", "sampled"}


def test_a_decoder_that_ignores_z_scores_its_base_rate(kept):
    found = coherence(scripted(blind=True), kept, kept.splits["test"], samples=2)
    zeros = (kept.splits["test"].load(["label"])["label"] == 0).double().mean().item()
    for z in ("mean", "sampled"):
        for given, target in (("bits", "label"), ("picture", "label"), ("label", "picture")):
            assert only(found, given, target, "label", z=z).value == pytest.approx(zeros)
        assert only(found, "label", "bits", "bits", "F1", z).value == 0  # nothing is ever on
    commonest = kept.splits["test"].load(["label"])["label"].bincount().max().item() / 300
    assert only(found, "bits", "label", "label").baseline == pytest.approx(commonest)


class AnyNumber(Latent):
    """Each of the numbers is as likely as another."""

    def __init__(self):
        super().__init__((), (1,), "p(z)")

    def rsample(self, sample_shape=()):
        return torch.randint(CLASSES, (*sample_shape, 1)).float()

    mean = tempered = log_prob = None


class Torn(Scripted):
    """From nothing, its picture is of the next number with probability ``tear``."""

    def prior(self, given):
        return AnyNumber()

    def decode(self, z, given=None, names=None):
        torn = torch.where(torch.rand(z.shape) < self.tear, (z + 1) % CLASSES, z)
        shown = super().decode(z, given, names)
        return shown | ({"picture": super().decode(torn)["picture"]} if "picture" in shown else {})


@pytest.mark.parametrize("tear", [0.0, 0.25])
def test_what_is_generated_from_nothing_agrees_unless_it_is_torn(kept, tear):
    model = Torn(THREE).eval()
    model.tear = tear
    one = [Direction(("label",), ("bits",))]
    found = coherence(model, kept, kept.splits["test"], one, from_nothing=True, samples=4)
    label, bits = (r for r in found.rows if not r.given)
    assert [(r.target, r.about, r.z) for r in (label, bits)] == [
        ("picture", "label", "sampled"),
        ("picture", "bits", "sampled"),
    ]
    assert (label.rows, label.baseline, label.ceiling) == (1200, None, 1)
    assert abs(label.value - (1 - tear)) <= 3 * label.error
    assert label.error == pytest.approx(math.sqrt(tear * (1 - tear) / 1200), rel=0.1)
    # Of three bits, the next number has (1 + 2 + 1 + 3 + 1) / 5 others.
    assert abs(bits.value - (1 - tear * 8 / 15)) <= 3 * bits.error
    written = coherence_csv(found).splitlines()[-2]
    assert written.startswith(",picture,label,accuracy,sampled,")
    assert ",,1.0," in written  # no constant answer is right, real rows agree
    assert "| nothing | picture | label, seen | accuracy | – | – |" in coherence_markdown(found)


@pytest.mark.parametrize("flip", [0.1, 0.35])
def test_flipped_with_probability_p_is_right_with_1_less_p(kept, flip):
    found = coherence(scripted(flip=flip), kept, kept.splits["test"], samples=20)
    for given, target in (("bits", "label"), ("picture", "label"), ("label", "picture")):
        assert only(found, given, target, "label").value == 1
        row = only(found, given, target, "label", z="sampled")
        assert abs(row.value - (1 - flip)) < 3 * row.error
        assert row.error == pytest.approx(math.sqrt(flip * (1 - flip) / (300 * 20)), rel=0.15)


def test_samples_of_one_row_do_not_count_as_rows():
    truth = torch.zeros(100, dtype=torch.long)
    right = torch.arange(100) < 80
    seen = torch.where(right, 0, 1).expand(50, -1)  # fifty times the same
    (score,) = scores(truth, seen)
    assert score.value == pytest.approx(0.8)
    assert score.error == pytest.approx(math.sqrt(0.8 * 0.2 / 100))


def test_f1_is_what_one_computes_by_hand():
    truth = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]]).bool()
    seen = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 0]]).bool()
    accuracy, f1 = scores(truth, seen[None])
    # First: TP 2, FP 1, FN 1. Second: TP 1, FP 1, FN 0. The third never occurs.
    assert f1.value == pytest.approx((4 / 6 + 2 / 3) / 2)
    assert accuracy.value == pytest.approx(8 / 12)
    # Always on: TP 3, FP 1 and TP 1, FP 3. The commonest: on, off, off.
    assert f1.baseline == pytest.approx((6 / 7 + 2 / 5) / 2)
    assert accuracy.baseline == pytest.approx((3 / 4 + 3 / 4 + 1) / 3)


def test_f1_of_samples_counts_them_all():
    truth = torch.tensor([[True], [False]])
    seen = torch.tensor([[[True], [True]], [[False], [True]]])  # TP 1, FN 1, FP 2
    (_, f1) = scores(truth, seen)
    assert f1.value == pytest.approx(2 / (2 + 3))


def test_there_is_no_f1_of_attributes_that_never_occur():
    truth = torch.zeros(5, 2, dtype=torch.bool)
    (accuracy,) = scores(truth, truth[None])
    assert (accuracy.measure, accuracy.value, accuracy.error) == ("accuracy", 1, 0)


def test_the_error_of_f1_is_how_much_it_varies_between_samples_of_rows():
    stream = torch.Generator().manual_seed(0)

    def draw(rows):
        truth = torch.rand(rows, 3, generator=stream) < torch.tensor([0.1, 0.4, 0.7])
        return truth, (truth ^ (torch.rand(rows, 3, generator=stream) < 0.2))[None]

    drawn = [scores(*draw(400))[1] for _ in range(150)]
    deviation = torch.tensor([score.value for score in drawn]).std().item()
    told = sum(score.error for score in drawn) / len(drawn)
    assert told == pytest.approx(deviation, rel=0.2)
    assert drawn[0] != drawn[1]


def test_the_bootstrap_is_the_same_in_blocks(monkeypatch):
    truth = torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    whole = scores(truth, truth.roll(1, 0)[None], seed=3)
    monkeypatch.setattr("mmgen.evaluation.coherence.scores.BLOCK", 7 * 50)
    assert scores(truth, truth.roll(1, 0)[None], seed=3) == whole
    assert scores(truth, truth.roll(1, 0)[None], seed=4) != whole


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_classes_and_switches_are_told_apart_by_what_rows_show(likelihood):
    bits = Attributes(names=BITS.names, likelihood=likelihood)
    found = readouts({**THREE, "bits": bits}, Split((split_of(50, 3),)))
    assert {n: r.sort for n, r in found.items()} == {"label": "multiclass", "bits": "multilabel"}
    stored = torch.tensor([[1, 0, 1], [0, 0, 0]], dtype=torch.uint8)
    assert found["bits"].read(bits.observe(stored)).equal(stored.bool())
    assert found["bits"].read(0.4 * bits.observe(stored)[:1]).tolist() == (
        [[False] * 3] if likelihood == "bernoulli" else [[True, False, True]]
    )
    assert found["label"].read(torch.tensor([[0.1, 0.2, 0.3, 0.25, 0.15]])).tolist() == [2]


def test_one_switch_is_a_switch():
    one = Attributes(names=("smiling",))
    stored = {"one": torch.tensor([[1], [0], [1]], dtype=torch.uint8)}
    readout = readouts({"one": one}, Split((stored,)))["one"]
    assert readout.sort == "multilabel"
    assert readout.read(torch.tensor([[0.7], [0.3]])).tolist() == [[True], [False]]


def test_what_never_varies_or_has_too_many_choices_is_not_read(monkeypatch):
    always = {"one": torch.ones(4, 1, dtype=torch.uint8)}
    assert readouts({"one": Attributes(names=("smiling",))}, Split((always,))) == {}
    monkeypatch.setattr("mmgen.evaluation.coherence.readout.MOST", 4)
    assert set(readouts(THREE, Split((split_of(20, 0),)))) == {"bits"}


def test_a_kind_with_choices_that_it_cannot_read_is_named():
    class Boastful(Numbers):
        def choices(self):
            return ["high"]

    rows = Split(({"a": torch.zeros(3, 3)},))
    with pytest.raises(PluginError, match="a: kind 'numbers' lists choices that it cannot read"):
        readouts({"a": Boastful()}, rows)


def test_choices_of_measurements_are_no_classes():
    class Tempting(Numbers):
        def choices(self):
            return ["0,0,0", "1,1,1"]

    rows = Split(({"a": torch.randn(30, 3, generator=torch.Generator().manual_seed(0))},))
    assert readouts({"a": Tempting()}, rows) == {}


def files(dataset):
    return sorted(dataset.path.glob("classifier-*"))


def copied(kept, path):
    """Writes the same data set at another place, without classifiers."""
    splits = {n: split.load() for n, split in kept.splits.items()}
    return write_dataset(path, name="three", about="", modalities=kept.modalities, splits=splits)


def judge(dataset, modalities=None, **settings):
    modalities = modalities or THREE
    readout = readouts(modalities, dataset.splits["train"])["label"]
    said: list[str] = []
    chosen = (modalities, "picture", "label", readout, CPU)
    found = classifier(dataset, *chosen, recipe=Recipe(steps=60), say=said.append, **settings)
    return found, said


@pytest.fixture(scope="module")
def trained_file(kept, tmp_path_factory):
    """Name and content of a classifier's file, to be damaged."""
    dataset = copied(kept, tmp_path_factory.mktemp("trained") / "three")
    judge(dataset)
    (file,) = files(dataset)
    return file.name, file.read_bytes()


def test_a_classifier_is_trained_once_and_kept(kept, tmp_path):
    dataset = copied(kept, tmp_path / "three")
    first, said = judge(dataset)
    assert said == ["training a classifier of label in picture"]
    assert first.accuracy is not None
    assert first.accuracy > 0.95
    (file,) = files(dataset)
    assert len(file.stem.removeprefix("classifier-picture-label-")) == 8
    before = file.stat().st_mtime_ns, file.read_bytes()
    second, said = judge(dataset)
    assert (said, second.notes, second.accuracy) == ([], [], first.accuracy)
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before
    x = torch.rand(20, 1, 8, 8)
    assert second.net(x).equal(first.net(x))
    dataset.verify()
    ensure_absent(dataset.path, force=True)
    assert read_dataset(dataset.path).hash == dataset.hash


def test_training_gives_the_same_weights_and_spares_random_state(kept, trained_file, tmp_path):
    dataset = copied(kept, tmp_path / "three")
    name, content = trained_file
    torch.manual_seed(17)
    state = torch.get_rng_state()
    with torch.no_grad():
        judge(dataset)
        assert not torch.is_grad_enabled()
    assert (dataset.path / name).read_bytes() == content
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("damage", ["cut", "empty", "words", "header", "shape"])
def test_a_damaged_classifier_is_trained_anew_with_a_note(kept, trained_file, tmp_path, damage):
    dataset = copied(kept, tmp_path / "three")
    name, content = trained_file
    file = dataset.path / name
    if damage == "shape":
        broken = content.replace(b'"1.weight"', b'"7.weight"')
    elif damage == "header":
        broken = content.replace(dataset.hash.encode(), b"0" * len(dataset.hash))
    else:
        broken = {"cut": content[:-50], "empty": b"", "words": b"no tensors"}[damage]
    assert broken != content
    file.write_bytes(broken)
    again, said = judge(dataset)
    assert len(said) == 1
    assert len(again.notes) == 1
    assert f"{file} was damaged" in again.notes[0]
    assert again.notes[0].endswith("and is trained anew")
    assert file.read_bytes() == content
    assert judge(dataset)[1] == []


def test_the_classifier_of_other_data_is_left_alone(kept, tmp_path):
    dataset = copied(kept, tmp_path / "three")
    judge(dataset)
    (file,) = files(dataset)
    splits = {"train": split_of(400, 5), "test": split_of(100, 6)}
    other = write_dataset(
        tmp_path / "other", name="", about="", modalities=kept.modalities, splits=splits
    )
    copy = other.path / file.name
    copy.write_bytes(file.read_bytes())
    _, said = judge(other)
    assert len(said) == 1
    assert len(files(other)) == 2
    assert copy.read_bytes() == file.read_bytes()


def test_runs_whose_nets_differ_share_a_classifier_unless_they_observe_otherwise(kept, tmp_path):
    class Wider(Coloured):
        def encoder(self):
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 9))

    class Inverted(Coloured):
        def observe(self, stored, generator=None):
            return 1 - super().observe(stored, generator)

    dataset = copied(kept, tmp_path / "three")
    judge(dataset)
    assert judge(dataset, {**THREE, "picture": Wider()})[1] == []
    assert len(judge(dataset, {**THREE, "picture": Inverted()})[1]) == 1
    assert len(files(dataset)) == 2


def test_a_folder_that_cannot_be_written_costs_the_file_alone(kept, tmp_path, monkeypatch):
    def refuse(path, *_):
        raise WriteError(f"{path}: cannot be written: no permission. Nothing was changed")

    dataset = copied(kept, tmp_path / "three")
    monkeypatch.setattr(judging, "write_tensors", refuse)
    found, _ = judge(dataset)
    assert found.accuracy is not None
    assert found.accuracy > 0.95
    assert files(dataset) == []
    assert len(found.notes) == 1
    assert "the classifier of label in picture is not kept" in found.notes[0]
    assert "no permission" in found.notes[0]


def test_data_in_memory_has_classifiers_in_memory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    dataset = in_memory(THREE, train=split_of(300, 1), test=split_of(50, 2))
    found = coherence(scripted(), dataset, dataset.splits["test"], samples=0)
    assert only(found, "label", "picture", "label").value == 1
    assert found.notes == ()
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_no_picture_is_seen_through_its_own_encoder():
    cloud = {"point": Numbers(size=2), "label": LABEL}
    net = judging.network(cloud["point"], 5)
    assert str(net[0]) == str(cloud["point"].encoder())
    assert [type(m).__name__ for m in judging.network(Grid(side=28), 5)[0]][:4] == [
        *("Conv2d", "ReLU"),
        *("Conv2d", "BatchNorm2d"),
    ]
    number = split_of(600, 4)["label"]
    angles = 2 * math.pi * number / CLASSES
    stored = {"label": number, "point": 3 * torch.stack([angles.cos(), angles.sin()], 1)}
    dataset = in_memory(cloud, train=stored)
    model = toy_model("jmvae-kl", {"point": cloud["point"], "label": Word(words=LABEL.classes)})
    model.modalities = cloud
    found = coherence(model.eval(), dataset, dataset.splits["train"], samples=1)
    row = only(found, "label", "point", "label")
    assert row.ceiling is not None
    assert row.ceiling > 0.99


def test_nothing_with_choices_is_an_empty_result_and_a_note():
    modalities = {"a": Numbers(), "b": Numbers(size=2)}
    rows = {"a": torch.zeros(4, 3), "b": torch.zeros(4, 2)}
    dataset = in_memory(modalities, train=rows, test=rows)
    found = coherence(toy_model("jmvae-kl", modalities).eval(), dataset, dataset.splits["test"])
    assert found.rows == ()
    (note,) = found.notes
    assert note.startswith("nothing can be recognised: none of a, b has choices")
    assert coherence_csv(found).count("\n") == 1
    assert note in coherence_markdown(found)


def test_directions_without_choices_on_either_side_are_named():
    modalities = {"a": Numbers(), "b": Numbers(size=2), "label": LABEL}
    rows = {"a": torch.zeros(6, 3), "b": torch.zeros(6, 2), "label": torch.arange(6) % 5}
    dataset = in_memory(modalities, train=rows)
    model = toy_model("jmvae-kl", modalities).eval()
    found = coherence(model, dataset, dataset.splits["train"], samples=1)
    (note,) = found.notes
    assert note.endswith("has choices: a from b; b from a")
    assert ("label",) in {r.given for r in found.rows}


def test_without_a_training_split_what_can_be_read_is_still_measured():
    dataset = in_memory(THREE, test=split_of(60, 2))
    found = coherence(scripted(), dataset, dataset.splits["test"], samples=1)
    assert {r.target for r in found.rows} == {"label", "bits"}
    assert found.notes == ("the data set has no split 'train' to train classifiers on",)


@pytest.mark.parametrize("kind", ONE_WAY)
def test_models_of_one_direction_are_measured_in_it(kept, kind):
    model = toy_model(kind, THREE, targets=("label", "picture"), given=("bits",)).eval()
    found = coherence(model, kept, kept.splits["test"], samples=2)
    looks = {(r.given, r.target, r.about) for r in found.rows}
    assert looks == {(("bits",), "label", "label"), (("bits",), "picture", "bits")}


@pytest.mark.parametrize("kind", ["jmvae", "hierarchical"])
def test_subsets_without_an_encoder_iterate(kind):
    modalities = {"label": LABEL, "bits": BITS, "point": Numbers()}
    values = split_of(40, 2)
    rows = {"label": values["label"], "bits": values["bits"], "point": torch.zeros(40, 3)}
    dataset = in_memory(modalities, train=rows)
    model = toy_model(kind, modalities).eval()
    directions = [Direction(("label",), ("bits", "point"))]
    found = coherence(model, dataset, dataset.splits["train"], directions, samples=2, iterations=2)
    assert [(r.target, r.z, r.rows) for r in found.rows] == [
        ("label", "mean", 40),
        ("label", "sampled", 40),
    ]


def test_five_modalities_have_their_seventy_five_directions():
    more = {"side": Label(classes=("left", "right")), "point": Numbers(), "wave": Numbers(size=2)}
    modalities = {"label": LABEL, "bits": BITS, **more}
    number = split_of(30, 1)["label"]
    rows = {"label": number, "bits": bits_of(number), "side": number % 2}
    rows |= {"point": torch.zeros(30, 3), "wave": torch.zeros(30, 2)}
    dataset = in_memory(modalities, train=rows)
    model = toy_model("jmvae-kl", modalities).eval()
    found = coherence(model, dataset, dataset.splits["train"], samples=0)
    directions = {(r.given, r.target) for r in found.rows}
    # Of 5 · 15, those without choices on either side: point from wave, wave from point.
    assert len(directions) == 75 - 2
    assert sum(r.given == ("label", "bits", "side", "point") for r in found.rows) == 1 + 2 + 1


def test_numbers_depend_on_the_seed_alone(kept):
    def measure(**settings):
        torch.rand(3)  # a random state of its own, each time
        before = torch.get_rng_state()
        rows = coherence(model, kept, kept.splits["test"], samples=2, **settings).rows
        assert torch.get_rng_state().equal(before)
        return rows

    model = scripted(flip=0.3)
    first = measure()
    assert measure() == first
    assert measure(chunk=37) == first
    assert measure(seed=1) != first
    one = Direction(("label",), ("bits",))
    alone = measure(directions=[one])
    assert alone == tuple(r for r in first if (r.given, r.target) == (("bits",), "label"))


@on_gpu
def test_a_model_on_a_gpu_is_measured_there(kept):
    gpu = torch.device("cuda", 0)
    model = toy_model("jmvae-kl", THREE).eval().to(gpu)
    rows = kept.splits["test"]
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state(gpu)
    found = coherence(model, kept, rows, samples=2)
    assert torch.cuda.get_rng_state(gpu).equal(before)
    again = coherence(model, kept, rows, samples=2)
    assert [(r.given, r.target, r.about) for r in again.rows] == [
        (r.given, r.target, r.about) for r in found.rows
    ]
    assert all(r.ceiling is None or r.ceiling > 0.95 for r in found.rows)


def test_rows_that_lack_a_modality_are_an_error(kept):
    rows = Split(({"label": torch.arange(5)},))
    with pytest.raises(DataError, match="no modality 'picture'"):
        coherence(scripted(), kept, rows)


def test_progress_is_told_block_by_block(kept):
    done: list[int] = []
    rows = Split((kept.splits["test"].take(torch.arange(250)),))
    coherence(scripted(), kept, rows, samples=1, done=done.append)
    assert done == [100, 200, 250]


@pytest.fixture(scope="module")
def found(kept):
    return coherence(scripted(flip=0.2), kept, kept.splits["test"], samples=2)


def test_tables_hold_the_same_numbers(found):
    row = only(found, "label+bits", "picture", "bits", "F1", "sampled")
    records = json.loads(coherence_json(found, {"run": "runs/three"}))
    assert (records["run"], records["samples"]) == ("runs/three", 2)
    assert len(records["rows"]) == len(found.rows)
    (record,) = (
        r
        for r in records["rows"]
        if (r["given"], r["target"], r["about"], r["measure"], r["z"])
        == (["label", "bits"], "picture", "bits", "F1", "sampled")
    )
    assert (record["value"], record["ceiling"]) == (row.value, row.ceiling)
    lines = list(csv.DictReader(StringIO(coherence_csv(found))))
    assert [float(line["value"]) for line in lines] == [r.value for r in found.rows]
    assert [line["ceiling"] == "" for line in lines] == [r.ceiling is None for r in found.rows]
    (line,) = (
        text
        for text in coherence_markdown(found, "runs/three").splitlines()
        if text.startswith("| label + bits | picture | bits, seen | F1 |")
    )
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    mean = only(found, "label+bits", "picture", "bits", "F1")
    expected = (mean.value, mean.error, row.value, row.error, row.baseline, row.ceiling)
    assert cells[4:] == [f"{100 * value:.1f}" for value in expected]


def test_a_table_of_the_terminal_shows_all_lines(found):
    console = Console(width=120, record=True, file=StringIO())
    console.print(coherence_table(found, "runs/three").rich())
    text = console.export_text()
    assert "runs/three" in text
    assert text.count(", seen") == 2 + 2 * 2
    assert text.count("100.0") >= 7
    without = replace(found, rows=tuple(r for r in found.rows if r.z == "mean"))
    assert "–" in coherence_markdown(without)


def test_tables_are_saved_by_suffix(found, tmp_path):
    for suffix, text in ((".md", coherence_markdown(found)), (".csv", coherence_csv(found))):
        assert save_coherence(found, tmp_path / f"table{suffix}").read_text() == text
    assert json.loads(save_coherence(found, tmp_path / "table.json", "me").read_text())["about"]
    with pytest.raises(ConfigError, match=r"\.md, \.csv, \.json"):
        save_coherence(found, tmp_path / "table.png")
