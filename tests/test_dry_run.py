"""Shapes without values: a run is loaded without torch's compiler, whatever its model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmgen.nets.blocks import convolutional_decoder, convolutional_encoder, mlp
from mmgen.nets.dry_run import features, without_rows
from mmgen.nets.wide import stack

OLD = Path(__file__).parent / "old_runs"

LOAD = f"""
import sys
from pathlib import Path
import mmgen
for path in sorted(p for p in Path({str(OLD)!r}).iterdir() if p.is_dir()):
    run = mmgen.load(path)
    if run.model.directions is None:
        run.generate(samples=2)
heavy = [m for m in ("torch._dynamo", "sympy", "matplotlib", "PIL") if m in sys.modules]
assert not heavy, heavy
"""


def test_a_run_of_any_model_is_loaded_without_what_only_compilers_need():
    done = subprocess.run([sys.executable, "-c", LOAD], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Guesses(nn.Module):
    """Its size of an empty batch is ambiguous."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 5)

    def forward(self, x):
        return self.linear(x.reshape(len(x), -1))


NETS = {
    "mlp": (lambda: nn.Sequential(nn.Flatten(), mlp(12, (7, 5), batch_norm=True)), (3, 4)),
    "convolution": (
        lambda: convolutional_encoder((3, 16, 16), (4, 8), batch_norm=True),
        (3, 16, 16),
    ),
    "guesses": (Guesses, (3, 4)),
}


@pytest.mark.parametrize("name", NETS)
def test_features_are_those_of_the_net_itself(name):
    make, shape = NETS[name]
    with torch.device("meta"):
        sketch = make()
    net = make()
    assert (
        features(sketch, shape)
        == features(net, shape)
        == net.eval()(torch.zeros(2, *shape)).shape[-1]
    )
    assert sketch.training
    assert all(p.is_meta for p in sketch.parameters())


def test_what_guesses_sizes_is_not_run_without_rows():
    with torch.device("meta"):
        assert without_rows(Guesses(), (3, 4)) is None


def test_weights_that_fit_nowhere_take_no_memory():
    with torch.device("meta"):
        small, huge = nn.Linear(4, 2**24), nn.Linear(4, 2**30)
    assert without_rows(small, (4,)).shape == (0, 2**24)
    assert without_rows(huge, (4,)) is None
    assert features(huge, (4,)) == 2**30


def test_a_decoder_is_run_without_rows():
    with torch.device("meta"):
        decoder = convolutional_decoder(6, (3, 16, 16), (4, 8))
    assert without_rows(decoder, (6,)).shape == (0, 3, 16, 16)


def test_a_stack_has_the_same_form_on_the_meta_device():
    each = [torch.randn(2, 3, dtype=torch.float64).mT for _ in range(4)]
    meta = stack([t.to("meta") for t in each])
    assert stack(each).equal(torch.stack(each))
    assert (meta.shape, meta.dtype) == (stack(each).shape, torch.float64)
    assert meta.is_contiguous()
