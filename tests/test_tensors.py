"""Files of tensors: what the safetensors library reads, and what they cost in memory."""

import json
import re
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import nn
from toys import differing

from mmgen.errors import RunError, WriteError
from mmgen.experiment import Experiment
from mmgen.files.reading import Reader
from mmgen.files.tensors import DTYPES, open_tensors, tensor_bytes, write_tensors
from mmgen.training import run_folder
from mmgen.training.loop import Training, adam

MB = 2**20
READER = Reader(RunError)


def bits(tensor):
    """The bytes of a tensor: of two that are equal bit for bit, NaN and −0 included."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def odd_tensors():
    """Tensors of every dtype, and of every way to lie in memory."""
    torch.manual_seed(0)
    noise = torch.randint(256, (64,), dtype=torch.uint8)
    every = {name: noise.clone().view(dtype) for name, dtype in DTYPES.items() if name != "BOOL"}
    every["BOOL"] = noise > 100
    grid = torch.randn(6, 10)
    return {
        **every,
        "none": torch.tensor(2.5),
        "no rows": torch.empty(0, 3),
        "no columns": torch.empty(3, 0, dtype=torch.bfloat16),
        "grid": grid,
        "transposed": grid.T,
        "every other": grid[::2, 1::3],
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "end of the grid": grid[4:],
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "learns": nn.Parameter(torch.randn(3)),
        "random state": torch.get_rng_state(),
        "naïve/名前 \"'\\": torch.tensor([float("nan"), -0.0, float("inf")]),
    }


def test_the_library_reads_every_tensor_bit_for_bit(tmp_path):
    written = odd_tensors()
    write_tensors(tmp_path / "file", written, {"about": 'words, "quoted" é'})
    read = load_file(tmp_path / "file")
    assert read.keys() == written.keys()
    for name, tensor in ((n, t.detach().resolve_conj()) for n, t in written.items()):
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(bits(read[name]), bits(tensor)), name
    with safe_open(tmp_path / "file", framework="pt") as file:
        assert file.metadata() == {"about": 'words, "quoted" é'}


def test_what_is_read_is_what_was_written_wherever_it_is_read_to(tmp_path):
    written = {n: t.detach().resolve_conj() for n, t in odd_tensors().items()}
    write_tensors(tmp_path / "file", written, {"mmgen": '{"about": "words"}'})
    with open_tensors(tmp_path / "file", READER) as file:
        assert file.header == {"about": "words"}
        for name, tensor in written.items():
            assert torch.equal(bits(file[name]), bits(tensor)), name
            same = torch.zeros(tensor.shape, dtype=tensor.dtype)
            strided = torch.zeros(*tensor.shape, 2, dtype=tensor.dtype)[..., 1]
            for place in (same, strided):
                file.read_into(place, name)
                assert torch.equal(bits(place), bits(tensor)), name
        double = torch.zeros(6, 10, dtype=torch.float64)
        file.read_into(double, "grid")
        assert torch.equal(double, written["grid"].double())


def test_one_number_of_any_stride_is_written(tmp_path):
    one = torch.arange(4.0).reshape(2, 2)[1:, 0]
    assert (one.stride(), one.is_contiguous()) == ((2,), True)
    assert bytes(tensor_bytes(one)) == one.numpy().tobytes()


def test_files_of_the_library_are_read(tmp_path):
    written = {"a": torch.randn(3, 4), "b": torch.tensor(7), "c": torch.randn(2).bfloat16()}
    save_file(written, tmp_path / "file")
    with open_tensors(tmp_path / "file", READER) as file:
        assert differing(written, {name: file[name] for name in file}) == []
        assert file.header == {}


def test_the_bytes_are_those_of_the_library(tmp_path):
    written = {"b": torch.randn(3, 4), "a": torch.randn(2), "step": torch.tensor(7)}
    write_tensors(tmp_path / "file", written, {"about": "words"})
    assert (tmp_path / "file").read_bytes() == save(written, {"about": "words"})


def test_every_tensor_begins_at_a_multiple_of_its_elements_size(tmp_path):
    write_tensors(tmp_path / "file", odd_tensors(), {})
    content = (tmp_path / "file").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    entries = json.loads(content[8 : 8 + length])
    del entries["__metadata__"]
    assert all(e["data_offsets"][0] % DTYPES[e["dtype"]].itemsize == 0 for e in entries.values())


def test_a_type_without_a_name_is_refused_before_anything_is_written(tmp_path):
    wide = {"a": torch.ones(1), "b": torch.ones(1, dtype=torch.complex128)}
    with pytest.raises(WriteError, match=r"complex128, as b is"):
        write_tensors(tmp_path / "file", wide, {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path):
    write_tensors(tmp_path / "file", {"a": torch.ones(100_000), "b": torch.ones(100_000)}, {})
    with open_tensors(tmp_path / "file", READER) as file:
        with (tmp_path / "file").open("r+b") as cut:
            cut.truncate(500_000)
        assert torch.equal(file["a"], torch.ones(100_000))
        with pytest.raises(RunError, match="ends within 'b'"):
            file["b"]


# What it costs.


CLEAR = Path("/proc/self/clear_refs")

on_linux = pytest.mark.skipif(not CLEAR.exists(), reason="reads the peak from /proc")


def resident(which):
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{which}:\s+(\d+)", text)[1]) * 1024


class Peak:
    """The most that was resident within, beyond what was before."""

    def __enter__(self):
        CLEAR.write_text("5")
        self.before = resident("VmRSS")
        return self

    def __exit__(self, *_):
        self.bytes = resident("VmHWM") - self.before


class Wide(nn.Module):
    """Weights of 40 MB each: more than the allocator ever keeps when they are freed."""

    def __init__(self, count):
        super().__init__()
        self.weights = nn.ParameterList(torch.ones(1000, 10_000) for _ in range(count))


ONE = 40 * 10**6


@on_linux
def test_saving_and_loading_cost_at_most_one_tensor(tmp_path):
    # In a process of its own: the allocator of this one holds what other tests have left.
    process = get_context("spawn").Process(target=save_and_load, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0


def save_and_load(tmp_path):
    model = Wide(3)
    with Peak() as peak:
        write_tensors(tmp_path / "file", model.state_dict(), {})
    assert peak.bytes < 4 * MB
    turned = {name: tensor.mT for name, tensor in model.state_dict().items()}
    with Peak() as peak:
        write_tensors(tmp_path / "turned", turned, {})
    assert ONE - MB < peak.bytes < ONE + 4 * MB
    for file, most in (("file", 0), ("turned", ONE)):
        with open_tensors(tmp_path / file, READER) as stored, Peak() as peak:
            for name, tensor in (model.state_dict() if file == "file" else turned).items():
                tensor.zero_()
                stored.read_into(tensor, name)
        assert peak.bytes < most + 4 * MB
        assert all(bool((p == 1).all()) for p in model.parameters())


@on_linux
@pytest.mark.slow
def test_a_checkpoint_costs_nothing_beside_the_training(tmp_path):
    def started():
        table = {"data": {"path": "/nowhere"}, "model": {"kind": "jmvae"}}
        config = Experiment.checked(table, "here").train
        state = Training.__new__(Training)
        state.__dict__ |= {"model": Wide(4), "config": config, "device": torch.device("cpu")}
        state.__dict__ |= {"epoch": 1, "batch": 0, "rows": 0, "best": 1.0, "sums": None}
        state.optimisers = {"model": adam(list(state.model.parameters()), config)}
        return state

    state = started()
    for p in state.model.parameters():
        p.grad = torch.ones_like(p)
    state.optimisers["model"].step()
    state.model.zero_grad(set_to_none=True)
    with Peak() as peak:
        run_folder.save_checkpoint(tmp_path, state)
        run_folder.save_weights(tmp_path, state, 1)
    assert peak.bytes < 8 * MB
    again = started()
    with Peak() as peak:
        run_folder.load_weights(tmp_path, again.model)
    assert peak.bytes < 8 * MB
    with Peak() as peak:
        run_folder.resume(tmp_path, again)
    assert peak.bytes < 8 * ONE + 8 * MB  # the two moments of each weight, which are new
    assert torch.equal(
        again.optimisers["model"].state_dict()["state"][3]["exp_avg_sq"],
        state.optimisers["model"].state_dict()["state"][3]["exp_avg_sq"],
    )
