"""The vector plugin: a variance that is learned, units in and out, columns of a table."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch.distributions import Normal

from mmgen.nets.blocks import Likelihood, gaussian_with_variance
from mmgen.registry.loading import load
from mmgen.testing import parametrize_with_checks
from mmgen_attributes import Attributes
from mmgen_label import Label
from mmgen_vector import Vector

NAMES = ("height", "weight")
SMALL = {"encoder_widths": (16,), "decoder_widths": (16,)}
PLAIN = Vector(names=NAMES, **SMALL)
SCALED = Vector(names=NAMES, mean=(1.7, 70), standard_deviation=(0.1, 12), **SMALL)


@parametrize_with_checks(PLAIN, SCALED, Vector(names=("age",), **SMALL))
def test_contract(modality, check):
    check(modality)


def test_the_likelihood_is_torch_s_normal_with_the_net_s_mean_and_variance():
    torch.manual_seed(0)
    parameters, x = 3 * torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 3).double()
    p = gaussian_with_variance(parameters, floor=0.01)
    variance = (1 + parameters[:, 3:].exp()).log() + 0.01
    expected = Normal(parameters[:, :3], variance.sqrt()).log_prob(x).sum(1)
    torch.testing.assert_close(p.log_prob(x), expected)
    torch.testing.assert_close(p.mean, parameters[:, :3])
    torch.testing.assert_close(p.variance, variance)
    assert (p.batch_shape, p.event_shape) == ((5,), (3,))


def test_the_variance_has_a_floor_that_keeps_densities_finite():
    p = gaussian_with_variance(torch.tensor([[0.0, -1000.0]]))
    torch.testing.assert_close(p.variance, torch.tensor([[1e-4]]))
    assert p.log_prob(torch.zeros(1, 1)).item() == pytest.approx(-0.5 * math.log(2e-4 * math.pi))


def test_events_of_more_dimensions_are_halved_along_the_first():
    p = gaussian_with_variance(torch.randn(2, 6, 4))
    assert (p.batch_shape, p.event_shape) == ((2,), (3, 4))


def test_the_learned_variance_recovers_a_known_one_that_depends_on_z():
    """x | z ~ N(2z, 0.5²) and N(−z, 0.2²) for z = 0; at z = 1 both deviations are doubled."""
    torch.manual_seed(0)
    z = torch.randint(2, (4000, 1)).float()
    known = torch.tensor([0.5, 0.2]) * (1 + z)
    x = torch.cat([2 * z, -z], 1) + known * torch.randn(4000, 2)
    decoder = Likelihood(torch.nn.Linear(1, 4), gaussian_with_variance)
    optimiser = torch.optim.LBFGS(decoder.parameters(), max_iter=200)

    def closure():
        optimiser.zero_grad()
        loss = -decoder(z).log_prob(x).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    p = decoder(torch.tensor([[0.0], [1.0]]))
    torch.testing.assert_close(
        p.stddev, torch.tensor([[0.5, 0.2], [1.0, 0.4]]), rtol=0.05, atol=0.0
    )
    torch.testing.assert_close(p.mean, torch.tensor([[0.0, 0], [2, -1]]), rtol=0, atol=0.1)


def test_observations_are_standardised_and_described_in_their_own_units():
    stored = torch.stack([SCALED.parse("1.72, 64"), SCALED.parse("1.6,82")])
    assert stored.dtype == torch.float32
    x = SCALED.observe(stored)
    torch.testing.assert_close(x, torch.tensor([[0.2, -0.5], [-1, 1]]), rtol=0, atol=1e-5)
    assert SCALED.describe(x) == ["height 1.72, weight 64", "height 1.6, weight 82"]
    assert PLAIN.observe(stored).tolist() == stored.tolist()
    assert PLAIN.describe(stored) == ["height 1.7, weight 64", "height 1.6, weight 82"]


def test_the_training_split_decides_means_and_deviations():
    torch.manual_seed(0)
    stored = torch.tensor([1.7, 1e6]) + torch.tensor([0.1, 3000.0]) * torch.randn(20_000, 2)
    fitted = PLAIN.fit(stored)
    x = fitted.observe(stored)
    torch.testing.assert_close(x.mean(0), torch.zeros(2), rtol=0, atol=1e-3)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(2), rtol=0, atol=1e-3)
    assert fitted.mean == pytest.approx((1.7, 1e6), rel=0.01)
    assert Vector(**{k: v for k, v in fitted.to_config().items() if k != "kind"}) == fitted
    assert fitted.fit(stored) == fitted
    assert PLAIN.mean == ()


def test_what_the_user_sets_is_not_measured():
    stored = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert SCALED.fit(stored) == SCALED
    half = Vector(names=NAMES, mean=(0, 0)).fit(stored)
    assert (half.mean, half.standard_deviation) == ((0, 0), (1, 2))


@pytest.mark.parametrize("constant", [0.0, 3.0, -2e9, 1e-40])
def test_a_constant_column_is_shifted_and_stays_finite(constant):
    stored = torch.tensor([[constant, 1.0], [constant, 2.0]])
    fitted = PLAIN.fit(stored)
    assert fitted.standard_deviation[0] == 1
    assert fitted.observe(stored)[:, 0].abs().max() < 1e-6 * max(1, abs(constant))
    assert fitted.describe(fitted.observe(stored))[0].startswith("height ")


def test_no_rows_and_one_row_fit_too():
    assert PLAIN.fit(torch.empty(0, 2)).standard_deviation == (1, 1)
    assert PLAIN.fit(torch.tensor([[5.0, 6.0]])).mean == (5, 6)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("1.7", "'1.7' has 1 of the 2 numbers that are needed: height, weight"),
        ("1,72,64", "has 3 of the 2 numbers"),
        ("", "has 1 of the 2"),
        ("1.7,heavy", "'heavy' is no finite number, so it cannot be the weight"),
        ("nan,64", "'nan' is no finite number, so it cannot be the height"),
        ("1.7,-inf", "'-inf' is no finite number"),
        ("1.7,1e39", "'1e39' is no finite number"),
        ("1.7,", "'' is no finite number, so it cannot be the weight"),
    ],
)
def test_what_is_not_a_number_for_each_column_is_refused(cell, words):
    with pytest.raises(ValueError, match=words):
        PLAIN.parse(cell)


MEASURED = [f"{1.5 + 0.001 * i:.3f}" for i in range(100)]
WHOLE = [str(140 + i % 60) for i in range(200)]


@pytest.mark.parametrize("cells", [MEASURED, WHOLE, [*MEASURED[:95], *5 * ["?"]]])
def test_measured_columns_suit_vectors_best(cells):
    kinds = load(environ={}).kinds
    assert max(kinds, key=lambda kind: kinds[kind].match_score(cells)) == "vector"


@pytest.mark.parametrize(
    ("cells", "other"),
    [
        (["0", "1", "1", "0"] * 9, Attributes),
        ([str(i % 10) for i in range(200)], Label),
        (["cat", "dog"] * 9, Label),
    ],
)
def test_switches_digits_and_words_suit_other_kinds_better(cells, other):
    assert Vector.match_score(cells) < other.match_score(cells)


def test_a_table_s_columns_become_one_vector_named_by_the_headings():
    columns = {"height, cm": ["170.5"], " weight ": ["64"]}
    vector = Vector(**Vector.infer_settings(columns))
    assert vector.names == ("height cm", "weight")
    cell = vector.join_cells({"height, cm": "170.5", " weight ": "64"})
    assert vector.parse(cell).tolist() == [170.5, 64]
    assert Vector.multi_column


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"names": ()}, "at least 1 item"),
        ({"names": ("a", "a")}, "different words"),
        ({"names": NAMES, "mean": (1,)}, "one number for each of names, or none"),
        ({"names": NAMES, "mean": (1, math.nan)}, "finite number"),
        ({"names": NAMES, "standard_deviation": (1, 0)}, "greater than"),
        ({"names": NAMES, "standard_deviation": (1, math.inf)}, "finite number"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        Vector(**settings)
