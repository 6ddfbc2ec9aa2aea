import math

import pytest
import torch
from by_hand import gaussian_of, kl
from torch import nn
from toys import KINDS, Numbers, observations, toy_modalities, toy_model

from mmgen.batch import Batch
from mmgen.evaluation import latent
from mmgen.inference.divergence import subset_divergences
from mmgen.latent.gaussian import DiagonalGaussian
from mmgen.nets.by_modality import ByModality
from mmgen.subsets import proper


def eval_model(kind, count, **settings):
    modalities = toy_modalities(count)
    model = toy_model(kind, modalities, **settings).eval()
    return model, observations(modalities, 40)


def cloud(seed=0, rows=4000):
    """Points of known covariance: Q diag(9, 4, 1, 0.25) Qᵀ."""
    stream = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(4, 4, generator=stream, dtype=torch.float64))
    scales = torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    z = torch.randn(rows, 4, generator=stream, dtype=torch.float64)
    return z * scales @ q.T + 7, q


def test_principal_axes_are_eigenvectors_of_the_covariance():
    points, _ = cloud()
    axes = latent.principal_axes(points, 3)
    values, vectors = torch.linalg.eigh(points.T.cov())
    cosines = (axes.directions * vectors.T.flip(0)[:3]).sum(1).abs()
    assert torch.allclose(cosines, torch.ones(3, dtype=torch.float64))
    assert torch.allclose(axes.shares, values.flip(0)[:3] / values.sum())


def test_principal_axes_find_the_axes_that_points_were_made_with():
    points, q = cloud(1)
    axes = latent.principal_axes(points)
    assert (axes.directions @ q[:, :2]).diag().abs().min() > 0.98
    assert axes.shares.tolist() == pytest.approx([9 / 14.25, 4 / 14.25], abs=0.03)


def test_projections_have_the_variances_of_the_axes_and_do_not_correlate():
    points, _ = cloud(2)
    axes = latent.principal_axes(points)
    flat = axes.project(points)
    assert torch.allclose(flat.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-9)
    covariance = flat.T.cov()
    assert abs(covariance[0, 1]) < 1e-9
    total = points.T.cov().diagonal().sum()
    assert torch.allclose(covariance.diagonal() / total, axes.shares)


def test_axes_point_the_same_way_whatever_the_order_of_the_points():
    points, _ = cloud(3, rows=50)
    one, other = latent.principal_axes(points), latent.principal_axes(points.flip(0))
    assert torch.allclose(one.directions, other.directions)
    assert (one.directions.gather(1, one.directions.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (4, 3)])
def test_points_that_are_one_have_axes_without_variance(shape):
    axes = latent.principal_axes(torch.ones(shape))
    assert axes.shares.tolist() == [0.0] * min(2, *shape)
    assert axes.project(torch.ones(shape)).abs().max() == 0


def test_active_dimensions_are_those_whose_mean_moves_by_more_than_a_tenth():
    deviations = torch.tensor([0.0, 0.09, 0.11, 2.0])
    means = torch.tensor([[-1.0], [1.0]]).repeat(10, 1) * deviations + 5
    assert latent.active_units(means).tolist() == [False, False, True, True]


def test_one_row_has_no_active_dimension():
    assert not latent.active_units(torch.ones(1, 3)).any()


def test_a_model_that_reads_one_dimension_has_one_active_dimension():
    modalities = {"a": Numbers(size=2, widths=()), "b": Numbers(size=1, widths=())}
    model = toy_model("jmvae", modalities, fusion=()).eval()
    x = observations(modalities, 300)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
        model.encoder.first.weights["a"][0, 0, 1] = 1.0  # mean of z_2 is the first entry of a
    (means,) = latent.posterior_means(model, x)
    assert torch.allclose(means[:, 1], x["a"][:, 0], atol=1e-6)
    assert latent.active_units(means).tolist() == [False, True, False]


def test_a_hierarchy_has_means_for_each_layer():
    model, x = eval_model("hierarchical", 3, layers=3)
    means = latent.posterior_means(model, x)
    expected = [q.mean for q in model.posterior(x).layers]
    assert len(means) == 3
    for mean, q in zip(means, expected, strict=True):
        assert torch.allclose(mean, q, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@torch.no_grad()
def test_subset_divergences_are_the_closed_form(count):
    model, x = eval_model("jmvae-kl", count)
    divergences = subset_divergences(model, x, 100)
    assert list(divergences) == proper([*x])
    joint = gaussian_of(model.encoder, x, model.names)
    for subset, value in divergences.items():
        closed = kl(*joint, *gaussian_of(model.encoder, x, subset)).mean()
        assert value == pytest.approx(float(closed), rel=1e-4)


def test_subset_divergences_do_not_depend_on_how_rows_are_cut(monkeypatch):
    model, x = eval_model("jmvae-kl", 3)
    whole = subset_divergences(model, x, 100)
    assert subset_divergences(model, x, 7) == pytest.approx(whole, rel=1e-5)
    monkeypatch.setattr(latent, "ROWS", 7)
    assert len(latent.posterior_means(model, x)[0]) == 40


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jmvae-kl"])
def test_models_without_subset_encoders_have_no_divergences(kind):
    model, x = eval_model(kind, 3)
    assert subset_divergences(model, x, 100) == {}


class Told(nn.Module):
    """A decoder that gives N(scale · z, 1) of the first number of z."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, z):
        mean = self.scale * z[:, :1]
        return DiagonalGaussian(mean, torch.ones_like(mean))


def reads_z(model, z):
    """Makes the model's posterior a point, which it reads off what it is given."""

    def posterior(x):
        return DiagonalGaussian(z(x), torch.full_like(z(x), 1e-12))

    model.posterior = posterior


def clusters(scale, rows, classes):
    """A model whose z is the class exactly, and the observations it decodes them to."""
    modalities = {"a": Numbers(size=1, widths=()), "b": Numbers(size=1, widths=())}
    model = toy_model("jmvae", modalities, fusion=()).eval()
    x = torch.arange(rows).remainder(classes).float().unsqueeze(1)
    reads_z(model, lambda given: given["a"] / max(scale, 1))
    model.decoders = ByModality({"a": Told(scale), "b": Told(0)})
    return model, Batch({"a": scale * x if scale else x, "b": torch.zeros(rows, 1)})


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_the_gain_of_separated_classes_is_half_their_mean_squared_distance(classes):
    rows, scale = 16, 3.0
    model, x = clusters(scale, rows, classes)
    differences = x["a"] - x["a"].T
    expected = 0.5 * differences.square().sum() / (rows * (rows - 1))
    assert latent.own_gains(model, x)["a"] == pytest.approx(float(expected), rel=1e-5)


def test_a_decoder_that_does_not_look_at_z_gains_nothing():
    model, x = clusters(3.0, 16, 4)
    assert latent.own_gains(model, x)["b"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_gain_of_a_gaussian_channel_is_its_signal_to_noise_ratio(scale):
    rows = 4000
    modalities = {"a": Numbers(size=1, widths=()), "b": Numbers(size=1, widths=())}
    model = toy_model("jmvae", modalities, fusion=()).eval()
    stream = torch.Generator().manual_seed(5)
    z = torch.randn(rows, 1, generator=stream)
    drawn = scale * z + torch.randn(rows, 1, generator=stream)
    reads_z(model, lambda given: given["b"])
    model.decoders = ByModality({"a": Told(scale), "b": Told(0)})
    gains = latent.own_gains(model, Batch({"a": drawn, "b": z}))
    assert gains["a"] == pytest.approx(scale**2, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_gains_are_finite_and_one_row_has_none(kind):
    model, x = eval_model(kind, 5)
    torch.manual_seed(0)
    gains = latent.own_gains(model, x)
    assert list(gains) == [*model.targets]
    assert all(math.isfinite(v) for v in gains.values())
    assert latent.own_gains(model, x.slice(0, 1)) == {}
