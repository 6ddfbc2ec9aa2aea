import json

import pytest
import torch
from toys import CPU, JOINT, KINDS, ONE_WAY, PLUGIN, on_gpu, toy_modalities, write_run

import mmgen
from mmgen.batch import Batch
from mmgen.errors import GenerationError, MmgenError, PluginError, RunError
from mmgen.inference import sample as sampling
from mmgen.inference.sample import sample_latent, source
from mmgen.run import Run
from mmgen.training import run_folder

MODALITIES = toy_modalities(3)


WAY = {"targets": ("point", "picture"), "given": ("colour",)}
"""What a model of one direction generates from what."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of an untrained model of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in KINDS:
        write_run(folder / kind, kind, MODALITIES, WAY if kind in ONE_WAY else {})
    return {kind: load(folder / kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def run(request, runs):
    """Of any kind."""
    return runs[request.param]


@pytest.fixture(params=JOINT)
def joint(request, runs):
    """Of any kind that generates anything from anything."""
    return runs[request.param]


@pytest.fixture
def jmvae_kl(runs):
    return runs["jmvae-kl"]


def load(path, **options):
    return mmgen.load(path, device="cpu", plugin_modules=[PLUGIN], **options)


def test_a_run_is_loaded_ready_to_generate(run):
    assert isinstance(run, Run)
    assert run.modalities == MODALITIES
    assert list(run.modalities) == list(MODALITIES)
    assert not run.model.training
    assert run.device == CPU


def test_any_given_generates_the_rest(run):
    p = run.generate({"colour": "green"}, samples=5)
    assert list(p) == ["point", "picture"]
    for name, distribution in p.items():
        assert distribution.batch_shape == (5,)
        assert distribution.event_shape == MODALITIES[name].shape
        assert distribution.sample().isfinite().all()
        assert not distribution.mean.requires_grad


def test_targets_are_what_was_asked_for(run):
    assert list(run.generate({"colour": "green"}, ["picture"], 2)) == ["picture"]


def test_targets_are_all_that_is_not_given(joint):
    assert set(joint.generate({"colour": "green", "point": "1,2,3"}, samples=2)) == {"picture"}


def test_each_row_is_generated_from_its_own(run):
    p = run.generate({"colour": ["green", "red", "green"]}, samples=5, temperature=0)
    assert p.z.shape[:2] == (5, 3)
    assert p["point"].batch_shape == (5, 3)
    if source(run.model, ["colour"]).startswith("T ="):
        return  # iterative sampling imputes by chance
    if run.experiment.model.kind != "cvae":
        assert not torch.allclose(p.z[:, 0], p.z[:, 1])
    mean = p["point"].mean
    alone = run.generate({"colour": "red"}, samples=1, temperature=0)["point"].mean
    torch.testing.assert_close(mean[:, 0], mean[:, 2])
    torch.testing.assert_close(mean[0, 1], alone[0])
    assert not torch.allclose(mean[:, 0], mean[:, 1])


def test_another_direction_is_an_error_that_says_the_possible_one(runs):
    for kind in ONE_WAY:
        for given in ({}, {"point": "1,2,3"}, {"colour": "red", "point": "1,2,3"}):
            with pytest.raises(GenerationError, match="generates point, picture from colour"):
                runs[kind].generate(given, ["picture"], samples=2)
        with pytest.raises(GenerationError, match="no iterations"):
            runs[kind].generate({"colour": "red"}, iterations=3)


def test_nothing_given_draws_from_the_prior(joint):
    p = joint.generate(samples=5)
    assert list(p) == list(MODALITIES)
    assert p["point"].mean.shape == (5, 3)
    assert not torch.equal(p["point"].mean[0], p["point"].mean[1])
    assert list(joint.generate({}, ["point"], 2)) == ["point"]


def test_at_a_low_temperature_samples_differ_less(run):
    spreads = []
    for temperature in (0.1, 0.5, 1.0):
        torch.manual_seed(0)
        drawn = run.generate({"colour": "red"}, ["point"], 200, temperature=temperature)
        spreads.append(drawn["point"].mean)
    low, half, full = (s.std(0).sum() for s in spreads)
    assert 0 < low < half < full


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(run, temperature):
    with pytest.raises(GenerationError, match="it is 0 or more"):
        run.generate({"colour": "red"}, temperature=temperature)


def test_the_mean_of_the_prior_is_one_point(joint):
    mean = joint.generate(samples=3, temperature=0.0)["point"].mean
    assert torch.equal(mean[0], mean[1])
    assert torch.equal(mean, joint.generate(samples=3, temperature=0.0)["point"].mean)


def test_a_tensor_is_given_as_the_nets_see_it(jmvae_kl):
    one_hot = torch.tensor([0.0, 1.0, 0.0])
    word = jmvae_kl.generate({"colour": "green"}, samples=2, temperature=0.0)
    tensor = jmvae_kl.generate({"colour": one_hot}, samples=2, temperature=0.0)
    other = jmvae_kl.generate({"colour": "red"}, samples=2, temperature=0.0)
    assert torch.equal(word["point"].mean, tensor["point"].mean)
    assert not torch.equal(word["point"].mean, other["point"].mean)


def test_a_tensor_of_another_precision_is_taken_for_its_values(jmvae_kl):
    floats = jmvae_kl.generate(
        {"colour": torch.tensor([0.0, 1.0, 0.0])}, samples=2, temperature=0.0
    )
    for dtype in (torch.float16, torch.float64):
        given = {"colour": torch.tensor([0, 1, 0], dtype=dtype)}
        found = jmvae_kl.generate(given, samples=2, temperature=0.0)["point"].mean
        assert torch.equal(found, floats["point"].mean)


def test_mean_takes_the_posteriors_mean(jmvae_kl):
    mean = jmvae_kl.generate({"colour": "red"}, samples=3, temperature=0.0)["point"].mean
    assert torch.equal(mean[0], mean[2])
    samples = jmvae_kl.generate({"colour": "red"}, samples=3)["point"].mean
    assert not torch.equal(samples[0], samples[2])
    given = Batch({"colour": torch.tensor([[1.0, 0.0, 0.0]])})
    z = sample_latent(jmvae_kl.model, given, 3, temperature=0)[:, 0]
    torch.testing.assert_close(mean, jmvae_kl.model.decode(z)["point"].mean)


def test_the_same_seed_generates_the_same(run):
    def generated(seed):
        torch.manual_seed(seed)
        drawn = [run.generate({"colour": "red"}, samples=4)["point"].sample()]
        if run.model.directions is None:
            drawn.append(run.generate(samples=4)["point"].sample())
        return torch.cat(drawn)

    assert torch.equal(generated(1), generated(1))
    assert not torch.equal(generated(1), generated(2))


def test_loading_a_run_leaves_the_random_state_alone(jmvae_kl):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    load(jmvae_kl.path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_subsets_own_encoder_is_used_unless_iterations_are_asked_for(jmvae_kl, monkeypatch):
    asked, iterate = [], sampling.iterate

    def counted(*args, iterations, **options):
        asked.append((iterations, options["start"]))
        return iterate(*args, iterations=iterations, **options)

    monkeypatch.setattr(sampling, "iterate", counted)
    jmvae_kl.generate({"colour": "red"}, samples=2)
    assert asked == []
    jmvae_kl.generate({"colour": "red"}, samples=2, iterations=3, start="prior")
    assert asked == [(3, "prior")]


# What cannot be generated.


@pytest.mark.parametrize(
    ("given", "targets", "message"),
    [
        ({"color": "red"}, None, r"no modality 'color'; it has colour, point, picture; did you.*"),
        ({"colour": "red"}, ["pictur"], r"no modality 'pictur'.*did you mean 'picture'\?"),
        ({"colour": "red"}, ["point", "colour"], "colour: given and asked for"),
        ({"colour": "mauve"}, None, "colour=mauve: there is no word 'mauve'"),
        ({"point": "1,2"}, None, "point=1,2: .*2 numbers, not 3"),
        ({"point": "one"}, None, "point=one: "),
        ({"picture": "a.png"}, None, "picture=a.png: .*cannot read"),
        ({"point": torch.ones(2)}, None, r"point: an observation has the shape \(3,\), not \(2,\)"),
        ({"point": torch.ones(1, 1, 3)}, None, r"shape \(3,\), not \(1, 1, 3\)"),
        (
            {"colour": "red", "point": "1,2,3", "picture": torch.zeros(1, 6, 6)},
            None,
            "all modalities are given",
        ),
        ({"colour": "red"}, [], "no targets"),
    ],
)
def test_what_cannot_be_generated_is_an_error_that_says_why(jmvae_kl, given, targets, message):
    with pytest.raises(GenerationError, match=message):
        jmvae_kl.generate(given, targets, 2)


@pytest.mark.parametrize("samples", [0, -1])
def test_no_samples_are_an_error(jmvae_kl, samples):
    with pytest.raises(GenerationError, match="at least one"):
        jmvae_kl.generate({"colour": "red"}, samples=samples)


@pytest.mark.parametrize("iterations", [0, -1])
def test_no_iterations_are_an_error(jmvae_kl, iterations):
    with pytest.raises(GenerationError, match="iteration"):
        jmvae_kl.generate({"colour": "red"}, samples=2, iterations=iterations)


def test_an_unknown_start_is_an_error(jmvae_kl):
    with pytest.raises(GenerationError, match="start"):
        jmvae_kl.generate({"colour": "red"}, samples=2, iterations=2, start="one")


# What cannot be loaded.


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        load(tmp_path)
    with pytest.raises(RunError, match="holds no run"):
        load(str(tmp_path / "nowhere"))


def test_a_run_whose_plugin_is_gone_is_an_error_that_names_the_kind(jmvae_kl):
    with pytest.raises(PluginError, match=r"modalities\.colour.*'word'"):
        mmgen.load(jmvae_kl.path, device="cpu")


def test_the_weights_are_those_that_were_asked_for(tmp_path):
    state = write_run(tmp_path / "run", "jmvae", MODALITIES, {})
    with torch.no_grad():
        state.model.decoders["point"].net[0].weight.fill_(2.0)
    run_folder.save_weights(tmp_path / "run", state, 3)
    assert (load(tmp_path / "run").model.decoders["point"].net[0].weight == 2).all()
    assert (load(tmp_path / "run", weights="last").model.decoders["point"].net[0].weight != 2).any()
    with pytest.raises(RunError, match="there is no such checkpoint"):
        load(tmp_path / "run", weights="first")


def test_a_run_that_was_never_saved_says_so(tmp_path):
    write_run(tmp_path / "run", "jmvae", MODALITIES, {})
    (tmp_path / "run" / "best.safetensors").unlink()
    with pytest.raises(RunError, match=r"best\.safetensors: there is no such checkpoint"):
        load(tmp_path / "run")


def test_settings_that_no_longer_fit_their_plugin_are_an_error(tmp_path):
    write_run(tmp_path / "run", "jmvae", MODALITIES, {})
    file = tmp_path / "run" / "experiment.json"
    table = json.loads(file.read_text())
    table["modalities"]["point"]["colour"] = 3
    file.write_text(json.dumps(table))
    with pytest.raises(MmgenError, match=r"modalities\.point\.colour: unknown key"):
        load(tmp_path / "run")


@on_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_generates_on_the_gpu(tmp_path, kind):
    write_run(tmp_path / kind, kind, MODALITIES, WAY if kind in ONE_WAY else {})
    run = mmgen.load(tmp_path / kind, device="cuda", plugin_modules=[PLUGIN])
    joint = ({}, {"point": torch.ones(3)}) if kind in JOINT else ()
    for given in ({"colour": "red"}, *joint):
        for p in run.generate(given, samples=4).values():
            assert p.mean.device.type == "cuda"
            assert p.sample().isfinite().all()
