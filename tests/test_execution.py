"""How nets run: in every way with the same results, chosen by measurement, kept in the run."""

import json

import pytest
import torch

from mmgen.errors import RunError
from mmgen.experiment import Experiment
from mmgen.files.tensors import write_tensors
from mmgen.seeding import random_state
from mmgen.training import execution, run_folder, session
from mmgen.training.execution import Execution

CONFIG = """
[data]
source = "synthetic"
rows = 60
classes = 3
[modalities.image]
kind = "image"
channels = 3
height = 16
width = 16
net = "convolution"
convolution_channels = [8, 16]
batch_norm = true
likelihood = "gaussian"
[modalities.attributes]
kind = "attributes"
names = ["bold", "red"]
encoder_widths = [16]
decoder_widths = [16]
[model]
kind = "jmvae-kl"
latent = 4
[train]
epochs = 2
batch_size = 20
device = "cpu"
"""

NETS = ("encoder.encoders.image", "encoder.encoders.attributes")
UNUSUAL = Execution(ways={NETS[0]: "loop", NETS[1]: "loop"}, channels_last=True)


def prepared(tmp_path, *overrides):
    file = tmp_path / "experiment.toml"
    file.write_text(CONFIG, encoding="utf-8")
    return session.prepare(Experiment.read(file, overrides))


def first_batch(prepared_):
    with random_state(torch.device("cpu"), 0):
        return next(prepared_.train.epoch(0, 0))


def steps(tmp_path, how, count=4):
    """Trains a few steps so, and returns weights and moments."""
    here = prepared(tmp_path)
    training = here.training
    execution.apply(training.model, how)
    x = first_batch(here)
    torch.manual_seed(1)
    terms = [training.step(x, 1.0) for _ in range(count)]
    states = [state for o in training.optimisers.values() for state in o.state.values()]
    return training.model, states, terms


# Equal in every way.


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "how",
    [Execution(ways=UNUSUAL.ways), Execution(channels_last=True), UNUSUAL],
    ids=["loop", "channels last", "both"],
)
@pytest.mark.usefixtures("double")
def test_steps_of_adam_are_equal_in_every_way(tmp_path, how):
    # In float64: Adam makes steps of full size out of gradients that are 0 but for rounding, such
    # as those of a bias before a batch normalisation.
    model, states, terms = steps(tmp_path, Execution())
    other, other_states, other_terms = steps(tmp_path, how)
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    for ours, theirs in zip(other_states, states, strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-8)
    for ours, theirs in zip(other.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(other_terms[-1], terms[-1])


def test_channels_last_is_how_a_wide_convolution_reads_its_weights(tmp_path):
    model = prepared(tmp_path).training.model
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    weights = execution.convolutions(model)
    assert len(weights) == 4  # two stacks of encoders, two transposed ones of the decoder
    execution.lay(model, channels_last=True)
    for weight in weights:
        flat = weight.flatten(0, 1) if weight.dim() == 5 else weight
        assert flat.data_ptr() == weight.data_ptr()  # not copied
        assert flat.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    execution.lay(model, channels_last=False)
    assert all(weight.is_contiguous() for weight in weights)


def test_what_is_unusual_is_said_in_words():
    assert execution.words(Execution()) == ""
    assert execution.words(UNUSUAL) == f"channels last; copies one by one of {NETS[0]}, {NETS[1]}"


# Chosen by measurement.


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(execution, "LEAST", 0)


def measured(monkeypatch, gains):
    """Lets measurements give these gains, one after the other."""
    found = iter(gains)
    seen = []

    def gain(first, second, device, before=None):
        seen.append(before)
        return next(found)

    monkeypatch.setattr(execution, "_gain", gain)
    return seen


@pytest.mark.usefixtures("large")
def test_the_fastest_way_is_taken_where_it_is_clearly_faster(tmp_path, monkeypatch):
    here = prepared(tmp_path)
    measured(monkeypatch, [2.0, 1.01, 1.5])
    assert session._measure(here) is None
    expected = Execution(ways={NETS[0]: "loop"}, channels_last=True)
    assert here.training.execution == expected
    ways = {name: net.way for name, net in execution.copied(here.training.model).items()}
    assert ways == {NETS[0]: "loop", NETS[1]: "wide"}
    here = prepared(tmp_path)
    measured(monkeypatch, [0.5, 1.0, 0.9])
    session._measure(here)
    assert here.training.execution == Execution()


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("overrides", [(), ("train.precision=auto",)], ids=str)
def test_measuring_leaves_everything_as_it_was(tmp_path, overrides):
    here, other = prepared(tmp_path, *overrides), prepared(tmp_path, *overrides)
    before = torch.get_rng_state()
    session._measure(here)
    assert torch.equal(torch.get_rng_state(), before)
    model = here.training.model
    assert all(p.grad is None for p in model.parameters())
    for ours, theirs in zip(model.parameters(), other.training.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(model.buffers(), other.training.model.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert not here.training.optimisers["model"].state


@pytest.mark.usefixtures("large")
def test_bfloat16_is_taken_where_it_is_faster_and_alike(tmp_path, monkeypatch):
    def precision(gains, alike=0.5):
        here = prepared(tmp_path, "train.precision=auto")
        monkeypatch.setattr(execution, "ALIKE", alike)
        real, left = execution._gain, iter(gains)

        def gain(first, second, device, before=None):
            first(), second()
            return next(left, 1.0)

        with monkeypatch.context() as patched:
            patched.setattr(execution, "_gain", gain)
            session._measure(here)
        assert execution._gain is real
        return here.training.precision

    assert precision([2.0, 2.0]) == "bfloat16"
    assert precision([0.5, 9.0]) == "float32"  # no units: no step is tried
    assert precision([2.0, 0.9]) == "float32"
    assert precision([2.0, 2.0], alike=0.0) == "float32"  # another loss


def test_nothing_is_measured_of_small_models_or_where_it_is_not_wanted(tmp_path, monkeypatch):
    measured(monkeypatch, [])  # each measurement would raise
    here = prepared(tmp_path)
    session._measure(here)
    monkeypatch.setattr(execution, "LEAST", 0)
    here = prepared(tmp_path, "train.benchmark=false")
    session._measure(here)
    assert here.training.execution == Execution()
    assert here.training.precision == "float32"


def test_the_gain_is_how_many_times_as_long_the_first_takes(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(execution.time, "perf_counter", lambda: clock[0])

    def takes(seconds):
        def run():
            clock[0] += seconds

        return run

    order = []
    before = (lambda: order.append("a"), lambda: order.append("b"))
    gain = execution._gain(takes(0.3), takes(0.1), torch.device("cpu"), before)
    assert gain == pytest.approx(3)
    assert order == ["a", "b"] * 3  # once to warm up, and until enough time has gone by


# Kept in the run.


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_goes_on_as_it_began_to_the_last_bit(tmp_path, monkeypatch, precision):
    monkeypatch.setattr(execution, "LEAST", 0)
    chosen = UNUSUAL.model_copy(update={"precision": precision})

    def choose(training, _):
        training.execution = chosen
        execution.apply(training.model, chosen)

    monkeypatch.setattr(execution, "measure", choose)
    whole = prepared(tmp_path, "train.precision=auto")
    session.start(whole, tmp_path / "whole")
    list(session.train(whole, tmp_path / "whole"))

    begun = prepared(tmp_path, "train.precision=auto")
    session.start(begun, tmp_path / "run")
    items = session.train(begun, tmp_path / "run")
    [next(items) for _ in range(4)]  # into the second epoch
    session.save(begun, tmp_path / "run")
    monkeypatch.setattr(execution, "measure", None)  # what was chosen is not chosen again
    again = prepared(tmp_path, "train.precision=auto")
    assert session.resume(again, tmp_path / "run")
    assert again.training.execution == chosen
    assert again.training.precision == precision
    list(session.train(again, tmp_path / "run"))
    ours, theirs = again.training.model.state_dict(), whole.training.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def header(path, change):
    """Writes a checkpoint anew with another header."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values = json.loads(file.metadata()["mmgen"])
    change(values)
    write_tensors(path, tensors, {"mmgen": json.dumps(values)})


def test_checkpoints_of_before_run_as_they_did_and_unknown_nets_are_refused(tmp_path):
    begun = prepared(tmp_path)
    session.start(begun, tmp_path / "run")
    next(session.train(begun, tmp_path / "run"))
    session.save(begun, tmp_path / "run")
    last = tmp_path / "run" / "last.safetensors"
    header(last, lambda values: values.pop("execution"))
    again = prepared(tmp_path)
    run_folder.resume(tmp_path / "run", again.training)
    assert again.training.execution == Execution()
    header(last, lambda values: values.update(execution={"ways": {"decoders.image": "loop"}}))
    with pytest.raises(RunError, match=r"there are no copies of a net 'decoders.image'"):
        run_folder.resume(tmp_path / "run", prepared(tmp_path).training)
    header(last, lambda values: values.update(execution={"ways": {NETS[0]: "sideways"}}))
    with pytest.raises(RunError, match="execution"):
        run_folder.resume(tmp_path / "run", prepared(tmp_path).training)
