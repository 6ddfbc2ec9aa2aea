import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import kl_divergence
from toys import FIVE, Numbers, Opaque, Word, observations, toy_modalities

from mmgen.models.jmvae import JMVAE
from mmgen.nets.posterior import (
    BatchedLinear,
    GaussianHead,
    SubsetEncoder,
    SumOfProjections,
    draw,
    gaussian,
    normal,
    rows,
    standard_normal,
)
from mmgen.subsets import proper, subset_encoder_nets

THREE = {"colour": Word(), "point": Numbers(), "wave": Opaque(size=2)}
SUBSETS = [*proper(tuple(THREE)), tuple(THREE)]


def subset_encoder(modalities=THREE, fusion=(), seed=0):
    torch.manual_seed(seed)
    subsets = [*proper(tuple(modalities)), tuple(modalities)]
    return SubsetEncoder(modalities, subsets, latent=3, fusion=fusion)


def concatenated(encoder, x, number):
    """The same posterior in the plain way: run each net, concatenate, multiply."""
    subset = encoder.subsets[number]
    nets, weights = encoder.nets(), dict(zip(encoder.names, encoder.first.weights, strict=True))
    copies = {n: encoder.members[n].index(number) for n in subset}
    h = torch.cat([nets[n](x[n])[copies[n]] for n in subset], dim=-1)
    weight = torch.cat([weights[n][copies[n]] for n in subset])
    h = F.linear(h, weight.T, encoder.first.bias[number])
    for layer in encoder.rest:
        h = F.linear(h.relu(), layer.weight[number].T, layer.bias[number, 0])
    mean, raw = h.chunk(2, dim=-1)
    return mean, F.softplus(raw)


@pytest.mark.parametrize("fusion", [(), (7,), (7, 5)])
def test_a_sum_of_projections_is_a_linear_layer_of_the_concatenation(fusion):
    ours, plain = subset_encoder(fusion=fusion).double(), subset_encoder(fusion=fusion).double()
    x = {n: t.double() for n, t in observations(THREE, 5).items()}
    q = ours(x)
    assert q.batch_shape == (7, 5)
    expected = [concatenated(plain, x, number) for number in range(7)]
    torch.testing.assert_close(q.mean, torch.stack([mean for mean, _ in expected]))
    variance = torch.stack([variance for _, variance in expected])
    torch.testing.assert_close(q.variance, variance + 1e-6)

    scale = torch.linspace(1, 2, 3)
    (q.mean * scale + q.variance).sum().backward()
    sum((mean * scale + variance).sum() for mean, variance in expected).backward()
    for (name, p), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert p.grad.abs().sum() > 0, name
        torch.testing.assert_close(p.grad, other.grad, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("fusion", [(), (7, 5)])
@pytest.mark.parametrize("number", range(7), ids=["+".join(s) for s in SUBSETS])
def test_a_subset_alone_is_its_row_of_the_full_pass(number, fusion):
    encoder = subset_encoder(fusion=fusion)
    x = observations(THREE, 5)
    subset = encoder.subsets[number]
    alone = encoder({n: x[n] for n in subset}, subset)
    row = rows(encoder(x), slice(number, number + 1))
    assert alone.batch_shape == (1, 5)
    torch.testing.assert_close(alone.mean, row.mean)
    torch.testing.assert_close(alone.stddev, row.stddev)


@pytest.mark.parametrize("fusion", [(), (7,)])
def test_a_subset_does_not_see_the_modalities_outside_it(fusion):
    encoder = subset_encoder(fusion=fusion)
    x, other = observations(THREE, 5, seed=0), observations(THREE, 5, seed=1)
    before = encoder(x)
    for name in THREE:
        after = encoder({**x, name: other[name]})
        for number, subset in enumerate(encoder.subsets):
            unchanged = [
                torch.equal(before.mean[number], after.mean[number]),
                torch.equal(before.stddev[number], after.stddev[number]),
            ]
            assert unchanged == [name not in subset] * 2, (name, subset)


def test_a_row_does_not_see_the_other_rows():
    encoder = subset_encoder(fusion=(7,))
    x = observations(THREE, 5)
    alone = encoder({n: t[2:3] for n, t in x.items()})
    torch.testing.assert_close(alone.mean, encoder(x).mean[:, 2:3])


@pytest.mark.parametrize("K", range(2, 9))
def test_all_subset_encoders_together_are_made_of_the_formulas_nets(K):
    modalities = {f"m{k}": Numbers(size=2, widths=(3,)) for k in range(K)}
    model = JMVAE(modalities, latent=2, subsets="all")
    nets = model.encoder_nets()
    assert [copies for copies, _ in nets] == [2 ** (K - 1)] * K
    assert sum(copies for copies, _ in nets) == subset_encoder_nets(K) == 2 ** (K - 1) * K
    # As many parameters as that many nets have, and no more.
    one = sum(p.numel() for p in Numbers(size=2, widths=(3,)).encoder().parameters())
    assert sum(p.numel() for _, net in nets for p in net.parameters()) == 2 ** (K - 1) * K * one


def test_two_and_three_modalities_need_four_and_twelve_times_the_parameters():
    for K, times in ((2, 4), (3, 12)):
        modalities = {f"m{k}": Numbers() for k in range(K)}
        model = JMVAE(modalities, latent=2, subsets="all")
        M = sum(p.numel() for p in Numbers().encoder().parameters())
        assert sum(p.numel() for _, net in model.encoder_nets() for p in net.parameters()) == (
            times * M
        )


def test_only_the_chosen_subsets_get_nets():
    model = JMVAE(THREE, latent=2, subsets=["colour", "colour+wave"])
    assert [copies for copies, _ in model.encoder_nets()] == [3, 1, 2]
    assert model.encodes(["wave", "colour"])
    assert not model.encodes(["wave"])
    assert not model.encodes([])


def test_first_weights_are_drawn_as_for_a_linear_layer_of_the_concatenation():
    torch.manual_seed(0)
    subsets = [("a",), ("a", "b")]
    first = SumOfProjections({"a": 30, "b": 70}, subsets, 200)
    for weight, width in (
        (first.weights[0][0], 30),
        (first.bias[0], 30),
        (first.weights[0][1], 100),
        (first.weights[1][0], 100),
        (first.bias[1], 100),
    ):
        bound = 1 / math.sqrt(width)
        # Uniform: within the bound, and close to it somewhere; the deviation is bound / √3.
        assert 0.95 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_first_weights_of_later_layers_are_drawn_as_for_a_linear_layer():
    torch.manual_seed(0)
    layer = BatchedLinear(3, 50, 100)
    for weight in (*layer.weight, *layer.bias):
        bound = 1 / math.sqrt(50)
        assert 0.9 * bound < weight.abs().max() <= bound


def test_a_collapsed_variance_stays_above_zero():
    q = gaussian(torch.tensor([[0.0, -1e4], [5.0, -100.0]]))
    assert torch.allclose(q.variance, torch.tensor(1e-6))
    assert torch.isfinite(kl_divergence(standard_normal(q.mean), q)).all()


def test_mean_and_softplus_variance_are_read_off_the_two_halves():
    q = gaussian(torch.tensor([[1.0, 2.0, 0.0, 3.0]]))
    assert q.mean.tolist() == [[1.0, 2.0]]
    expected = [math.log(2), math.log(1 + math.e**3)]
    assert q.variance[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert q.event_shape == (2,)
    assert q.batch_shape == (1,)


def test_half_precision_features_give_full_precision_posteriors():
    head = GaussianHead(4, 2).to(torch.bfloat16)
    assert head(torch.ones(3, 4, dtype=torch.bfloat16)).mean.dtype == torch.float32
    assert head.double()(torch.ones(3, 4).double()).mean.dtype == torch.float64


def test_the_divergence_is_that_of_a_monte_carlo_estimate():
    torch.manual_seed(0)
    q = normal(torch.randn(4, 3).double(), torch.rand(4, 3).double() + 0.3)
    for p in (
        standard_normal(q.mean),
        normal(torch.randn(2, 4, 3).double(), torch.rand(2, 4, 3).double() + 0.5),
    ):
        z = q.sample((40_000,)).unsqueeze(1)  # (N, 1, 4, 3), against p of (4,) or (2, 4)
        ratio = q.log_prob(z) - p.log_prob(z)
        standard_error = ratio.std(0) / math.sqrt(len(z))
        assert ((ratio.mean(0) - kl_divergence(q, p)).abs() < 4 * standard_error).all()


def test_rows_are_parts_of_the_batch():
    q = normal(torch.randn(3, 4, 2), torch.rand(3, 4, 2) + 0.1)
    assert torch.equal(rows(q, -1).mean, q.mean[-1])
    assert torch.equal(rows(q, slice(-1)).mean, q.mean[:-1])
    torch.testing.assert_close(rows(q, -1).stddev, q.stddev[-1])
    assert rows(q, slice(0, 0)).batch_shape == (0, 4)


def test_modalities_may_be_called_like_the_methods_of_a_dictionary():
    names = ["type", "values", "items", "forward"]
    modalities = dict(zip(names, FIVE.values(), strict=False))
    model = JMVAE(modalities, latent=2, subsets="single")
    x = observations(modalities, 4)
    assert set(model.log_likelihoods(x, torch.zeros(4, 2))) == set(names)
    assert model.infer({"values": x["values"]}).shape == (1, 4, 2)


def test_the_order_of_a_batch_does_not_matter():
    modalities = toy_modalities(3)
    encoder = subset_encoder(modalities)
    x = observations(modalities, 4)
    backwards = dict(reversed(list(x.items())))
    assert torch.equal(encoder(x).mean, encoder(backwards).mean)


def test_buffers_follow_the_module_and_stay_out_of_its_state():
    encoder = subset_encoder()
    assert not [n for n in encoder.state_dict() if "index" in n]
    assert isinstance(encoder.first.get_buffer("index_0"), torch.Tensor)
    assert encoder.to("meta").first.get_buffer("index_0").device.type == "meta"


def test_an_encoder_without_parameters_is_counted_and_replicated():
    modalities = {"a": Numbers(widths=()), "b": Numbers(size=2, widths=())}
    assert isinstance(modalities["a"].encoder(), nn.Sequential)
    q = subset_encoder(modalities)(observations(modalities, 4))
    assert q.batch_shape == (3, 4)


def test_a_temperature_multiplies_the_deviation_and_zero_is_the_mean():
    q = normal(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 3.0]]))
    torch.manual_seed(0)
    plain = q.rsample((50_000,))
    for temperature in (0.5, 2.0):
        torch.manual_seed(0)
        z = draw(q, temperature, (50_000,))
        torch.testing.assert_close(z, q.mean + temperature * (plain - q.mean))
        torch.testing.assert_close(z.std(0), temperature * q.stddev, rtol=0.02, atol=0)
    torch.manual_seed(0)
    assert torch.equal(draw(q, 1.0, (50_000,)), plain)
    assert torch.equal(draw(q, 0.0, (3,)), q.mean.expand(3, 1, 2))
