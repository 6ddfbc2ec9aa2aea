"""The counts plugin: a density that sums to 1 and stays exact, counts in and out, tables."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch.distributions import NegativeBinomial, Poisson

from mmgen.data.store import read_dataset
from mmgen.nets.replicate import Vectorised, replicate
from mmgen.registry.loading import load
from mmgen.testing import parametrize_with_checks
from mmgen_counts import LARGEST, Counts
from mmgen_counts.likelihood import BOUND, ZeroInflated, remainder
from mmgen_counts.likelihood import Counts as Law

NAMES = ("visits", "purchases")
SMALL = {"encoder_widths": (16,), "decoder_widths": (16,)}
PLAIN = Counts(names=NAMES, **SMALL)
RATES = torch.tensor([1e-3, 0.3, 1.0, 7.5, 60.0], dtype=torch.float64)
DISPERSIONS = torch.tensor([0.05, 0.7, 3.0, 40.0, 2e4], dtype=torch.float64)


@parametrize_with_checks(
    PLAIN,
    Counts(names=("age",), **SMALL),
    Counts(names=("age",), likelihood="poisson", **SMALL),
    Counts(names=("age",), likelihood="zero-inflated", largest=200, mean=(3.0,), **SMALL),
    Counts(names=NAMES, likelihood="zero-inflated", mean=(900.0, 0.01), **SMALL),
)
def test_contract(modality, check):
    check(modality)


def laws():
    rate, theta = RATES[:, None].expand(-1, 5), DISPERSIONS.expand(5, -1)
    return {
        "negative binomial": Law(rate, theta),
        "poisson": Law(rate),
        "inflated": ZeroInflated(Law(rate, theta), (rate - theta).tanh()),
    }


@pytest.mark.parametrize("name", laws())
def test_densities_sum_to_one_and_have_the_mean_and_variance_that_they_say(name):
    p = laws()[name]
    x = torch.arange(60_000, dtype=torch.float64).reshape(-1, 1, 1)
    density = p.log_prob(x).exp()
    shape = p.batch_shape
    torch.testing.assert_close(density.sum(0), torch.ones(shape).double(), rtol=0, atol=1e-9)
    mean = (x * density).sum(0)
    torch.testing.assert_close(mean, p.mean.expand(shape), rtol=1e-7, atol=0)
    variance = ((x - mean) ** 2 * density).sum(0)
    torch.testing.assert_close(variance, p.variance.expand(shape), rtol=1e-7, atol=0)
    best = p.log_prob(p.mode.expand(shape))
    torch.testing.assert_close(best, density.max(0).values.log(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", laws())
def test_what_is_drawn_has_the_mean_and_variance(name):
    torch.manual_seed(0)
    p = laws()[name]
    drawn = p.sample((40_000,))
    assert torch.equal(drawn, drawn.round())
    assert drawn.min() == 0
    error = (p.variance / len(drawn)).sqrt().expand(p.batch_shape)
    assert ((drawn.mean(0) - p.mean).abs() < 5 * error).all()
    # The variance's own variance: its fourth moment is measured on the draws.
    square = (drawn - p.mean) ** 2
    assert (
        (square.mean(0) - p.variance).abs() < 6 * square.std(0) / len(drawn) ** 0.5 + 1e-3
    ).all()


def test_the_density_is_torch_s_in_double_precision():
    torch.manual_seed(0)
    rate, theta = 50 * torch.rand(2000).double() + 0.01, 20 * torch.rand(2000).double() + 0.01
    x = torch.poisson(rate)
    ours = Law(rate, theta).log_prob(x)
    theirs = NegativeBinomial(theta, logits=rate.log() - theta.log()).log_prob(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        Law(rate).log_prob(x), Poisson(rate).log_prob(x), rtol=1e-9, atol=1e-9
    )


def test_the_limit_of_no_dispersion_is_poisson():
    rate, x = torch.tensor([0.2, 3.0, 900.0]), torch.tensor([0.0, 5.0, 870.0])
    poisson = Poisson(rate.double()).log_prob(x.double()).float()
    for theta in (1e7, 1e12, 1e30):
        ours = Law(rate, torch.tensor(theta)).log_prob(x)
        torch.testing.assert_close(ours, poisson, rtol=0, atol=3e-4)


def test_single_precision_is_exact_where_differences_of_log_gamma_are_not():
    rate = torch.tensor([9_800.0, 1e5, 30.0, 1e6])
    theta = torch.tensor([8.0, 1e4, 1e6, 0.5])
    x = torch.tensor([10_000.0, 99_000.0, 25.0, 16_000_000.0])
    exact = NegativeBinomial(theta.double(), logits=(rate.double() / theta.double()).log())
    exact = exact.log_prob(x.double()).float()
    ours = (Law(rate, theta).log_prob(x) - exact).abs()
    theirs = (NegativeBinomial(theta, logits=(rate / theta).log()).log_prob(x) - exact).abs()
    assert (ours < torch.tensor([1e-3, 0.02, 1e-4, 0.1])).all(), ours
    assert (theirs[2:] > torch.tensor([0.1, 3.0])).all(), theirs


def test_stirling_s_error_is_continuous_and_right():
    a = torch.tensor([1e-3, 0.5, 7.999999, 8.000001, 1e3, 1e8], dtype=torch.float64)
    stirling = (a - 0.5) * a.log() - a + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(
        remainder(a)[:5], (torch.lgamma(a) - stirling)[:5], rtol=0, atol=1e-9
    )
    assert remainder(a)[5] == pytest.approx(1 / (12 * 1e8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["negative binomial", "poisson", "inflated"])
def test_gradients_are_finite_at_nought_and_at_large_counts(dtype, kind):
    out = torch.linspace(-2 * BOUND, 2 * BOUND, 9, dtype=dtype).requires_grad_()
    log_theta = torch.tensor([-BOUND, 0.0, BOUND], dtype=dtype).requires_grad_()
    rate, theta = out.exp()[:, None], log_theta.exp()
    p = Law(rate.expand(-1, 3), None if kind == "poisson" else theta)
    p = ZeroInflated(p, out[:, None]) if kind == "inflated" else p
    for x in (0.0, 1.0, 200.0, float(LARGEST)):
        log_p = p.log_prob(torch.full((9, 3), x, dtype=dtype))
        assert log_p.isfinite().all()
        gradient = torch.autograd.grad(log_p.sum(), [out], retain_graph=True)[0]
        assert gradient.isfinite().all()
    if kind != "poisson":
        [gradient] = torch.autograd.grad(log_p.sum(), [log_theta])
        assert gradient.isfinite().all()


def test_gradients_are_those_of_differences():
    rate = torch.tensor([0.4, 7.0, 300.0], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([0.3, 9.0, 12.0], dtype=torch.float64, requires_grad=True)
    logits = torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([0.0, 9.0, 250.0], dtype=torch.float64)

    def density(rate, theta, logits):
        return ZeroInflated(Law(rate, theta), logits).log_prob(x)

    assert torch.autograd.gradcheck(density, (rate, theta, logits))


def test_the_dispersion_of_each_column_is_learned():
    torch.manual_seed(0)
    known = torch.tensor([0.5, 5.0])
    x = Law(torch.tensor([20.0, 8.0]).expand(4000, 2), known).sample()
    modality = Counts(names=NAMES, decoder_widths=()).fit(x.to(torch.int16))
    assert modality.mean == pytest.approx(x.mean(0).tolist())
    decoder = modality.decoder(1)
    optimiser = torch.optim.LBFGS(decoder.parameters(), max_iter=100)
    z = torch.zeros(4000, 1)

    def closure():
        optimiser.zero_grad()
        loss = -decoder(z).log_prob(x).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    p = decoder(z[:1])
    torch.testing.assert_close(p.mean[0], x.mean(0), rtol=0.01, atol=0)
    torch.testing.assert_close(p.base_dist.dispersion, known, rtol=0.1, atol=0)


def test_encoders_of_all_subsets_run_as_one():
    torch.manual_seed(0)
    wide = replicate(PLAIN.encoder, 4)
    assert isinstance(wide, Vectorised)
    x = PLAIN.observe(torch.tensor([[0, 3], [200, 30_000]]))
    net = PLAIN.encoder()
    assert torch.equal(net(x), net[1:](torch.log1p(x)))


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(255, torch.uint8), (256, torch.int16), (32_767, torch.int16), (LARGEST, torch.int32)],
)
def test_counts_are_stored_in_as_few_bytes_as_they_need(largest, dtype):
    modality = Counts(names=NAMES, largest=largest)
    stored = modality.parse(f"{largest}, 0.0")
    assert (stored.dtype, stored.tolist()) == (dtype, [largest, 0])
    assert modality.observe(stored[None]).tolist() == [[largest, 0]]
    assert modality.example(torch.arange(9), torch.Generator()).dtype == dtype


def test_programs_have_counts_as_lists_dictionaries_and_tensors():
    for value in ([3, 0], {"visits": 3}, torch.tensor([3, 0]), "3,0", (3.0, 0)):
        assert PLAIN.accept(value).tolist() == [3, 0]
    for wrong in ({"vists": 3}, torch.tensor([-1, 0]), [1], [0.5, 1]):
        with pytest.raises(ValueError, match=r"visits|int16"):
            PLAIN.accept(wrong)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("3", "'3' has 1 of the 2 counts that are needed: visits, purchases"),
        ("3,1.5", "'1.5' is no whole number from 0 to 32,767, so it cannot count the purchases"),
        ("-1,3", "'-1' is no whole number"),
        ("nan,3", "'nan' is no whole number"),
        ("3,40000", "it cannot count the purchases; set largest, up to 16,777,216"),
        ("3,", "'' is no whole number"),
    ],
)
def test_what_is_no_count_for_each_column_is_refused(cell, words):
    with pytest.raises(ValueError, match=words):
        PLAIN.parse(cell)


@pytest.mark.parametrize(
    "settings",
    [
        {"names": ()},
        {"names": NAMES, "mean": (1,)},
        {"names": NAMES, "mean": (1, 0)},
        {"names": NAMES, "largest": 2**24 + 1},
        {"names": NAMES, "likelihood": "gaussian"},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        Counts(**settings)


def test_a_column_of_noughts_has_a_mean_none_the_less():
    fitted = PLAIN.fit(torch.tensor([[0, 4], [0, 2]], dtype=torch.uint8))
    assert fitted.mean == (0.25, 3)
    assert fitted.fit(torch.tensor([[9, 9]])) == fitted
    assert PLAIN.fit(torch.empty(0, 2)).mean == (0.5, 0.5)


def test_few_counts_are_told_by_name_and_many_by_their_largest():
    assert PLAIN.describe(torch.tensor([[3, 0.25]])) == ["visits 3, purchases 0.25"]
    many = Counts(names=tuple(f"g{i}" for i in range(100)))
    told = many.describe(torch.arange(100.0)[None])[0]
    assert told == "4950 in all: g99 99, g98 98, g97 97, g96 96, g95 95, g94 94, g93 93, g92 92, …"


SKEWED = [str(i % 60 if i % 3 else 0) for i in range(300)]


def test_skewed_whole_numbers_with_noughts_suit_counts_best():
    kinds = load(environ={}).kinds
    assert max(kinds, key=lambda kind: kinds[kind].match_score(SKEWED)) == "counts"
    for cells in (
        [str(140 + i % 60) for i in range(200)],
        [*SKEWED, "0.5"],
        [*SKEWED, "-1"],
        [*SKEWED, str(2**25)],
        ["0", "1"] * 50,
        [],
    ):
        assert Counts.match_score(cells) == 0


def test_a_table_s_columns_become_counts_that_train_and_generate(mmgen, tmp_path):
    """The words of a text and its length depend on the class: 0 to 3, or 200 to 290."""
    lines = ["class,words,chapters,pages"]
    for i in range(120):
        long = i % 2
        lines.append(f"{'ab'[long]},{(200 + i) * long},{i % 4},{i * 3 * long}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    (tmp_path / "c.toml").write_text(
        '[modalities.class]\n[modalities.text]\nkind = "counts"\n'
        'columns = ["words", "chapters", "pages"]\n'
    )
    data, run = tmp_path / "data", tmp_path / "run"
    words = ("--config", tmp_path / "c.toml", "--out", data)
    code, _, err = mmgen("data", "table", tmp_path / "t.csv", *words)
    assert code == 0, err
    dataset = read_dataset(data)
    assert dataset.modalities["text"]["largest"] == 2**15 - 1
    stored = dataset.splits["train"].load(["text"])["text"]
    assert stored.dtype == torch.int16
    assert dataset.modalities["text"]["mean"] == pytest.approx(stored.double().mean(0).tolist())
    nets = [
        f"modalities.{n}.{side}_widths=[8]"
        for n in ("class", "text")
        for side in ("encoder", "decoder")
    ]
    code, _, err = mmgen("train", data, *nets, "model.latent=2", "train.epochs=1", "--out", run)
    assert code == 0, err
    code, said, err = mmgen("generate", run, "--given", "class=b", "--targets", "text")
    assert code == 0, err
    assert said.startswith("text: words ")
    code, said, err = mmgen("generate", run, "--given", "text=300,2,270", "--targets", "class")
    assert code == 0, err
