"""The families draw what their densities say."""

import math

import pytest
import torch

from mmgen.nets.blocks import bernoulli, one_hot

DRAWS = 20_000


def within(frequencies, p, draws=DRAWS):
    return bool(((frequencies - p).abs() < 5 * (p * (1 - p) / draws).sqrt() + 1e-9).all())


def test_bernoulli_pixels_are_drawn_with_their_probability():
    logits = torch.tensor([[[-40.0, -3.0], [0.0, 2.0]], [[40.0, 1.0], [-1.0, -0.1]]])
    x = bernoulli(logits).sample((DRAWS,))
    assert x.shape == (DRAWS, 2, 2, 2)
    assert x.dtype == logits.dtype
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert within(x.mean(0), logits.sigmoid())
    assert bernoulli(logits).sample().shape == (2, 2, 2)


def test_pixels_are_drawn_independently():
    x = bernoulli(torch.zeros(1, 2)).sample((DRAWS,))[:, 0]
    both = x.prod(-1).mean()
    assert abs(both - 0.25) < 5 * math.sqrt(0.25 * 0.75 / DRAWS)


@pytest.mark.parametrize("classes", [2, 10])
def test_one_hot_rows_are_drawn_with_their_probability(classes):
    torch.manual_seed(0)
    logits = 2 * torch.randn(3, classes)
    logits[0, -1] = -torch.inf  # never
    x = one_hot(logits).sample((DRAWS,))
    assert x.shape == (DRAWS, 3, classes)
    assert x.dtype == logits.dtype
    assert (x.sum(-1) == 1).all()
    assert within(x.mean(0), logits.softmax(-1))
    assert x[:, 0, -1].sum() == 0
    assert one_hot(logits).sample().shape == (3, classes)


def test_a_sure_class_is_always_drawn():
    logits = torch.full((500, 4), -torch.inf)
    logits[:, 3] = 0
    assert (one_hot(logits).sample((50,))[..., 3] == 1).all()


def test_what_is_drawn_has_a_finite_density():
    torch.manual_seed(0)
    for q in (bernoulli(5 * torch.randn(4, 9)), one_hot(5 * torch.randn(4, 9))):
        assert q.log_prob(q.sample((100,))).isfinite().all()
