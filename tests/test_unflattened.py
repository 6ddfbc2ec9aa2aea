"""A distribution of a flat batch seen with more dimensions: the same values, in another shape."""

import pytest
import torch
from toys import FIVE

from mmgen.nets.unflattened import Unflattened, flat, unflattened

S, B = 3, 4


@pytest.fixture(params=["point", "colour", "picture"])
def pair(request):
    """A decoder's distribution of S · B rows, and the same as (S, B)."""
    torch.manual_seed(0)
    p = FIVE[request.param].decoder(2)(torch.randn(S * B, 2))
    return p, unflattened(p, (S, B))


def test_shapes(pair):
    p, seen = pair
    event = p.event_shape
    assert (seen.batch_shape, seen.event_shape) == ((S, B), event)
    assert seen.mean.shape == seen.mode.shape == (S, B, *event)
    assert seen.sample().shape == (S, B, *event)
    assert seen.sample((5, 2)).shape == (5, 2, S, B, *event)
    assert repr(seen) == f"Unflattened({type(p).__name__}, (3, 4), {tuple(event)})"


def test_values_are_those_of_the_flat_one(pair):
    p, seen = pair
    for moment in ("mean", "variance", "mode"):
        try:
            expected = getattr(p, moment)
        except NotImplementedError:
            continue
        assert torch.equal(getattr(seen, moment).flatten(0, 1), expected)
    assert torch.equal(seen.entropy().flatten(), p.entropy())
    assert str(seen.support) == str(p.support)
    assert seen.has_rsample == p.has_rsample
    drawn = []
    for q in (p, seen):
        torch.manual_seed(1)
        drawn.append(q.sample((2,)))
    assert torch.equal(drawn[0], drawn[1].flatten(1, 2))


def test_densities_meet_values_of_any_shape_that_fits(pair):
    p, seen = pair
    x = p.sample().unflatten(0, (S, B))
    expected = p.log_prob(x.flatten(0, 1)).unflatten(0, (S, B))
    assert torch.equal(seen.log_prob(x), expected)
    # One row for all, a row per column, and more draws in front.
    for value in (x[0, 0], x[0], x[:, :1], torch.stack([x, x.flip(0)])):
        whole = value.expand(torch.broadcast_shapes(value.shape, x.shape))
        each = [p.log_prob(w.flatten(0, 1)) for w in whole.reshape(-1, *x.shape)]
        found = seen.log_prob(value)
        torch.testing.assert_close(found.reshape(-1, S * B), torch.stack(each))


def test_what_is_flat_is_left_as_it_is(pair):
    p, seen = pair
    assert unflattened(p, (S * B,)) is p
    assert flat(p) is p
    assert flat(seen) is p
    assert isinstance(seen, Unflattened)
    assert unflattened(p, (S, 2, 2)).batch_shape == (S, 2, 2)


def test_gradients_flow_through_draws():
    mean = torch.zeros(S * B, 2, requires_grad=True)
    p = torch.distributions.Independent(torch.distributions.Normal(mean, 1.0), 1)
    unflattened(p, (S, B)).rsample((5,)).sum().backward()
    assert torch.equal(mean.grad, torch.full_like(mean, 5.0))
