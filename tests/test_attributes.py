"""The attributes plugin: both likelihoods by hand, and words in and out."""

import math

import pytest
import torch
from pydantic import ValidationError

from mmgen.batch import Batch
from mmgen.testing import parametrize_with_checks
from mmgen_attributes import Attributes

NAMES = ("bold", "italic", "large")
SMALL = {"encoder_widths": (16,), "decoder_widths": (16,)}
BINARY = Attributes(names=NAMES, **SMALL)
GAUSSIAN = Attributes(names=NAMES, likelihood="gaussian", standard_deviation=0.5, **SMALL)


@parametrize_with_checks(
    BINARY,
    GAUSSIAN,
    Attributes(names=tuple("abcdefghij"), **SMALL),
    Attributes(names=("smiling",), likelihood="gaussian", **SMALL),
)
def test_contract(modality, check):
    check(modality)


def test_bernoulli_log_likelihood_by_hand():
    torch.manual_seed(0)
    decoder, h = BINARY.decoder(4), torch.randn(2, 4)
    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    q = decoder.net(h).sigmoid()
    expected = torch.stack(
        [q[0, 0].log() + (1 - q[0, 1]).log() + q[0, 2].log(), (1 - q[1]).log().sum()]
    )
    torch.testing.assert_close(decoder(h).log_prob(x), expected)
    torch.testing.assert_close(decoder(h).mean, q)


def test_gaussian_log_likelihood_by_hand():
    torch.manual_seed(0)
    decoder, h = GAUSSIAN.decoder(4), torch.randn(2, 4)
    x = torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, -1.0]])
    squares = ((x - decoder.net(h).tanh()) ** 2).sum(1) / (2 * 0.5**2)
    expected = -squares - 3 * math.log(0.5 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(decoder(h).log_prob(x), expected)


def test_observations_are_zero_and_one_or_minus_and_plus_one():
    stored = torch.tensor([[1, 0, 1]], dtype=torch.uint8)
    assert BINARY.observe(stored).tolist() == [[1, 0, 1]]
    assert GAUSSIAN.observe(stored).tolist() == [[1, -1, 1]]
    assert GAUSSIAN.observe(stored).dtype == torch.float32


@pytest.mark.parametrize("attributes", [BINARY, GAUSSIAN])
@pytest.mark.parametrize("cell", ["none", "bold", "bold, italic", "bold, italic, large"])
def test_words_survive_reading_observing_and_describing(attributes, cell):
    stored = attributes.parse(cell)
    assert (stored.dtype, stored.shape) == (torch.uint8, (3,))
    assert attributes.describe(attributes.observe(stored.unsqueeze(0))) == [cell]


def test_reading_minds_neither_order_nor_blanks_nor_empty_parts():
    assert BINARY.parse("italic,bold").tolist() == [1, 1, 0]
    assert BINARY.parse(" large ,").tolist() == [0, 0, 1]
    assert BINARY.parse("").tolist() == [0, 0, 0]


def test_probabilities_are_described_with_per_cent_from_a_half():
    rows = torch.tensor([[0.93, 0.71, 0.49], [0.1, 0.2, 0.3], [1.0, 0.5, 0.0]])
    expected = ["bold 93 %, italic 71 %", "none", "bold 100 %, italic 50 %"]
    assert BINARY.describe(rows) == expected
    assert GAUSSIAN.describe(2 * rows - 1) == expected
    # Samples of a Gaussian leave [-1, 1].
    assert GAUSSIAN.describe(torch.tensor([[1.7, -2.0, 0.5]])) == ["bold 100 %, large 75 %"]


def test_choices_are_each_attribute_alone():
    assert [BINARY.parse(choice).sum() for choice in BINARY.choices()] == [1, 1, 1]


def test_an_unknown_attribute_is_refused_with_the_nearest_and_all_names():
    with pytest.raises(ValueError, match=r"no attribute 'blod'; did you mean 'bold'.*bold, italic"):
        BINARY.parse("italic,blod")


def test_the_class_decides_synthetic_values_up_to_noise():
    attributes = Attributes(names=tuple("abcdefgh"))
    classes = torch.arange(4).repeat(500)
    x = attributes.example(classes, torch.Generator().manual_seed(0)).float()
    means = torch.stack([x[classes == number].mean(0) for number in range(4)])
    firm = (means - 0.5).abs() > 0.3
    assert firm.float().mean() > 0.6
    assert len(means.round().unique(dim=0)) == 4
    assert x.std(0).min() > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"names": ()}, "at least 1 item"),
        ({"names": ("a", "a")}, "different words"),
        ({"names": ("a,b",)}, "without commas"),
        ({"names": ("a",), "standard_deviation": -1}, "greater than 0"),
        ({"names": ("a",), "likelihood": "poisson"}, "'bernoulli' or 'gaussian'"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        Attributes(**settings)


@pytest.mark.parametrize(
    ("cells", "sure"),
    [
        (["0", "1"] * 10, True),
        (["-1", "1"] * 10, True),
        (["yes", "No"] * 10, True),
        (["TRUE", "false"] * 10 + ["maybe"], True),  # one wrong cell
        (["0", "1", "2"] * 10, False),
        (["bold|italic", "bold", "italic; large"] * 10, True),
        (["bold, italic", "large"] * 10, True),
        (["bold", "italic"] * 10, False),  # one each: classes
        ([f"A sentence, of its own: {i}" for i in range(30)], False),
        (["1,5", "2,5", "1,5"] * 10, False),  # decimal commas
        ([], False),
    ],
)
def test_it_suits_columns_of_switches_and_of_lists(cells, sure):
    assert (Attributes.match_score(cells) > 0.5) is sure


def test_names_are_headings_over_switches_and_the_words_of_lists():
    columns = {"bold": ["0", "1", "maybe"] + ["1"] * 20, "tags": ["large|wide", "none", "large"]}
    assert Attributes.infer_settings(columns) == {"names": ["bold", "large", "wide"]}
    assert Attributes.infer_settings({"big, bad": ["0", "1"]}) == {"names": ["big bad"]}
    attributes = Attributes(names=("big bad",))
    assert attributes.parse(attributes.join_cells({"big, bad": "1"})).tolist() == [1]


def test_a_row_s_cells_are_joined_and_a_wrong_one_is_refused():
    attributes = Attributes(names=("bold", "italic", "large"))
    row = {"bold": "Yes", "italic": "-1", "tags": "large; none"}
    assert attributes.parse(attributes.join_cells(row)).tolist() == [1, 0, 1]
    assert attributes.parse(attributes.join_cells({"tags": ""})).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="'2' under italic is not 0/1"):
        attributes.join_cells(row | {"italic": "2"})
    with pytest.raises(ValueError, match="no attribute 'lagre'; did you mean 'large'"):
        attributes.parse(attributes.join_cells({"tags": "lagre"}))


# Attributes that are unknown.


@pytest.mark.parametrize("modality", [BINARY, GAUSSIAN], ids=["bernoulli", "gaussian"])
def test_what_is_unknown_is_summed_out_of_the_likelihood(modality):
    torch.manual_seed(0)
    decoder, h = modality.decoder(4), torch.randn(5, 4)
    p = decoder(h)
    for cell in ("bold,?italic", "?bold,?italic", "?bold, ?italic ,?large", "?large"):
        x = modality.observe(modality.parse(cell).unsqueeze(0))
        known = modality.known(x)[0]
        out = decoder.net(h)
        if modality is BINARY:  # the sum over what it could be
            every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
            agree = every[((every == x) | ~known).all(1)]
            expected = torch.stack([p.log_prob(each) for each in agree]).logsumexp(0)
        else:
            each = torch.distributions.Normal(out.tanh(), 0.5).log_prob(x)
            expected = each[:, known].sum(1)
        torch.testing.assert_close(p.log_prob(x.expand(5, 3)), expected)


@pytest.mark.parametrize("modality", [BINARY, GAUSSIAN], ids=["bernoulli", "gaussian"])
def test_what_is_unknown_moves_no_weight(modality):
    torch.manual_seed(0)
    decoder, h = modality.decoder(4), torch.randn(5, 4)
    x = modality.observe(torch.tensor([[1, 2, 0]], dtype=torch.uint8)).expand(5, 3)
    decoder(h).log_prob(x).sum().backward()
    last = decoder.net[-1]
    moved = last.weight.grad.abs().sum(1)
    assert [value > 0 for value in moved.tolist()] == [True, False, True]
    assert last.bias.grad[1] == 0


def test_complete_rows_have_the_bits_that_they_had():
    from torch.distributions import Independent

    torch.manual_seed(0)
    for modality in (BINARY, GAUSSIAN):
        p = modality.decoder(4)(torch.randn(50, 4))
        x = modality.observe(torch.randint(2, (50, 3), dtype=torch.uint8))
        assert torch.equal(p.log_prob(x), Independent(p.base_dist, 1).log_prob(x))


def test_unknown_attributes_are_read_and_observed_between_off_and_on():
    stored = BINARY.parse("large, ?italic")
    assert stored.tolist() == [0, 2, 1]
    assert BINARY.observe(stored.unsqueeze(0)).tolist() == [[0, 0.5, 1]]
    assert GAUSSIAN.observe(stored.unsqueeze(0)).tolist() == [[-1, 0, 1]]
    for modality in (BINARY, GAUSSIAN):
        x = modality.observe(stored.unsqueeze(0))
        assert modality.known(x).tolist() == [[True, False, True]]
        assert modality.decoder(4)(torch.zeros(1, 4)).support.check(x).all()
    assert not BINARY.decoder(4)(torch.zeros(1, 4)).support.check(torch.tensor([[0, 0.4, 1]])).all()
    assert BINARY.accept({"bold": True, "italic": None}).tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="no attribute 'itlic'; did you mean 'italic'"):
        BINARY.parse("?itlic")
    odd = Attributes(names=("?", "?new"), **SMALL)
    assert odd.parse("?new").tolist() == [0, 1]
    assert odd.parse("??new").tolist() == [0, 2]


def test_the_bound_of_rows_with_unknown_attributes_is_below_what_is_known_of_them():
    from toys import Word, made

    torch.manual_seed(2)
    looks = Attributes(names=("bold", "italic"), encoder_widths=(6,), decoder_widths=(6,))
    model = made("jmvae-kl", {"looks": looks, "colour": Word()}, latent=1, fusion=()).eval()
    model.double()
    for name, parameter in model.named_parameters():
        if name.startswith("decoders."):
            parameter.data.mul_(3)  # far from a model that says nothing
    stored = torch.cartesian_prod(torch.arange(3), torch.arange(3), torch.arange(3)).byte()
    x = Batch(
        {
            "looks": looks.observe(stored[:, :2]).double(),
            "colour": Word().observe(stored[:, 2]).double(),
        }
    )
    grid = torch.linspace(-9, 9, 601).double()
    z = grid[:, None, None].expand(-1, 27, 1)
    with torch.no_grad():
        at = {n: p.log_prob(x[n]) for n, p in model.decode(z).items()}
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid) + (grid[1] - grid[0]).log()
        exact = (at["looks"] + at["colour"] + prior[:, None]).logsumexp(0)
        q = model.posterior(x)
        weight = q.log_prob(z) + (grid[1] - grid[0]).log()
        expected = ((at["looks"] + at["colour"]) * weight.exp()).sum(0)
        kl = {t.name: t.value for t in model(x)}["kl/prior"]
    gap = exact - (expected - kl)
    assert (gap > 0).all()
    assert (gap < 5).all()
    torch.testing.assert_close(
        at["looks"][:, stored[:, :2].eq(2).all(1)], torch.zeros(601, 3).double()
    )
