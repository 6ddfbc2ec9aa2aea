from copy import deepcopy
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from mmgen.nets.blocks import convolutional_decoder, convolutional_encoder, mlp
from mmgen.nets.dry_run import features
from mmgen.nets.replicate import Looped, Vectorised, Way, replicate, vectorised
from mmgen.nets.wide import WideLinear

COPIES = 3


def conv_norm(norm):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), norm(), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten()
    )


# Each a net, and the shape of one of its observations.
NETS = {
    "linear": (lambda: nn.Linear(5, 4), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 4, bias=False), (5,)),
    "mlp": (lambda: mlp(5, [7, 6], 4), (5,)),
    "linear layers without bias": (
        lambda: nn.Sequential(nn.Linear(5, 7, bias=False), nn.Tanh(), nn.Linear(7, 3, bias=False)),
        (5,),
    ),
    "linear over rows of a matrix": (
        lambda: nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3), nn.Flatten()),
        (2, 5),
    ),
    "nested": (
        lambda: nn.Sequential(
            nn.Sequential(nn.Linear(5, 7), nn.Sequential(nn.ELU())), nn.Sequential(nn.Linear(7, 4))
        ),
        (5,),
    ),
    "activation first": (lambda: nn.Sequential(nn.Tanh(), nn.Linear(5, 4), nn.Softplus()), (5,)),
    "no weights": (lambda: nn.Sequential(nn.Tanh(), nn.Flatten()), (2, 3)),
    "no layers": (nn.Sequential, (5,)),
    "convolutional encoder": (lambda: convolutional_encoder((2, 9, 8), [4, 6]), (2, 9, 8)),
    "stride, padding, dilation": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 2)),
            nn.SiLU(),
            nn.Conv2d(4, 3, 3, dilation=2, bias=False),
            nn.Flatten(),
        ),
        (2, 11, 9),
    ),
    "padding same": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding="same"), nn.Conv2d(4, 2, 5, padding="same"), nn.Flatten()
        ),
        (2, 5, 6),
    ),
    "groups, first and later": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=4), nn.Flatten()
        ),
        (4, 7, 7),
    ),
    "the decoder of faces": (
        lambda: nn.Sequential(
            convolutional_decoder(3, (2, 9, 8), [4, 6], batch_norm=True), nn.Flatten()
        ),
        (3,),
    ),
    "transposed: stride, padding, dilation": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0)),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 3, dilation=2, bias=False),
            nn.Flatten(),
        ),
        (2, 5, 4),
    ),
    "transposed: groups, first and later": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(4, 8, 3, groups=2),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 3, groups=4),
            nn.Flatten(),
        ),
        (4, 4, 5),
    ),
    "transposed in one dimension": (
        lambda: nn.Sequential(nn.ConvTranspose1d(2, 4, 3), nn.ReLU(), nn.Flatten()),
        (2, 8),
    ),
    "convolution in one dimension": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 3, 2), nn.Flatten()),
        (2, 8),
    ),
    "convolution in three dimensions": (
        lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.ReLU(), nn.Conv3d(2, 2, 2), nn.Flatten()),
        (1, 4, 3, 4),
    ),
    "batch norm of pictures": (lambda: conv_norm(lambda: nn.BatchNorm2d(4)), (2, 6, 6)),
    "batch norm of features": (
        lambda: nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, momentum=0.3), nn.ReLU()),
        (5,),
    ),
    "batch norm first": (lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)), (5,)),
    "batch norm of sequences": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten()),
        (2, 8),
    ),
    "batch norm of volumes": (
        lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2), nn.Flatten()),
        (1, 3, 3, 3),
    ),
    "group norm": (lambda: conv_norm(lambda: nn.GroupNorm(2, 4, eps=1e-3)), (2, 6, 6)),
    "group norm first": (
        lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 3, 2), nn.Flatten()),
        (4, 3, 3),
    ),
    "layer norm of features": (
        lambda: nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7, eps=1e-2), nn.Linear(7, 2)),
        (5,),
    ),
    "layer norm of pictures": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.LayerNorm((4, 4, 4)), nn.Flatten()),
        (2, 6, 6),
    ),
    "layer norm of the last dimension alone": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.LayerNorm(4), nn.Flatten()),
        (2, 6, 6),
    ),
    "layer norm first": (lambda: nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 2)), (5,)),
    "max pooling": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        (2, 7, 8),
    ),
    "average pooling": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
        (2, 7, 8),
    ),
    "pooling first": (
        lambda: nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(2, 3, 2), nn.AdaptiveMaxPool2d(2), nn.Flatten()
        ),
        (2, 8, 8),
    ),
    "unflatten and flatten": (
        lambda: nn.Sequential(
            nn.Linear(5, 12),
            nn.Unflatten(1, (3, 2, 2)),
            nn.Conv2d(3, 4, 2, padding=1),
            nn.Flatten(2, 3),
            nn.Flatten(1, -1),
            nn.Linear(36, 2),
        ),
        (5,),
    ),
    "unflatten in the middle": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2), nn.Flatten()
        ),
        (2, 5, 5),
    ),
    "dropout, which rests in eval mode": (
        lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 4), nn.Dropout(0.3), nn.Linear(4, 2)),
        (5,),
    ),
    "in-place activations": (
        lambda: nn.Sequential(
            nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3), nn.ELU(inplace=True)
        ),
        (5,),
    ),
}


def pair(make):
    """Makes a wide module and a loop with the same weights."""
    nets = [make() for _ in range(COPIES)]
    wide = vectorised(nets)
    assert isinstance(wide, Vectorised)
    return wide, Looped(deepcopy(nets))


def flattened(net):
    children = [net] if not isinstance(net, nn.Sequential) else net
    return [x for c in children for x in (flattened(c) if isinstance(c, nn.Sequential) else [c])]


def assert_alike(wide, loop, what):
    """Compares a tensor of each layer and copy; ``what`` picks it from a layer by its name."""
    compared = 0
    for number, layer in enumerate(wide.layers):
        for name in [*dict(layer.named_parameters()), *dict(layer.named_buffers())]:
            for copy, net in enumerate(loop.nets):
                ours, theirs = what(layer, name), what(flattened(net)[number], name)
                if ours is not None or theirs is not None:
                    ours = None if ours is None else transposed(layer, name, ours[copy])
                    torch.testing.assert_close(ours, theirs)
                    compared += 1
    return compared


def transposed(layer, name, tensor):
    """Wide linear layers hold their weights as (in, out)."""
    return tensor.mT if isinstance(layer, WideLinear) and name == "weight" else tensor


def value(layer, name):
    return getattr(layer, name).detach()


def gradient(layer, name):
    return getattr(layer, name).grad


def batch(shape, rows=4):
    return torch.randn(rows, *shape)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("way", get_args(Way))
def test_stacked_equals_separate_in_values_gradients_and_running_statistics(name, training, way):
    torch.manual_seed(0)
    make, shape = NETS[name]
    wide, loop = pair(make)
    wide.way = way
    training = training and "dropout" not in name
    wide.train(training), loop.train(training)
    # Two passes, so that running statistics that were not updated are found out.
    for _ in range(2):
        x = batch(shape)
        x_wide, x_loop = x.clone().requires_grad_(), x.clone().requires_grad_()
        out, expected = wide(x_wide), loop(x_loop)
        assert out.shape == expected.shape
        torch.testing.assert_close(out, expected)
        weights = torch.randn_like(expected)
        (out * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(x_wide.grad, x_loop.grad)
    parameters = sum(len(list(net.parameters())) for net in loop.nets)
    assert assert_alike(wide, loop, gradient) == parameters
    assert_alike(wide, loop, value)


@pytest.mark.parametrize("name", NETS)
def test_selected_copies_equal_those_of_the_full_pass(name):
    torch.manual_seed(0)
    make, shape = NETS[name]
    wide, loop = pair(make)
    wide.eval(), loop.eval()
    x = batch(shape)
    for only in ([0], [2], [2, 0], [0, 1, 2]):
        torch.testing.assert_close(wide(x, only), loop(x)[only])
        torch.testing.assert_close(loop(x, only), loop(x)[only])


def test_double_precision_stays():
    wide, loop = pair(lambda: conv_norm(lambda: nn.BatchNorm2d(4)))
    wide.double(), loop.double()
    x = batch((2, 6, 6)).double()
    out = wide(x)
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, loop(x), rtol=1e-12, atol=1e-12)


def test_copies_start_with_weights_of_their_own():
    out = replicate(lambda: mlp(5, [7], 4), COPIES)(torch.ones(1, 5))
    assert len({tuple(row) for row in out.detach()[:, 0].tolist()}) == COPIES


def test_a_copy_has_the_first_weights_that_a_single_net_would_have():
    torch.manual_seed(0)
    wide = replicate(lambda: nn.Linear(5, 4), COPIES)
    torch.manual_seed(0)
    for copy in range(COPIES):
        assert torch.equal(wide.layers[0].weight[copy].mT, nn.Linear(5, 4).weight)


@pytest.mark.parametrize("way", get_args(Way))
def test_each_copy_drops_its_own_features(way):
    torch.manual_seed(0)
    wide = replicate(lambda: nn.Sequential(nn.Dropout(0.5), nn.Flatten()), 2)
    wide.way = way
    first, second = wide(torch.ones(1, 64))
    assert set(first.flatten().tolist()) == {0.0, 2.0}
    assert not torch.equal(first, second)


def test_the_input_is_left_as_it_was():
    x = batch((5,))
    before = x.clone()
    replicate(lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True)), COPIES)(x)
    assert torch.equal(x, before)


class Doubled(nn.Linear):
    """A subclass that computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


class Residual(nn.Module):
    """A net that is no chain of layers."""

    def __init__(self):
        super().__init__()
        self.net = mlp(5, [7], 5)

    def forward(self, x):
        return x + self.net(x)


class Reversed(nn.Sequential):
    """A Sequential that is none."""

    def forward(self, x):
        return super().forward(x.flip(-1))


UNKNOWN = {
    "a subclass": lambda: Doubled(5, 4),
    "no chain": lambda: nn.Sequential(Residual(), nn.Linear(5, 4)),
    "a subclass of Sequential": lambda: Reversed(nn.Linear(5, 4)),
    "a layer that is not known": lambda: nn.Sequential(nn.Linear(5, 4), nn.PReLU(4)),
    "a softmax": lambda: nn.Sequential(nn.Linear(5, 4), nn.Softmax(-1)),
    "a norm without weights": lambda: nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4, bias=False)),
    "statistics that are not tracked": lambda: nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False)
    ),
    "statistics that are averaged": lambda: nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=None)
    ),
    "a negative dimension": lambda: nn.Sequential(nn.Linear(5, 4), nn.Flatten(-1)),
    "a parametrisation": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 4))),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_net_with_an_unknown_layer_runs_as_a_loop(name):
    torch.manual_seed(0)
    nets = [UNKNOWN[name]() for _ in range(COPIES)]
    made = iter(nets)
    module = replicate(lambda: next(made), COPIES).eval()
    assert isinstance(module, Looped)
    x = batch((5,))
    torch.testing.assert_close(module(x), torch.stack([net(x) for net in nets]))


def test_circular_padding_is_not_taken_for_zeros():
    module = replicate(lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), COPIES)
    assert isinstance(module, Looped)


def test_nets_that_differ_run_as_a_loop():
    widths = iter([3, 4, 3])
    module = replicate(lambda: mlp(5, [next(widths)], 2), 3)
    assert isinstance(module, Looped)
    assert module(batch((5,))).shape == (3, 4, 2)


def hooked(register):
    """Returns nets on which the hook that ``register`` adds counts its calls."""
    calls = []

    def make():
        net = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
        register(net, lambda *_: calls.append(1))
        return net

    return make, calls


@pytest.mark.parametrize(
    "register",
    [
        lambda net, hook: net[0].register_forward_hook(hook),
        lambda net, hook: net[0].register_forward_pre_hook(hook),
        lambda net, hook: net[0].register_full_backward_hook(hook),
        lambda net, hook: net[0].register_full_backward_pre_hook(hook),
        lambda net, hook: net.register_forward_hook(hook),
        lambda net, hook: net.register_forward_pre_hook(hook),
    ],
    ids=["forward", "before", "backward", "before backward", "of the net", "before the net"],
)
def test_no_hook_is_lost(register):
    make, calls = hooked(register)
    replicate(make, COPIES)(batch((5,)).requires_grad_()).sum().backward()
    assert len(calls) == COPIES


def test_a_frozen_layer_stays_frozen():
    def make():
        net = mlp(5, [7], 4)
        net[0].requires_grad_(False)
        return net

    module = replicate(make, COPIES)
    module(batch((5,))).sum().backward()
    frozen = [p for p in module.parameters() if p.grad is None]
    assert sum(p.numel() for p in frozen) == COPIES * (5 * 7 + 7)


def test_a_layer_that_is_used_twice_stays_one_layer():
    def make():
        layer = nn.Linear(5, 5)
        return nn.Sequential(layer, nn.Tanh(), layer)

    module = replicate(make, COPIES)
    assert sum(p.numel() for p in module.parameters()) == COPIES * 30


@pytest.mark.parametrize("name", ["convolutional encoder", "batch norm of features", "no layers"])
def test_copies_run_without_memory(name):
    make, shape = NETS[name]
    with torch.device("meta"):
        module = replicate(make, COPIES)
    x = torch.empty(4, *shape, device="meta")
    for out in (module(x), module.eval()(x, [1])):
        assert out.device.type == "meta"


def test_features_are_counted_without_a_trace():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    before = deepcopy(net.state_dict())
    assert features(net, (2, 6, 6)) == 64
    assert features(nn.Flatten(), (2, 3)) == 6
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())
    assert net.training
    assert all(p.grad is None for p in net.parameters())
