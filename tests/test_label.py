"""The label plugin: the categorical likelihood by hand, and words in and out."""

import pytest
import torch
from pydantic import ValidationError

from mmgen.testing import parametrize_with_checks
from mmgen_label import Label

DIGITS = Label(classes=tuple("0123456789"), encoder_widths=(16,), decoder_widths=(16,))


@parametrize_with_checks(DIGITS, Label(classes=("yes", "no"), encoder_widths=(8, 8)))
def test_contract(modality, check):
    check(modality)


def test_log_likelihood_is_the_log_softmax_of_the_class():
    torch.manual_seed(0)
    decoder, h = DIGITS.decoder(4), 3 * torch.randn(6, 4)
    p, numbers = decoder(h), torch.tensor([0, 9, 3, 3, 7, 1])
    expected = decoder.net(h).log_softmax(1)[torch.arange(6), numbers]
    torch.testing.assert_close(p.log_prob(DIGITS.observe(numbers)), expected)
    torch.testing.assert_close(p.mean, decoder.net(h).softmax(1))


def test_samples_are_classes_as_often_as_their_probability_says():
    torch.manual_seed(0)
    p = DIGITS.decoder(4)(torch.randn(1, 4))
    x = p.sample((20_000,))
    assert x.shape == (20_000, 1, 10)
    assert torch.equal(x.sum(-1), torch.ones(20_000, 1))
    error = 5 * (p.mean * (1 - p.mean) / 20_000).sqrt()
    assert ((x.mean(0) - p.mean).abs() < error).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_observations_are_one_hot(dtype):
    x = Label(classes=("a", "b", "c")).observe(torch.tensor([2, 0], dtype=dtype))
    assert x.dtype == torch.float32
    assert x.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_every_class_survives_reading_observing_and_describing():
    stored = torch.stack([DIGITS.parse(f" {name} ") for name in DIGITS.choices()])
    assert stored.tolist() == list(range(10))
    assert DIGITS.describe(DIGITS.observe(stored)) == DIGITS.choices() == list("0123456789")


def test_probabilities_are_described_with_the_likeliest_class_and_per_cent():
    label = Label(classes=("cat", "dog"))
    rows = torch.tensor([[0.02, 0.98], [0.5, 0.5], [1.0, 0.0], [0.9999, 0.0001]])
    assert label.describe(rows) == ["dog (98 %)", "cat (50 %)", "cat", "cat (100 %)"]


def test_an_unknown_class_is_refused_with_the_nearest_and_all_names():
    with pytest.raises(ValueError, match=r"no class 'dgo'; did you mean 'dog'.*cat, dog"):
        Label(classes=("cat", "dog")).parse("dgo")


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ((), "at least 2 items"),
        (("one",), "at least 2 items"),
        (("a", "b", "a"), "must be different words"),
        (("a", ""), "must be different words"),
        (("a", "a "), "or blanks around them"),
        ("abc", "valid tuple"),
    ],
)
def test_impossible_classes_are_refused(classes, words):
    with pytest.raises(ValidationError, match=words):
        Label(classes=classes)


def test_synthetic_values_are_the_class_numbers():
    stored = Label(classes=("a", "b", "c")).example(torch.arange(5), torch.Generator())
    assert stored.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("cells", "sure"),
    [
        (["cat", "dog", "owl"] * 10, True),
        (["3", "7", "10"] * 10, True),
        (["cat", "dog"] * 10 + ["a, b"], True),  # one wrong cell
        (["a, b", "c, d"] * 10, False),  # no class can be typed
        ([f"note {i}" for i in range(30)], False),
        (["cat"] * 30, False),
        (["1.5", "2.5"] * 10, False),  # measured
        ([str(i % 40) for i in range(200)], False),  # counted, not named
        ([], False),
    ],
)
def test_it_suits_columns_of_few_words_that_come_again(cells, sure):
    assert (Label.match_score(cells) > 0.5) is sure


def test_classes_are_read_off_in_order_numbers_by_size():
    assert Label.infer_settings({"x": ["10", "9", " 9", "-1", "a, b"]}) == {
        "classes": ["-1", "9", "10"]
    }
    assert Label.infer_settings({"x": ["owl", "cat", "owl"]}) == {"classes": ["cat", "owl"]}
