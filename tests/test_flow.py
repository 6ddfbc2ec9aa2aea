"""Subset posteriors by a normalising flow: densities integrate, samples fit, gradients flow."""

import subprocess
import sys

import pytest
import torch
from torch.distributions import Normal
from toys import OneDevice, differing, observations, on_gpu, toy_modalities, training

from mmgen.batch import Batch
from mmgen.errors import ConfigError
from mmgen.inference.divergence import divergence
from mmgen.inference.sample import sample_latent
from mmgen.latent.base import sample
from mmgen.latent.flow import ConditionalFlow
from mmgen.latent.gaussian import gaussian
from mmgen.objective import MODEL
from mmgen.training import memory

MODALITIES = toy_modalities(3)
FLOW = {"subset_posterior": "flow", "flow_widths": (16,)}


def flow(latent=2, seed=0):
    torch.manual_seed(seed)
    return ConditionalFlow(latent, 3, (16, 16))


def parameters(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_shapes():
    q = flow(3)(parameters(2, 4, 6))
    assert (q.batch_shape, q.event_shape) == ((2, 4), (3,))
    assert q.rsample((5,)).shape == (5, 2, 4, 3)
    assert q.sample().shape == (2, 4, 3)
    assert q.mean.shape == (2, 4, 3)
    assert q.log_prob(torch.randn(5, 2, 4, 3)).shape == (5, 2, 4)


@torch.no_grad()
def test_the_density_integrates_to_one():
    grid = torch.linspace(-14, 14, 1401, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    q = flow().double()(parameters(4).double().expand(len(z), 4))
    total = q.log_prob(z).exp().sum() * (grid[1] - grid[0]) ** 2
    assert float(total) == pytest.approx(1, abs=1e-4)


def test_the_density_is_that_of_its_samples_by_the_change_of_variables():
    model = flow().double()
    context = parameters(4).double()
    u = torch.randn(2, dtype=torch.float64)

    def push(u):
        return model(context)._of(u)

    jacobian = torch.autograd.functional.jacobian(push, u)
    base = Normal(0.0, 1.0).log_prob(u).sum()
    expected = base - torch.linalg.slogdet(jacobian).logabsdet
    assert float(model(context).log_prob(push(u)).detach()) == pytest.approx(
        float(expected.detach()), abs=1e-9
    )


@torch.no_grad()
def test_the_context_moves_it():
    model = flow()
    one, other = (model(parameters(4, seed=s)) for s in (1, 2))
    assert not torch.allclose(one.mean, other.mean)


@torch.no_grad()
def test_its_divergence_estimate_is_that_of_many_samples():
    # Against itself: KL = 0 in expectation; from a Gaussian: never below 0.
    model = flow()
    q = model(parameters(8, 4))
    p = gaussian(parameters(8, 4, seed=3))
    z = p.sample((20_000,))
    assert (p.log_prob(z) - q.log_prob(z)).mean(0).min() > 0


def test_it_learns_what_no_gaussian_can():
    # Two lumps, ±2 with a deviation of 0.3: their entropy is 2 (0.5 log 2πe 0.09) + log 2.
    model = ConditionalFlow(2, 3, (32, 32))
    torch.manual_seed(0)
    context = torch.nn.Parameter(torch.tensor([0.0, 0.0, 3.0, 3.0]))
    optimiser = torch.optim.Adam([context, *model.parameters()], 1e-2)
    for _ in range(300):
        signs = torch.randint(2, (256, 1)) * 4.0 - 2
        z = signs + 0.3 * torch.randn(256, 2)
        loss = -model(context.expand(256, 4)).log_prob(z).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    best_gaussian = 2 * (0.5 * torch.tensor(2 * torch.pi * torch.e * (4 + 0.09)).log())
    assert float(loss.detach()) < float(best_gaussian) - 1


# In the model.


def test_every_parameter_gets_a_gradient():
    state = training("jmvae-kl", MODALITIES, model=FLOW)
    state.model.objective(observations(MODALITIES, 8)).losses()[MODEL].backward()
    assert [n for n, p in state.model.named_parameters() if p.grad is None] == []
    assert any(p.grad.abs().sum() > 0 for p in state.model.flow.parameters())


@torch.no_grad()
def test_the_terms_are_the_sampled_divergences():
    model = training("jmvae-kl", MODALITIES, model=FLOW).model
    x = observations(MODALITIES, 8)
    h = model.encoder(x)
    q = gaussian(h[-1])
    torch.manual_seed(5)
    z = q.rsample()
    expected = {
        f"subset/{'+'.join(subset)}": q.log_prob(z) - model.flow(each).log_prob(z)
        for subset, each in zip(model.subsets, h[:-1], strict=True)
    }
    torch.manual_seed(5)
    found = {term.name: term.value for term in model.objective(x) if term.name in expected}
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_sampled_divergence_is_the_closed_one_for_a_gaussian():
    model = training("jmvae-kl", MODALITIES).model
    h = model.encoder(observations(MODALITIES, 4))
    q, subsets = gaussian(h[-1]), gaussian(h[:-1])
    z = q.sample((20_000,))
    sampled = (q.log_prob(z).unsqueeze(1) - subsets.log_prob(z.unsqueeze(1))).mean(0)
    torch.testing.assert_close(sampled, divergence(q, subsets, z[0]), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("settings", [{}, FLOW], ids=["gaussian", "flow"])
def test_without_its_gradient_the_subsets_do_not_pull_the_joint_posterior(settings):
    x = observations(MODALITIES, 8)

    def pull(**more):
        model = training("jmvae-kl", MODALITIES, model={**settings, **more}).model
        torch.manual_seed(3)
        model.objective(x).losses()[MODEL].backward()
        # The last copy of each encoder is the joint posterior's.
        return [p.grad[-1].clone() for p in model.encoder.rest.parameters()]

    alone = pull(alpha=0.0)
    held = pull(alpha=1.0, subset_gradient=False)
    pulled = pull(alpha=1.0)
    assert all(torch.equal(a, b) for a, b in zip(alone, held, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(alone, pulled, strict=True))


def test_its_size_does_not_grow_with_the_number_of_modalities():
    sizes = {
        sum(
            p.numel()
            for p in training("jmvae-kl", toy_modalities(K), model=FLOW).model.flow.parameters()
        )
        for K in (2, 3, 4)
    }
    assert len(sizes) == 1


@torch.no_grad()
def test_each_subset_is_sampled_through_the_flow_and_the_joint_posterior_is_not():
    model = training("jmvae-kl", MODALITIES, model=FLOW).model.eval()
    x = observations(MODALITIES, 4)
    given = x.select(["colour"])
    h = model.encoder(given, ("colour",))[0]
    torch.manual_seed(2)
    drawn = sample_latent(model, given, 6)
    torch.manual_seed(2)
    assert torch.equal(drawn, model.flow(h).rsample((6,)))
    assert torch.equal(sample_latent(model, given, 1, temperature=0)[0], model.flow(h).mean)
    assert torch.equal(sample_latent(model, x, 1, temperature=0)[0], model.posterior(x).mean)
    torch.testing.assert_close(model.posterior(x).mean, gaussian(model.encoder(x)[-1]).mean)
    assert isinstance(model.posterior(given), type(model.flow(h)))
    assert model.posterior(given).symbol == "q(z | colour)"


@torch.no_grad()
def test_at_another_temperature_the_noise_is_scaled_and_the_density_is_that_of_the_draws():
    torch.manual_seed(0)
    flow = ConditionalFlow(2, 2, (16,))
    h = torch.randn(1, 4)
    q = flow(h).tempered(0.5)
    assert isinstance(q, type(flow(h)))
    torch.manual_seed(1)
    z = sample(flow(h), 0.5, (3,))
    torch.manual_seed(1)
    assert torch.equal(z, q.rsample((3,)))
    torch.manual_seed(1)
    u = torch.randn(3, 1, 2)
    torch.testing.assert_close((q.transform((z - q.loc) / q.scale)), 0.5 * u, atol=1e-4, rtol=1e-4)
    assert torch.equal(sample(flow(h), 0, (3,)), flow(h).mean.expand(3, 1, 2))
    # The density integrates to one over a grid that holds nearly all of it.
    draws = q.rsample((20_000,))[:, 0]
    low, high = draws.amin(0) - 0.5, draws.amax(0) + 0.5
    axes = [torch.linspace(low[i].item(), high[i].item(), 600) for i in range(2)]
    grid = torch.cartesian_prod(*axes).unsqueeze(1)
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    total = (q.log_prob(grid).exp().sum() * cell).item()
    assert total == pytest.approx(1, abs=5e-3)
    assert (flow(h).log_prob(grid) != q.log_prob(grid)).any()


def test_two_trainings_of_one_seed_are_equal_bit_for_bit():
    states = []
    for _ in range(2):
        state = training("jmvae-kl", MODALITIES, model=FLOW)
        for step in range(3):
            state.step(observations(MODALITIES, 8), step / 3)
        states.append(state.model.state_dict())
    assert differing(*states) == []


def test_a_step_stays_on_its_device():
    meta = torch.device("meta")
    model = training("jmvae-kl", MODALITIES, model=FLOW, device=meta).model
    with OneDevice(meta):
        assert memory.training_memory(model, MODALITIES, 8).step > 0


@on_gpu
def test_it_trains_on_the_gpu():
    state = training("jmvae-kl", MODALITIES, model=FLOW, device=torch.device("cuda"))
    x = Batch({n: v.cuda() for n, v in observations(MODALITIES, 8).items()})
    with torch.cuda.device(0):
        assert state.step(x, 1.0)["loss"].isfinite()


def test_bfloat16_keeps_its_densities_in_float32():
    state = training("jmvae-kl", MODALITIES, model=FLOW, precision="bfloat16")
    terms = state.step(observations(MODALITIES, 8), 1.0)
    assert {value.dtype for value in terms.values()} == {torch.float32}


def test_without_zuko_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(ConfigError, match=r"pip install \"mmgen-vae\[flow\]\""):
        flow()


def test_the_import_of_the_library_changes_nothing_for_other_distributions():
    code = (
        "from torch.distributions import Distribution\n"
        "from mmgen.latent.flow import ConditionalFlow\n"
        "ConditionalFlow(2, 1, [4])\n"
        "assert Distribution._validate_args"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
