"""Agreement, whoever judges: a model whose every answer is known, and the Fréchet distance."""

import csv
import itertools
import json
import math
from io import StringIO

import pytest
import torch
from conftest import small
from rich.console import Console
from test_coherence import BITS, CLASSES, LABEL, THREE, Scripted, bits_of, in_memory, split_of
from toys import ONE_WAY, Numbers, toy_model

from mmgen.data.store import write_dataset
from mmgen.errors import ConfigError, DataError
from mmgen.evaluation.coherence.agreement import Agreement, agreement, given_sets
from mmgen.evaluation.coherence.agreement_tables import (
    agreement_csv,
    agreement_json,
    agreement_markdown,
    agreement_table,
    save_agreement,
)
from mmgen.evaluation.coherence.frechet import (
    Sums,
    frechet_distance,
    frechet_with_error,
    grouped,
    moments,
)
from mmgen.latent.base import Latent
from mmgen_label import Label


class Drawn(Latent):
    """A number drawn evenly, the prior of the scripted model."""

    def __init__(self):
        super().__init__((), (1,), "p(z)")

    @property
    def mean(self):
        return torch.zeros(1)

    def rsample(self, sample_shape=()):
        return torch.randint(CLASSES, (*sample_shape, 1)).float()

    def tempered(self, temperature):
        return self

    def log_prob(self, value):
        raise NotImplementedError


class Wilful(Scripted):
    """Shows the number that it was given, but what is named in ``wrong``, with probability p each.

    z holds the number and, by its fraction, which modalities show the next one.
    """

    def __init__(self, modalities=THREE, wrong=(), p=0.0, **settings):
        super().__init__(modalities, **settings)
        self.wrong, self.p = wrong, p
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def prior(self, given):
        return Drawn()

    def decode(self, z, given=None, names=None):
        p = {}
        for name in names or self.names:
            slip = (torch.rand(z.shape) < self.p) if name in self.wrong else torch.zeros(z.shape)
            p |= super().decode((z + slip) % CLASSES, given, [name])
        return p


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A data set on disk, beside which the classifiers are kept by the first test."""
    path = tmp_path_factory.mktemp("data") / "three"
    settings = {n: m.to_config() for n, m in THREE.items()}
    splits = {"train": split_of(400, 1), "test": split_of(300, 2)}
    return write_dataset(path, name="three", about="", modalities=settings, splits=splits)


def asked(model, dataset, judge="label", about=LABEL, **settings):
    settings = {"samples": 2, **settings}
    return agreement(model.eval(), dataset, dataset.splits["test"], judge, about, **settings)


def one(found: Agreement, question, given="", targets=None, about="", number=None):
    (finding,) = (
        f
        for f in found.findings
        if (f.question, "+".join(f.given), f.about) == (question, given, about)
        and targets in (None, "+".join(f.targets))
        and number in (None, f.number)
    )
    return finding


def test_who_is_always_right_agrees_in_everything(kept):
    found = asked(Wilful(), kept)
    shares = [f for f in found.findings if f.question != "Fréchet"]
    for f in shares:
        if f.question == "from nothing" and f.about:
            assert abs(f.value - 1 / CLASSES) < 4 * math.sqrt(0.16 / 600)
        else:
            assert f.value > 0.98, f
    assert {f.question for f in shares} == {
        *("one to one", "one to many, agree", "one to many, right"),
        *("n given", "from nothing"),
    }
    assert (found.rows, found.samples) == (300, 2)


def test_what_shows_another_number_with_probability_p_is_right_with_1_less_p(kept):
    p = 0.3
    found = asked(Wilful(wrong=("bits",), p=p), kept, samples=10)

    def near(finding, expected):
        error = math.sqrt(expected * (1 - expected) / 3000)
        assert abs(finding.value - expected) < 4 * error + 0.01, finding  # classifiers err, too
        assert finding.error == pytest.approx(error, rel=0.25, abs=1e-3)

    near(one(found, "one to one", "label", "bits"), 1 - p)
    assert one(found, "one to one", "label", "picture").value > 0.98
    # Given the picture, bits and label are generated: the label is right, so both agree if bits do.
    near(one(found, "one to many, agree", "picture"), 1 - p)
    near(one(found, "one to many, right", "picture"), 1 - p)
    # Given bits alone, what is generated is not wrong.
    assert one(found, "one to many, right", "bits").value > 0.98
    near(one(found, "from nothing"), 1 - p)
    # One given: of picture, bits and label are right by 1 − p and 1; of bits, both by 1.
    assert one(found, "n given", "picture").value == pytest.approx(1 - p / 2, abs=0.03)
    mean = one(found, "n given", "", "", number=1)
    assert mean.value == pytest.approx(1 - p / 4, abs=0.03)
    assert one(found, "n given", "picture+bits").targets == ("label",)


def test_two_that_are_wrong_alike_agree_and_are_not_right(kept):
    """z itself is another number with probability ½: all that is generated of it agrees."""
    found = asked(Wilful(flip=0.5), kept, samples=10)
    for given in ("label", "picture", "bits"):
        assert one(found, "one to many, agree", given).value > 0.98
        right = one(found, "one to many, right", given)
        assert abs(right.value - 0.5) < 5 * right.error


def test_two_that_are_wrong_by_chance_agree_by_the_product(kept):
    p = 0.4
    found = asked(Wilful(wrong=("label", "bits"), p=p), kept, samples=10)
    both = (1 - p) ** 2 + p**2  # both right, or both show the next one
    agree, right = (one(found, f"one to many, {w}", "picture") for w in ("agree", "right"))
    assert agree.value == pytest.approx(both, abs=0.04)
    assert right.value == pytest.approx((1 - p) ** 2, abs=0.04)
    assert one(found, "from nothing").value == pytest.approx((1 - p) ** 2, abs=0.04)


def test_classes_are_told_one_by_one(kept):
    class NoTwo(Wilful):
        """Shows 3 where it is to show 2, in bits alone."""

        def decode(self, z, given=None, names=None):
            p = super().decode(z, given, names)
            if "bits" in p:
                p |= super().decode(torch.where(z == 2, 3, z), given, ["bits"])
            return p

    found = asked(NoTwo(), kept)
    for about in LABEL.classes:
        wrong = about == "two"
        pair = one(found, "one to one", "label", "bits", about)
        assert pair.value == (0 if wrong else 1)
        assert pair.error == 0
        assert pair.rows == (kept.splits["test"].load(["label"])["label"] == pair_of(about)).sum()
        joint = one(found, "from nothing", about=about)
        assert joint.value == 0 if wrong else joint.value > 0.12
    each = [one(found, "from nothing", about=about).value for about in LABEL.classes]
    assert sum(each) == pytest.approx(one(found, "from nothing").value)


def pair_of(about):
    return LABEL.classes.index(about)


def test_ceilings_are_of_real_rows_and_constants_of_the_commonest(kept):
    found = asked(Wilful(), kept)
    label = kept.splits["test"].load(["label"])["label"]
    pair = one(found, "one to one", "bits", "picture")
    assert pair.baseline == pytest.approx(label.bincount().max().item() / 300)
    assert pair.ceiling is not None
    assert pair.ceiling > 0.95
    assert one(found, "one to one", "bits", "label").ceiling is None
    joint = one(found, "from nothing")
    assert joint.baseline is None
    assert joint.ceiling == pytest.approx(pair.ceiling, abs=0.02)  # bits are told without fail


def test_attributes_judge_each_by_itself(kept):
    found = asked(Wilful(wrong=("label",), p=0.5), kept, "bits", BITS)
    pair = one(found, "one to one", "picture", "label")
    each = [one(found, "one to one", "picture", "label", name) for name in BITS.names]
    assert pair.value == pytest.approx(sum(f.value for f in each) / 3)
    # From n to n + 1 modulo 5, "ones" changes but from 4 to 0; "fours" of 3 and 4 alone.
    label = kept.splits["test"].load(["label"])["label"]
    changed = (bits_of(label) != bits_of((label + 1) % CLASSES)).double().mean(0)
    for finding, share in zip(each, changed.tolist(), strict=True):
        assert finding.value == pytest.approx(1 - share / 2, abs=0.05)
    on = bits_of(label).double().mean(0)
    assert each[0].baseline == pytest.approx(max(on[0], 1 - on[0]).item())
    assert one(found, "from nothing", about="ones").value < 0.75


def test_a_judge_may_be_of_the_data_set_alone(kept):
    modalities = {n: m for n, m in THREE.items() if n != "label"}
    found = asked(Wilful(modalities), kept)
    assert one(found, "one to one", "picture", "bits").value == 1
    assert one(found, "from nothing").targets == ("picture", "bits")
    assert {f.number for f in found.findings if f.question == "n given"} == {1}
    assert all("label" not in (*f.given, *f.targets) for f in found.findings)


def test_sets_of_many_modalities_are_drawn_by_the_seed():
    modalities = {"label": LABEL} | {f"n{i}": Numbers() for i in range(7)}
    model = toy_model("jmvae", modalities)
    asked_of, (note,) = given_sets(model, "label", 3, seed=0)
    assert note == "of 127 sets of given modalities, 19 were drawn"
    sizes = sorted(map(len, asked_of.counted))
    assert sizes == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7]
    assert {S for S in asked_of.sets if len(S) <= 1} == {(), *((n,) for n in modalities)}
    assert not any("label" in S for S in asked_of.counted)
    assert given_sets(model, "label", 3, seed=0)[0] == asked_of
    assert given_sets(model, "label", 3, seed=1)[0] != asked_of
    alone, notes = given_sets(model, "of the data set", 10_000, seed=0)
    assert (len(alone.counted), notes) == (2**8 - 2, [])


def test_no_set_is_missing_where_all_are_few(kept):
    found = asked(Wilful(), kept)
    given = [f.given for f in found.findings if f.question == "n given" and f.given and not f.about]
    assert given == [("picture",), ("bits",), ("picture", "bits")]
    pairs = [
        (f.given[0], f.targets[0])
        for f in found.findings
        if f.question == "one to one" and f.given and not f.about
    ]
    assert sorted(pairs) == sorted(itertools.permutations(THREE, 2))


@pytest.mark.parametrize("kind", ONE_WAY)
def test_a_model_of_one_direction_is_asked_in_it(kept, kind):
    model = toy_model(kind, THREE, targets=("label", "picture"), given=("bits",))
    found = asked(model, kept)
    assert {f.given for f in found.findings} == {("bits",)}
    assert {f.question for f in found.findings} == {
        *("one to one", "one to many, agree", "one to many, right", "n given", "Fréchet")
    }
    assert any("nothing from nothing" in note for note in found.notes)


def test_numbers_depend_on_the_seed_alone(kept):
    def measure(**settings):
        torch.rand(3)
        before = torch.get_rng_state()
        found = asked(model, kept, **settings).findings
        assert torch.get_rng_state().equal(before)
        return found

    model = Wilful(flip=0.3)  # its noise is in z, not in what is decoded
    first = measure()
    assert measure() == first
    assert measure(chunk=37) == first
    assert measure(seed=1) != first


def test_who_has_no_choices_is_no_judge(kept):
    with pytest.raises(ConfigError, match="--judge picture: kind 'grid' has no choices"):
        asked(Wilful(), kept, "picture", THREE["picture"])
    with pytest.raises(DataError, match="no split 'train'"):
        asked(Wilful(), in_memory(THREE, test=split_of(9, 1)))


# The Fréchet distance.


def test_distances_tell_blind_models_from_those_that_see(kept):
    seeing, blind = (asked(Wilful(blind=b), kept) for b in (False, True))

    def of(found):
        return one(found, "Fréchet", "", "picture")

    assert of(blind).value > 10 * of(seeing).value
    assert of(seeing).ceiling == of(blind).ceiling
    assert of(seeing).ceiling < of(seeing).value  # real rows have noise, which means have not
    # In the order of the modalities, in every process: a set of words has none.
    named = [("+".join(f.given), f.targets[0]) for f in blind.findings if f.question == "Fréchet"]
    assert named == [
        *(("", "picture"), ("", "bits"), ("picture", "bits")),
        *(("label", "picture"), ("label", "bits"), ("bits", "picture")),
    ]


def test_sums_of_blocks_have_the_moments_of_the_whole():
    features = torch.randn(57, 4, generator=torch.Generator().manual_seed(0)).double()
    first, second = Sums.of(features[:20]), Sums.of(features[20:])
    mean, covariance = moments(features)
    both = (first + second).moments
    torch.testing.assert_close(both[0], mean)
    torch.testing.assert_close(both[1], covariance)
    torch.testing.assert_close((first + second - first).moments[1], torch.cov(features[20:].T))


def test_the_frechet_distance_of_gaussians_that_commute_is_known():
    stream = torch.Generator().manual_seed(3)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=stream, dtype=torch.float64))
    a, b = torch.rand(2, 6, generator=stream, dtype=torch.float64) + 0.1
    mean = torch.randn(6, generator=stream, dtype=torch.float64)
    cov_a, cov_b = (basis * a @ basis.T, basis * b @ basis.T)
    expected = mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    found = frechet_distance((mean, cov_a), (torch.zeros_like(mean), cov_b))
    assert found == pytest.approx(expected.item())
    assert frechet_distance((mean, cov_a), (mean, cov_a)) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_is_symmetric_and_not_negative():
    stream = torch.Generator().manual_seed(4)
    one, other = (torch.randn(40, 5, generator=stream).double() for _ in range(2))
    a, b = moments(one), moments(2 * other + 1)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b) > 0


def test_the_jackknife_tells_how_much_a_distance_varies():
    stream = torch.Generator().manual_seed(5)

    def drawn():
        a = torch.randn(300, 3, generator=stream)
        return frechet_with_error(grouped(a), grouped(torch.randn(300, 3, generator=stream) + 1))

    found = [drawn() for _ in range(60)]
    deviation = torch.tensor([value for value, _ in found]).std().item()
    told = sum(error for _, error in found) / len(found)
    assert told == pytest.approx(deviation, rel=0.3)


def test_an_error_of_fewer_rows_than_groups_is_not_known():
    features = grouped(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    value, error = frechet_with_error(features, features)
    assert value == pytest.approx(0, abs=1e-6)
    assert math.isnan(error)


# Tables, and the command.


@pytest.fixture(scope="module")
def found(kept):
    return asked(Wilful(wrong=("bits",), p=0.3), kept)


def test_tables_hold_the_same_numbers(found):
    lines = list(csv.DictReader(StringIO(agreement_csv(found))))
    assert [float(line["value"]) for line in lines] == [f.value for f in found.findings]
    assert [line["given"] for line in lines] == ["+".join(f.given) for f in found.findings]
    content = json.loads(agreement_json(found, {"about": "me"}))
    assert (content["about"], content["judge"]) == ("me", "label")
    assert [r["value"] for r in content["findings"]] == [f.value for f in found.findings]
    pair = one(found, "one to one", "label", "bits", "two")
    row = f"| one to one | label | bits | two | {100 * pair.value:.1f} | {100 * pair.error:.1f} | –"
    assert row in agreement_markdown(found)


def test_the_terminal_has_each_question_once(found):
    console = Console(width=100, record=True, file=StringIO())
    console.print(agreement_table(found, "runs/three").rich())
    text = console.export_text()
    for words in ("given one, another", "from nothing, all are", "Fréchet distance from real"):
        assert text.count(words) == 1
    assert "picture → bits" in text
    assert "nothing → picture" in text
    assert text.count("three") == 1 + 2  # the run's name; a class, in a mean and from nothing


def test_tables_are_saved_by_suffix(found, tmp_path):
    for suffix, text in ((".md", agreement_markdown(found)), (".csv", agreement_csv(found))):
        assert save_agreement(found, tmp_path / f"table{suffix}").read_text() == text
    with pytest.raises(ConfigError, match=r"\.md, \.csv, \.json"):
        save_agreement(found, tmp_path / "table.png")


def test_an_error_that_is_not_known_is_empty_in_every_file():
    modalities = {"label": LABEL, "side": Label(classes=("left", "right"))}
    number = torch.arange(5)
    rows = {"label": number, "side": number % 2}
    dataset = in_memory(modalities, train=rows, test=rows)
    few = asked(toy_model("jmvae-kl", modalities), dataset, samples=1)
    finding = one(few, "Fréchet", "", "side")
    assert math.isnan(finding.error)
    (line,) = (
        line
        for line in csv.DictReader(StringIO(agreement_csv(few)))
        if line["question"] == "Fréchet" and not line["given"]
    )
    assert line["error"] == ""
    assert "NaN" not in agreement_json(few)


@pytest.mark.ci
def test_the_command_tells_and_writes(mmgen, trained, tmp_path):
    file = tmp_path / "agreement.csv"
    code, out, err = mmgen(
        "coherence", trained, "--judge", "label", "--rows", 40, "-n", 2, "-o", file
    )
    assert code == 0, err
    assert "from nothing, all are of one class" in out
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["question"] for row in rows} >= {"one to one", "n given", "Fréchet"}
    assert {row["targets"] for row in rows if row["question"] == "one to one"} >= {"image", "label"}
    assert "Fréchet distances of 40 rows are mostly chance" in " ".join(err.split())


def test_a_judge_that_the_run_has_not_is_read_off_its_data_set(mmgen, small_glyphs, tmp_path):
    run, file = tmp_path / "run", tmp_path / "agreement.json"
    nets = [word for word in small(small_glyphs, 1) if "label" not in word]
    words = (*nets, "data.modalities=image,attributes", "--no-figures", "--out", run)
    code, _, err = mmgen("train", small_glyphs, *words)
    assert code == 0, err
    code, _, err = mmgen("coherence", run, "--judge", "label", "--rows", 20, "-n", 1, "-o", file)
    assert code == 0, err
    found = json.loads(file.read_text())["findings"]
    assert {tuple(f["targets"]) for f in found if f["question"] == "from nothing"} == {
        ("image", "attributes")
    }
    code, _, err = mmgen("coherence", run, "--judge", "lable", "--rows", 20)
    assert (code, "did you mean 'label'" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--judge", "image"), "kind 'image' has no choices"),
        (("--judge", "lable"), "did you mean 'label'"),
        (("--judge", "label", "--given", "image"), "leave out --targets and --given"),
        (("--judge", "label", "-n", 0), "not --samples 0"),
        (("--subsets", 3), "--subsets belongs to --judge"),
    ],
)
def test_what_no_judge_can_do_is_one_message(mmgen, trained, words, message):
    code, out, err = mmgen("coherence", trained, "--rows", 20, *words)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
