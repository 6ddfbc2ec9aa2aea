"""What a training is made of and needs, held against trainings that were really run."""

import importlib.util
import re
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, small
from toys import (
    CPU,
    KINDS,
    REGISTRY,
    OneDevice,
    experiment,
    on_gpu,
    toy_modalities,
    training,
)

from mmgen import build
from mmgen.batch import Batch
from mmgen.errors import ConfigError
from mmgen.experiment import Experiment
from mmgen.training import memory as counting
from mmgen.training import plan

META = torch.device("meta")
MODALITIES = toy_modalities(5)


def sketch(kind, modalities=MODALITIES, **settings):
    resolved = experiment(kind, modalities, **settings)
    return build.model(resolved, modalities, META, REGISTRY), resolved


def drawn(rows, device=CPU):
    return Batch({n: torch.rand(rows, *m.shape, device=device) for n, m in MODALITIES.items()})


def sized(kind, **settings):
    """Those of some settings that a kind has."""
    return {k: v for k, v in settings.items() if k in REGISTRY.model(kind).Settings.model_fields}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_in_exactly_one_net(kind):
    model, _ = sketch(kind)
    rows = counting.nets(model)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_the_copies_of_encoders_are_those_that_the_model_counts(kind):
    model, _ = sketch(kind)
    encoders = [
        row for row in counting.nets(model) if re.search(r"encoders\.|conditions", row.name)
    ]
    assert {row.name.rpartition(".")[2] for row in encoders} == {*MODALITIES}
    paths = [row for row in counting.nets(model) if row.name.startswith("paths.")]
    counted = [copies for copies, _ in model.encoder_nets()]
    assert sum(row.copies for row in [*encoders, *paths]) == sum(counted)


def test_layers_are_told_by_their_sizes_whether_wide_or_looped():
    model, _ = sketch("jmvae-kl")
    layers = {row.name: row.layers for row in counting.nets(model)}
    assert layers["encoder.encoders.colour"] == "3 → 6"
    assert layers["encoder.encoders.wave"] == "2 → 5"  # a loop over copies, told once
    assert layers["decoders.point"] == "3 → 8 → 3"
    assert layers["encoder.encoders.picture"] == "Convolution"


class Measured(counting._Live):
    """The same count on a real device."""


@pytest.mark.parametrize("rows", [16, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_of_a_step_is_that_of_a_step(kind, rows):
    settings = sized(kind, latent=32, fusion=(64,))
    model, resolved = sketch(kind, model=settings, batch_size=rows)
    planned = counting.training_memory(model, MODALITIES, resolved.train.batch_size)

    state = training(kind, MODALITIES, model=settings, batch_size=rows)
    x = drawn(rows)
    state.step(x, 1.0)
    moments = sum(
        value.nbytes
        for optimiser in state.optimisers.values()
        for parameter in optimiser.state.values()
        for value in parameter.values()
        if value.dim()
    )
    weights = sum(t.nbytes for t in [*state.model.parameters(), *state.model.buffers()])
    assert (planned.weights, planned.optimiser) == (weights, moments)
    state.model.zero_grad(set_to_none=True)
    with Measured() as live:
        state.step(Batch({n: v.clone() for n, v in x.items()}), 1.0)
    assert live.peak == pytest.approx(planned.step, rel=0.15)


def test_gradients_of_the_step_before_are_not_beside_the_activations():
    state = training("jmvae", MODALITIES)
    objective, seen = state.objective, []

    def watched(x):
        seen.append([p.grad is None for p in state.model.parameters()])
        return objective(x)

    state.objective = watched
    for _ in range(2):
        state.step(drawn(4), 1.0)
    assert len(seen) == 2
    assert all(map(all, seen))


class NoMemory(OneDevice):
    """Lets tensors be elsewhere that hold one number at most, such as a zero seen in any shape."""

    def refuses(self, tensor):
        return super().refuses(tensor) and tensor.untyped_storage().nbytes() > tensor.itemsize


@pytest.mark.parametrize("kind", KINDS)
def test_planning_makes_no_tensor_that_takes_memory(kind):
    with NoMemory(META):
        model, resolved = sketch(kind)
        counting.training_memory(model, MODALITIES, resolved.train.batch_size)


def test_memory_that_is_freed_is_not_counted_twice():
    with counting._Live() as live:
        for _ in range(10):
            x = torch.zeros(1000, device=META)
            x = x + 1
            del x
    assert live.now == 0
    assert live.peak == 8000


@on_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_on_the_gpu_is_about_what_is_planned(kind):
    cuda = torch.device("cuda")
    settings = sized(kind, latent=512, fusion=(2048, 2048))
    model, resolved = sketch(kind, model=settings, batch_size=2048)
    planned = counting.training_memory(model, MODALITIES, resolved.train.batch_size)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    state = training(kind, MODALITIES, model=settings, device=cuda, batch_size=2048)
    for _ in range(2):
        state.step(drawn(2048, cuda), 1.0)
    peak = torch.cuda.max_memory_allocated() - before
    assert peak == pytest.approx(planned.total, rel=0.3)


# On the command line.


def glyphs(data, *overrides):
    return Experiment.read(ROOT / "examples" / "glyphs.toml", [*small(data), *overrides])


def test_a_dry_run_lists_nets_and_memory_and_writes_nothing(mmgen, small_glyphs, tmp_path):
    config = ROOT / "examples" / "glyphs.toml"
    out = tmp_path / "run"
    code, text, err = mmgen("train", config, *small(small_glyphs), "--dry-run", "--out", out)
    assert code == 0, err
    assert not out.exists()
    rows = {words[0]: words for words in map(str.split, text.splitlines()) if words}
    assert rows["encoder.encoders.image"][1:] == [
        "4",
        "784",
        "→",
        "32",
        rows["encoder.encoders.image"][-1],
    ]
    assert rows["encoder.encoders.image"][-1] == f"{4 * (784 * 32 + 32):,}"
    planned = plan.plan(glyphs(small_glyphs))
    assert f"{sum(net.parameters for net in planned.nets):,}" in rows["all"]
    line = text.splitlines()[-1]
    assert re.fullmatch(
        r"memory: \S+ [MG]iB at most, \S+ [MG]iB are free on cpu: interpreter and libraries .*, "
        r"weights .*, Adam's moments .*, a step of 100 rows .*, data .*; most is taken after .*",
        line,
    )
    assert planned.memory.data == 480 * (784 + 1 + 5)


def test_every_precision_is_planned(small_glyphs):
    for precision in ("float32", "bfloat16"):
        planned = plan.plan(glyphs(small_glyphs, f"train.precision={precision}"))
        assert planned.memory.step > 0


def test_a_dry_run_needs_no_folder_to_write_to(mmgen, small_glyphs):
    config = ROOT / "examples" / "glyphs.toml"
    assert mmgen("train", config, *small(small_glyphs), "--dry-run")[0] == 0


def test_what_cannot_fit_is_refused_before_memory_is_taken(mmgen, small_glyphs, tmp_path):
    config = ROOT / "examples" / "glyphs.toml"
    words = ("train", config, *small(small_glyphs), "model.latent=1000000000")
    for dry in ((), ("--dry-run",)):
        code, _, err = mmgen(*words, *dry, "--out", tmp_path / "run")
        assert code == 2
        assert re.search(r"training needs \d\S+ TiB on cpu, where \S+ [GM]iB are free", err)
        assert "model.kind=hierarchical" in err
    assert not (tmp_path / "run").exists()


def test_what_is_free_decides(small_glyphs, monkeypatch):
    memory = plan.plan(glyphs(small_glyphs)).memory
    needed = memory.peak - memory.process
    monkeypatch.setattr(plan, "free_memory", lambda _: needed - 1)
    with pytest.raises(ConfigError, match="training needs"):
        plan.plan(glyphs(small_glyphs)).check_fits()
    monkeypatch.setattr(plan, "free_memory", lambda _: needed)
    plan.plan(glyphs(small_glyphs)).check_fits()


def test_the_peak_is_that_of_the_phase_that_takes_most():
    training = counting.Memory(100, 200, 300, 50, process=1000, libraries=10, afterwards=40)
    assert (training.total, training.peak) == (650, 1660)
    after = replace(training, afterwards=700)
    assert (after.total, after.peak) == (650, 1710)


def test_figures_count_if_they_are_drawn(small_glyphs):
    experiment = glyphs(small_glyphs)
    with_figures, without = (plan.plan(experiment, figures=drawn).memory for drawn in (True, False))
    assert with_figures.afterwards > without.afterwards > 0
    assert with_figures.total == without.total


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_memory_of_the_device_and_of_the_process_are_told_apart(device):
    model, resolved = sketch("jmvae")
    memory = counting.training_memory(model, MODALITIES, resolved.train.batch_size)
    told = plan._in_process(memory, model, torch.device(device))
    assert told.total == memory.total
    assert told.process > 0
    largest = max(p.nbytes for p in model.parameters())
    assert told.copied == (0 if device == "cpu" else largest)
    assert told.peak - told.process - told.libraries == max(
        told.afterwards, memory.total + told.kept if device == "cpu" else largest
    )


# Against processes that trained.


def benchmark():
    """benchmarks/memory.py as a module."""
    spec = importlib.util.spec_from_file_location("memory", ROOT / "benchmarks" / "memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak as Linux counts it")
@pytest.mark.parametrize(
    "name", ["jmvae K=2 MLP", "jmvae-kl K=4 MLP, 1,000 rows", "cvae K=3 convolution"]
)
def test_the_peak_is_within_15_per_cent_of_the_real_one(name, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    planned, real = benchmark().measured(name, tmp_path)
    assert planned["peak"] == pytest.approx(real, rel=0.15)


def test_the_device_is_named(small_glyphs):
    assert plan.plan(glyphs(small_glyphs)).device == CPU
