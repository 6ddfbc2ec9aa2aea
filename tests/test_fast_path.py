"""What is computed faster than torch's own: the same to within rounding, and as random."""

import pytest
import torch
import torch.nn.functional as F

from mmgen.nets.blocks import bernoulli
from mmgen_image import Image


def test_a_bernoulli_is_a_cross_entropy_with_its_gradient():
    logits = torch.linspace(-60, 60, 2001, requires_grad=True)
    for x in (0.0, 1.0):
        value = torch.full_like(logits, x)
        found = bernoulli(logits.unsqueeze(1)).log_prob(value.unsqueeze(1))
        exact = -F.binary_cross_entropy_with_logits(
            logits.double(), value.double(), reduction="none"
        )
        assert (found - exact).abs().max() < 2e-7 * 60
        (slope,) = torch.autograd.grad(found.sum(), logits)
        assert (slope - (value - logits.double().sigmoid())).abs().max() < 2e-7


def test_a_bernoulli_in_double_precision_has_all_its_derivatives():
    logits = torch.tensor([[-30.0, -1.0, 0.0, 2.0, 30.0]], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0]], dtype=torch.float64)

    def log_p(logits):
        return bernoulli(logits).log_prob(x)

    assert torch.autograd.gradcheck(log_p, logits)
    assert torch.autograd.gradgradcheck(log_p, logits)
    one_by_one = torch.vmap(lambda row: bernoulli(row.unsqueeze(0)).log_prob(x))
    assert one_by_one(logits).item() == pytest.approx(log_p(logits).item())


def test_infinite_and_missing_logits_are_seen():
    p = bernoulli(torch.tensor([[float("nan")], [float("inf")]]))
    assert not p.log_prob(torch.zeros(2, 1)).isfinite().any()


def test_pixels_are_binarised_as_often_as_they_are_bright():
    image = Image(channels=1, height=16, width=16)
    stored = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(4000, -1, -1, -1)
    x = image.observe(stored, torch.Generator().manual_seed(0))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    p = torch.arange(256).reshape(16, 16) / 255
    error = (x.mean((0, 1)) - p) / (p * (1 - p) / 4000).sqrt().clamp_min(1e-9)
    assert error.abs().max() < 4.5
    assert error.square().mean() == pytest.approx(1, abs=0.25)
    assert x[:, 0, 0, 0].sum() == 0
    assert x[:, 0, -1, -1].sum() == 4000
    again = image.observe(stored, torch.Generator().manual_seed(0))
    assert again.equal(x)
