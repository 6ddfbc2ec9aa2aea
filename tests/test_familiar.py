"""Whether a given value is like those trained on: densities in closed form, and who is told of."""

import json
import math
import shutil

import pytest
import torch
from pages import pictures, train
from torch.distributions import MultivariateNormal
from toys import Numbers

from mmgen import build
from mmgen.batch import Batch
from mmgen.data.split import Split
from mmgen.evaluation import familiar as looking
from mmgen.evaluation.familiar import (
    FILE,
    calibrated,
    densities,
    familiar,
    fitted,
    read,
    unfamiliar,
)
from mmgen.run import load


def noise(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def points(seed, rows):
    """Points of a Gaussian in 12 dimensions of which three vary most."""
    return noise(seed, rows, 3) @ (3 * noise(0, 3, 12)) + 0.5 * noise(seed + 1, rows, 12) + 5


def test_with_all_directions_the_density_is_that_of_the_fitted_gaussian():
    x = points(1, 500)
    p = MultivariateNormal(x.mean(0), x.T.cov(correction=0))
    y = points(7, 50)
    assert fitted(x).score(y).allclose(p.log_prob(y), rtol=1e-3, atol=1e-3)


def test_with_few_directions_the_others_share_their_mean_variance(monkeypatch):
    monkeypatch.setattr(looking, "DIRECTIONS", 3)
    x = points(1, 500)
    variances, directions = torch.linalg.eigh(x.T.cov(correction=0))
    variances[:9] = variances[:9].mean()  # Tipping and Bishop, equation 8
    p = MultivariateNormal(x.mean(0), (directions * variances) @ directions.T)
    y = points(7, 50)
    assert fitted(x).score(y.reshape(50, 3, 4)).allclose(p.log_prob(y), rtol=1e-3, atol=1e-2)


def test_one_in_a_hundred_like_rows_is_told_of_and_all_that_are_unlike():
    density = calibrated(fitted(points(1, 2000)), points(3, 2000))
    share = density.unlike(points(5, 20_000)).double().mean().item()
    assert 0.006 < share < 0.016
    assert density.unlike(-points(5, 200)).all()
    assert (
        density.unlike(5 + 4 * noise(9, 200, 12)).double().mean() > 0.95
    )  # as large, uncorrelated
    assert density.unlike(density.centre[None]).all()  # no row is so much like the mean


def test_what_never_varied_may_be_off_a_little_but_not_much():
    x = torch.cat([noise(1, 300, 2), torch.ones(300, 1)], 1)
    density = calibrated(fitted(x), x)
    assert torch.isfinite(density.score(x)).all()
    assert not density.unlike(torch.tensor([[0.5, 0.5, 1.01]])).any()
    assert density.unlike(torch.tensor([[0.5, 0.5, 2.0]])).all()


def test_of_few_held_out_rows_or_not_finite_ones_nothing_is_known():
    rows = {n: Split(({"a": points(1, n)},)) for n in (99, 100)}
    a = {"a": Numbers(size=12)}
    assert densities(a, rows[100], rows[99]) == {}
    assert list(densities(a, rows[100], rows[100])) == ["a"]
    broken = Split(({"a": torch.full((100, 12), math.nan)},))
    assert densities(a, rows[100], broken) == {}


def test_rows_that_lack_the_modality_are_no_part_of_its_density():
    x = points(1, 600).reshape(600, 12)
    has = torch.arange(600) % 3 > 0
    holes = Split((Batch({"point": torch.where(has[:, None], x, 0)}, {"point": has}),))
    there = Split((Batch({"point": x[has]}),))
    kind = {"point": Numbers(size=12)}
    [of_holes, alone] = [densities(kind, rows, rows)["point"] for rows in (holes, there)]
    assert of_holes.low == alone.low
    assert torch.equal(of_holes.centre, alone.centre)
    few = Split((Batch({"point": x}, {"point": torch.arange(600) < 50}),))
    assert densities(kind, there, few) == {}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    run = train(tmp_path_factory.mktemp("runs") / "run", "jmvae", pictures(), rows=600)
    opened = load(run, device="cpu")
    familiar(opened, build.dataset(opened.experiment, build.registry()))
    return run


def test_densities_are_kept_and_are_the_same_when_read(path, tmp_path):
    run = load(path, device="cpu")
    dataset = build.dataset(run.experiment, build.registry())
    kept = (path / FILE).read_bytes()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    found = familiar(run, dataset)
    assert torch.get_rng_state().equal(state)
    assert {*found} == {"picture", "word"}
    (path / FILE).unlink()
    again = familiar(run, dataset)
    assert (path / FILE).read_bytes() == kept
    x = noise(3, 5, *run.modalities["picture"].shape)
    assert again["picture"].score(x).equal(found["picture"].score(x))


@pytest.mark.parametrize("damage", ["cut", "words", "other data", "shape"])
def test_of_a_damaged_file_or_that_of_another_run_nothing_is_known(path, tmp_path, damage):
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    file = copy / FILE
    content = file.read_bytes()
    run = load(copy, device="cpu")
    assert read(run, ["picture"]) is not None
    if damage == "other data":
        text = (copy / "environment.json").read_text()
        hash_ = json.loads(text)["dataset"]["hash"]
        (copy / "environment.json").write_text(text.replace(hash_, "0" * len(hash_)))
    elif damage == "shape":
        file.write_bytes(content.replace(b'"picture/centre"', b'"picture/centrx"'))
    else:
        file.write_bytes({"cut": content[:-9], "words": b"no tensors"}[damage])
    assert read(run, ["picture"]) is None
    assert unfamiliar(run, {"picture": noise(0, 1, 6, 6)}) == []


def test_a_value_that_is_unlike_is_told_in_a_sentence(path):
    run = load(path, device="cpu")
    dataset = build.dataset(run.experiment, build.registry())
    real = run.modalities["picture"].observe(dataset.splits["test"].load(["picture"])["picture"])
    told = [bool(unfamiliar(run, {"picture": x})) for x in real[:60]]
    assert sum(told) <= 3
    (sentence,) = unfamiliar(run, {"picture": 1 - real[0], "word": "one"})
    assert sentence.startswith("picture: is unlike what this run was trained on (log density −")
    assert unfamiliar(run, {}) == []
    assert unfamiliar(run, {"picture": "no such file.png"}) == []  # it is no longer there


def test_generate_tells_it_and_generates_the_same(mmgen, path, tmp_path):
    from PIL import Image

    Image.new("L", (6, 6), 255).save(tmp_path / "odd.png")
    words = ("--given", f"picture={tmp_path / 'odd.png'}", "--seed", 3, "--device", "cpu")
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    (copy / FILE).unlink()
    code, out, err = mmgen("generate", path, *words)
    assert code == 0
    assert "note: picture: is unlike what this run was trained on" in " ".join(err.split())
    assert mmgen("generate", copy, *words) == (0, out, "")
