import math

import pytest
import torch

from mmgen.latent.gaussian import DiagonalGaussian, standard_normal
from mmgen.latent.product import product, products, products_of, silenced, subset_sums

GRID = torch.linspace(-12, 12, 4801, dtype=torch.float64)
CELL = (GRID[1] - GRID[0]).item()


def experts(M, *batch, Z=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loc = 2 * torch.randn(M, *batch, Z, generator=generator, dtype=torch.float64)
    scale = 0.3 + torch.rand(M, *batch, Z, generator=generator, dtype=torch.float64)
    return DiagonalGaussian(loc, scale)


def on_the_grid(qs):
    """Mean and deviation of the normalised product of one-dimensional densities, by a sum."""
    density = torch.stack([q.log_prob(GRID.unsqueeze(-1)) for q in qs]).sum(0).exp()
    density = density / density.sum()
    mean = (density * GRID).sum()
    return mean, (density * (GRID - mean) ** 2).sum().sqrt()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("M", [1, 2, 4])
def test_a_product_is_the_normalised_product_of_the_densities(M, seed):
    each = experts(M, seed=seed)
    q = product([each[k] for k in range(M)], "q(z | x)")
    mean, deviation = on_the_grid([each[k] for k in range(M)])
    torch.testing.assert_close(q.mean[0], mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.stddev[0], deviation, rtol=1e-9, atol=1e-9)
    assert q.symbol == "q(z | x)"


def test_the_prior_is_one_more_expert():
    each = experts(2)
    p = standard_normal(1, like=each.loc)
    q = product([each[0], each[1], p])
    mean, deviation = on_the_grid([each[0], each[1], p])
    torch.testing.assert_close(q.mean[0], mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.stddev[0], deviation, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("M", [1, 2, 3, 5])
def test_the_products_of_all_subsets_are_those_of_each(M):
    each = experts(M, 4, Z=3)
    q = products(each)
    assert q.batch_shape == (2**M - 1, 4)
    for number in range(1, 2**M):
        members = [each[k] for k in range(M) if number >> k & 1]
        one = product(members)
        torch.testing.assert_close(q[number - 1].loc, one.loc)
        torch.testing.assert_close(q[number - 1].scale, one.scale)


def test_subset_sums_count_in_binary():
    sums = subset_sums(torch.tensor([1, 2, 4, 8]))
    assert sums.tolist() == list(range(1, 16))


def test_an_expert_that_is_silent_for_a_row_is_none_there():
    each = experts(2, 3, Z=2)
    lacking = torch.tensor([False, True, False])
    q = product([each[0], silenced(each[1], lacking)])
    with_both, without = product([each[0], each[1]]), each[0]
    for row, expected in enumerate([with_both, without, with_both]):
        torch.testing.assert_close(q.loc[row], expected.loc[row])
        torch.testing.assert_close(q.scale[row], expected.scale[row])


def test_where_no_expert_says_anything_the_product_is_standard_normal_and_gradients_are_zero():
    each = experts(2, 3, Z=2)
    leaves = [t.requires_grad_() for t in (each.loc, each.scale)]
    lacking = torch.tensor([False, True, False])
    q = product([silenced(each[k], lacking) for k in range(2)])
    assert torch.equal(q.loc[1], torch.zeros(2).double())
    assert torch.equal(q.scale[1], torch.ones(2).double())
    (q.loc.sum() + q.scale.log().sum()).backward()
    for leaf in leaves:
        assert leaf.grad.isfinite().all()
        assert (leaf.grad[:, 1] == 0).all()
        assert (leaf.grad[:, 0] != 0).any()


def test_a_product_is_surer_than_each_of_its_experts():
    each = experts(3, 5, Z=2)
    q = product([each[k] for k in range(3)])
    assert (q.stddev < each.stddev.min(0).values).all()
    n = experts(1)[0]
    many = product([n] * 100)
    assert many.stddev.item() == pytest.approx(n.stddev.item() / math.sqrt(100))


def test_products_of_some_subsets_count_the_prior_once_each():
    each = experts(3, 4, Z=2)
    named = {n: each[k] for k, n in enumerate("abc")}
    wide = DiagonalGaussian(torch.full((2,), 0.5).double(), torch.full((2,), 1.5).double())
    for prior in (standard_normal(2, like=each.loc), wide):
        subsets = [("a", "c"), ("b",), ("a", "b", "c")]
        q = products_of(named, prior, subsets, "q(z | x_S)")
        assert q.batch_shape == (3, 4)
        assert q.symbol == "q(z | x_S)"
        for row, subset in enumerate(subsets):
            # Written out: precisions add up, means are weighted by them.
            precision = prior.scale**-2 + sum(named[n].scale ** -2 for n in subset)
            mean = prior.loc / prior.scale**2 + sum(
                named[n].loc / named[n].scale ** 2 for n in subset
            )
            torch.testing.assert_close(q[row].mean, mean / precision)
            torch.testing.assert_close(q[row].variance, 1 / precision)
