"""One encoder per subset: the parameters of each net alone, and as many nets as the formula."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import Numbers, Opaque, Word, made, observations, toy_modalities

from mmgen.errors import ConfigError
from mmgen.latent.encoder import BatchedLinear, SubsetEncoder, SumOfProjections
from mmgen.subsets import proper, subset_encoder_nets

THREE = {"colour": Word(), "point": Numbers(), "wave": Opaque(size=2)}
SUBSETS = [*proper(tuple(THREE)), tuple(THREE)]

WAYS = {
    "copies": {},
    "shared": {"shared": True},
    "apart": {"apart": True},
    "shared, apart": {"shared": True, "apart": True},
}


@pytest.fixture(params=WAYS)
def way(request):
    """What the subsets of an encoder share, and how their weights are held."""
    return WAYS[request.param]


def subset_encoder(modalities=THREE, fusion=(), seed=0, **way):
    torch.manual_seed(seed)
    subsets = [*proper(tuple(modalities)), tuple(modalities)]
    return SubsetEncoder(modalities, subsets, 6, fusion, **way)


def concatenated(encoder, x, number):
    """The same parameters in the plain way: run each net, concatenate, multiply."""
    subset, weights = encoder.subsets[number], encoder.first.weights
    copies = {n: encoder.members[n].index(number) for n in subset}
    h = torch.cat([encoder.encoders[n](x[n])[copies[n]] for n in subset], dim=-1)
    weight = torch.cat([weights[n][copies[n]] for n in subset])
    h = F.linear(h, weight.T, encoder.first.bias[number])
    for layer in encoder.rest:
        h = F.linear(h.relu(), layer.weight[number].T, layer.bias[number][0])
    return h


@pytest.mark.parametrize("fusion", [(), (7,), (7, 5)])
def test_a_sum_of_projections_is_a_linear_layer_of_the_concatenation(fusion, way):
    ours, plain = (subset_encoder(fusion=fusion, **way).double() for _ in range(2))
    x = {n: t.double() for n, t in observations(THREE, 5).items()}
    found = ours(x)
    assert found.shape == (7, 5, 6)
    expected = torch.stack([concatenated(plain, x, number) for number in range(7)])
    torch.testing.assert_close(found, expected)

    scale = torch.linspace(1, 2, 6)
    (found * scale).square().sum().backward()
    (expected * scale).square().sum().backward()
    for (name, p), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert p.grad.abs().sum() > 0, name
        torch.testing.assert_close(p.grad, other.grad, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("fusion", [(), (7, 5)])
@pytest.mark.parametrize("number", range(7), ids=["+".join(s) for s in SUBSETS])
def test_a_subset_alone_is_its_row_of_the_full_pass(number, fusion, way):
    encoder = subset_encoder(fusion=fusion, **way)
    x = observations(THREE, 5)
    subset = encoder.subsets[number]
    row = encoder(x)[number : number + 1]
    alone = encoder(x.select(subset), subset)
    torch.testing.assert_close(alone, row)
    # What is outside it is not read, and members may be encoded one by one.
    assert torch.equal(encoder(x, subset), alone)
    parts = [encoder.encode_each(x.select([n]), subset) for n in subset]
    joined = encoder.join({n: h for part in parts for n, h in part.items()}, subset)
    assert torch.equal(joined, alone)


@pytest.mark.parametrize("fusion", [(), (7,)])
@pytest.mark.parametrize("numbers", [(2,), (5, 0, 6), (6, 4, 3, 2, 1, 0)], ids=str)
def test_some_subsets_are_their_rows_of_the_full_pass_in_the_order_asked_for(numbers, fusion, way):
    encoder = subset_encoder(fusion=fusion, **way)
    x = observations(THREE, 5)
    some = encoder.some(x, [SUBSETS[number] for number in numbers])
    torch.testing.assert_close(some, encoder(x)[[*numbers]])


@pytest.mark.parametrize("shared", [False, True])
def test_weights_apart_of_subsets_that_did_not_run_get_no_gradient(shared):
    encoder = subset_encoder(fusion=(7,), apart=True, shared=shared)
    ran = [SUBSETS[1], SUBSETS[4]]
    encoder.some(observations(THREE, 5), ran).square().sum().backward()
    trained = {name for name, p in encoder.named_parameters() if p.grad is not None}
    expected = set()
    for number in (1, 4):
        expected |= {f"first.bias.{number}", f"rest.0.weight.{number}", f"rest.0.bias.{number}"}
        for n in SUBSETS[number]:
            copy = encoder.members[n].index(number)
            net = f"encoders.{n}.net." if shared else f"encoders.{n}.nets.{copy}."
            expected.add(f"first.weights.{n}.{copy}")
            expected |= {name for name, _ in encoder.named_parameters() if name.startswith(net)}
    assert trained == expected


@pytest.mark.parametrize("apart", [False, True])
def test_shared_trunks_learn_from_the_last_subset_alone_if_so_asked(apart):
    found = []
    for last_teaches, rows in ((True, slice(None)), (False, slice(-1, None))):
        encoder = subset_encoder(shared=True, last_teaches=last_teaches, apart=apart)
        encoder(observations(THREE, 5))[rows].square().sum().backward()
        found.append([p.grad for p in encoder.encoders.parameters()])
        if last_teaches:  # the others learn what comes after
            after = [p.grad for p in encoder.first.parameters()]
            each = after if apart else [row for gradient in after for row in gradient]
            assert len(each) == 12 + 7
            assert all(gradient.abs().sum() > 0 for gradient in each)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_weights_apart_have_a_limit_known_before_they_are_made():
    def apart(K, fusion=(), **way):
        modalities = {f"m{k}": Numbers() for k in range(K)}
        SubsetEncoder(modalities, proper(tuple(modalities)), 6, fusion, apart=True, **way)

    weights = (2**10 - 1) * 11 * 3 + 2**11 - 2
    with pytest.raises(ConfigError, match=f"subsets_per_step: .* {weights:,} of all") as error:
        apart(11)
    assert "30,000 are the most" in str(error.value)
    assert 'subset_encoder="shared"' in str(error.value)
    with pytest.raises(ConfigError, match="of all") as error:
        apart(12, (4,), shared=True)
    assert "shared" not in str(error.value)
    assert 'subset_encoder="product"' in str(error.value)


@pytest.mark.parametrize("fusion", [(), (7,)])
def test_a_subset_does_not_see_the_modalities_outside_it(fusion, way):
    encoder = subset_encoder(fusion=fusion, **way)
    x, other = observations(THREE, 5, seed=0), observations(THREE, 5, seed=1)
    before = encoder(x)
    for name in THREE:
        after = encoder({**x, name: other[name]})
        for number, subset in enumerate(encoder.subsets):
            unchanged = torch.equal(before[number], after[number])
            assert unchanged == (name not in subset), (name, subset)


def test_a_row_does_not_see_the_other_rows():
    encoder = subset_encoder(fusion=(7,))
    x = observations(THREE, 5)
    torch.testing.assert_close(encoder(x.slice(2, 3)), encoder(x)[:, 2:3])


@pytest.mark.parametrize("K", range(2, 9))
def test_all_subset_encoders_together_are_made_of_the_formulas_nets(K):
    modalities = {f"m{k}": Numbers(size=2, widths=(3,)) for k in range(K)}
    model = made("jmvae-kl", modalities, latent=2, subsets="all")
    nets = [*model.encoder_nets()]
    assert [copies for copies, _ in nets] == [2 ** (K - 1)] * K
    assert sum(copies for copies, _ in nets) == subset_encoder_nets(K) == 2 ** (K - 1) * K
    # As many parameters as that many nets have, and no more.
    one = sum(p.numel() for p in Numbers(size=2, widths=(3,)).encoder().parameters())
    assert sum(p.numel() for _, net in nets for p in net.parameters()) == 2 ** (K - 1) * K * one


def test_two_and_three_modalities_need_four_and_twelve_times_the_parameters():
    for K, times in ((2, 4), (3, 12)):
        modalities = {f"m{k}": Numbers() for k in range(K)}
        model = made("jmvae-kl", modalities, latent=2, subsets="all")
        M = sum(p.numel() for p in Numbers().encoder().parameters())
        assert sum(p.numel() for _, net in model.encoder_nets() for p in net.parameters()) == (
            times * M
        )


def test_only_the_chosen_subsets_get_nets():
    model = made("jmvae-kl", THREE, latent=2, subsets=["colour", "wave+colour"])
    assert [copies for copies, _ in model.encoder_nets()] == [3, 1, 2]
    x = observations(THREE, 2)
    assert model.posterior(x.select(["wave", "colour"])) is not None
    assert model.posterior(x.select(["wave"])) is None
    assert model.posterior(x.select([])) is None


def test_first_weights_are_drawn_as_for_a_linear_layer_of_the_concatenation():
    torch.manual_seed(0)
    subsets = [("a",), ("a", "b")]
    first = SumOfProjections({"a": 30, "b": 70}, subsets, 200)
    for weight, width in (
        (first.weights["a"][0], 30),
        (first.bias[0], 30),
        (first.weights["a"][1], 100),
        (first.weights["b"][0], 100),
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


def test_the_order_of_a_batch_does_not_matter():
    modalities = toy_modalities(3)
    encoder = subset_encoder(modalities)
    x = observations(modalities, 4)
    backwards = dict(reversed(list(x.items())))
    assert torch.equal(encoder(x), encoder(backwards))


def test_buffers_follow_the_module_and_stay_out_of_its_state():
    encoder = subset_encoder()
    assert not [n for n in encoder.state_dict() if "index" in n]
    assert isinstance(encoder.first.get_buffer("index_0"), torch.Tensor)
    assert encoder.to("meta").first.get_buffer("index_0").device.type == "meta"


def test_an_encoder_without_parameters_is_counted_and_replicated():
    modalities = {"a": Numbers(widths=()), "b": Numbers(size=2, widths=())}
    assert isinstance(modalities["a"].encoder(), nn.Sequential)
    assert subset_encoder(modalities)(observations(modalities, 4)).shape == (3, 4, 6)


@pytest.mark.parametrize("fusion", [(), (7, 5)])
def test_the_last_subset_may_have_another_number_of_parameters(fusion, way):
    torch.manual_seed(0)
    encoder = SubsetEncoder(THREE, SUBSETS, 9, fusion, last_out=6, **way)
    x = observations(THREE, 5)
    others, last = encoder.split(x)
    assert (others.shape, last.shape) == ((6, 5, 9), (5, 6))
    for number, subset in enumerate(SUBSETS[:-1]):
        torch.testing.assert_close(encoder(x, subset)[0], others[number])
    torch.testing.assert_close(encoder(x, SUBSETS[-1])[0], last)
    joined = encoder.join(encoder.encode_each(x, SUBSETS[-1]), SUBSETS[-1])[0]
    torch.testing.assert_close(joined, last)
    some, again = encoder.split(x, [SUBSETS[4], SUBSETS[1]])
    torch.testing.assert_close(some, others[[4, 1]])
    torch.testing.assert_close(again, last)


@pytest.mark.parametrize("fusion", [(), (7,)])
def test_of_one_width_the_split_pass_is_the_full_one(fusion, way):
    encoder, x = subset_encoder(fusion=fusion, **way), observations(THREE, 5)
    others, last = encoder.split(x)
    assert torch.equal(torch.cat([others, last.unsqueeze(0)]), encoder(x))
    assert not [name for name, _ in encoder.named_parameters() if name.startswith("last.")]
