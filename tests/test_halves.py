"""bfloat16 copies that stand in for weights: what autocast computes, bit for bit."""

import pytest
import torch
from torch import nn

from mmgen.experiment import Experiment
from mmgen.training import session
from mmgen.training.halves import Casts, Halves

MODELS = {
    "jmvae-kl": {"kind": "jmvae-kl"},
    "product": {"kind": "jmvae-kl", "subset_encoder": "product"},
    "drawn subsets": {"kind": "jmvae-kl", "subsets_per_step": 1},
    "hierarchical": {"kind": "hierarchical", "layers": 2},
    "cvae": {"kind": "cvae", "targets": ["image"]},
    "critic": {"kind": "jmvae", "adversarial": {"modality": "image", "channels": [4, 8]}},
}


def trained(model, *, halves, steps=5):
    image = {"kind": "image", "height": 8, "width": 8, "net": "convolution"}
    table = {
        "data": {"source": "synthetic", "rows": 40},
        "modalities": {
            "image": {**image, "convolution_channels": [4, 8], "batch_norm": True},
            "label": {"kind": "label", "classes": ["A", "B"], "encoder_widths": [8]},
        },
        "model": {"latent": 4, **model},
        "train": {"batch_size": 10, "precision": "bfloat16", "device": "cpu"},
    }
    prepared = session.prepare(Experiment.checked(table, "the test"))
    training = prepared.training
    training.model.train()
    if not halves:
        training.backward = training._backward
    torch.manual_seed(1)
    batches = [x for epoch in range(2) for x in prepared.train.epoch(0, epoch)]
    losses = [training.step(x, 1.0)["loss"].item() for x in batches[:steps]]
    return losses, training


@pytest.mark.parametrize("name", MODELS)
def test_steps_are_those_of_autocast_bit_for_bit(name):
    losses, plain = trained(MODELS[name], halves=False)
    found, training = trained(MODELS[name], halves=True)
    assert found == losses
    assert training.halves.weights
    for (n, weight), other in zip(
        training.model.named_parameters(), plain.model.parameters(), strict=True
    ):
        assert weight.equal(other), n
        assert weight.dtype == torch.float32


def test_the_model_keeps_its_weights_whatever_happens():
    _, training = trained(MODELS["jmvae-kl"], halves=True)
    before = {n: id(p) for n, p in training.model.named_parameters()}

    def fails():
        inside = dict(training.model.named_parameters())
        assert any(p.dtype == torch.bfloat16 for p in inside.values())
        assert training.model.like.dtype == torch.float32
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"), training.halves.standing_in():
        fails()
    assert {n: id(p) for n, p in training.model.named_parameters()} == before


def test_a_weight_that_a_step_does_not_read_has_no_gradient():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.read, self.unread = (nn.Linear(3, 3) for _ in range(3))

        def forward(self, x):
            return self.read(self.first(x))

    net = Two()
    halves = Halves(net, [net.read.weight, net.unread.weight])
    with halves.standing_in(), torch.autocast("cpu", torch.bfloat16):
        net(torch.ones(2, 3)).sum().backward()
    assert net.unread.weight.grad is None
    assert net.read.weight.grad.dtype == torch.float32
    assert net.read.weight.grad.abs().sum() > 0


def test_a_weight_in_two_places_is_copied_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    net[2].weight = net[1].weight
    with Casts(net) as casts, torch.autocast("cpu", torch.bfloat16):
        net(torch.ones(2, 3))
    assert any(weight is net[1].weight for weight in casts.found)
    halves = Halves(net, [net[1].weight])
    with halves.standing_in():
        assert net[1].weight is net[2].weight
        assert net[1].weight.dtype == torch.bfloat16
        assert halves.of([net[0].weight])[0] is net[0].weight


def test_copies_follow_weights_that_are_laid_out_otherwise():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3))
    halves = Halves(net, [net[1].weight])
    net[1].weight.data = net[1].weight.data.to(memory_format=torch.channels_last)
    with halves.standing_in():
        assert net[1].weight.stride() == (36, 1, 12, 4)
        assert net[1].weight.float().allclose(halves.weights[0], rtol=0.01)
