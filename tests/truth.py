"""Models whose likelihoods are known: linear-Gaussian ones in closed form, small ones by summing.

Every one is a real model of :mod:`mmgen.models` with its weights set by hand. Tests that use them
make float64 the default.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from by_hand import set_encoder, set_head
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal
from toys import ONE_WAY, Numbers, Word, made

from mmgen.batch import Batch
from mmgen.data.store import Split
from mmgen.latent.gaussian import GaussianHead
from mmgen.model import Model
from mmgen.subsets import Subset

NOISE = 0.8
"""The standard deviation of every p(x_k|z)."""

SIZES = {"a": 3, "b": 2, "c": 4}

A = {
    "a": torch.tensor([[1.0, 1.0], [0.5, 1.0], [1.0, -1.5]]).double(),
    "b": torch.tensor([[0.6, -0.8], [0.8, 0.6]]).double(),
    "c": torch.tensor([[0.5, 0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]]).double(),
}
"""Of orthogonal columns, so that the exact posterior given any subset is diagonal."""

SKEW = torch.tensor([[1.0, 0.6], [0.0, 1.0]]).double()
"""A[k] @ SKEW has columns that are not orthogonal: no diagonal posterior is exact."""

B = {name: torch.linspace(-0.4, 0.6, size).double() for name, size in SIZES.items()}


def numbers(names: Sequence[str]) -> dict[str, Numbers]:
    return {n: Numbers(size=SIZES[n], widths=(), deviation=NOISE) for n in names}


@dataclass(frozen=True)
class Linear:
    """x_k = A_k z + b_k + noise with z ~ N(mean, covariance), each row's own mean if it has one.

    Attributes:
        A: ``(size, Z)`` a modality.
        mean: Of z, ``(Z,)`` or ``(rows, Z)``.
        covariance: Of z, ``(Z, Z)``.
        shift: Added to x, by modality; b_k, or what the condition adds, ``(rows, size)``.
    """

    A: dict[str, Tensor]
    mean: Tensor
    covariance: Tensor
    shift: dict[str, Tensor]

    def stacked(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.cat([self.A[n] for n in names]), torch.cat(
            [self.shift[n] for n in names], dim=-1
        )

    def log_p(self, x: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
        """log p(x_names) of each row, z integrated out."""
        W, b = self.stacked(names)
        covariance = W @ self.covariance @ W.T + NOISE**2 * torch.eye(len(W))
        seen = torch.cat([x[n] for n in names], dim=-1)
        return MultivariateNormal(self.mean @ W.T + b, covariance).log_prob(seen)

    def posterior(self, x: Mapping[str, Tensor], names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean ``(rows, Z)`` and covariance of p(z|x_names)."""
        W, b = self.stacked(names)
        seen = torch.cat([x[n] for n in names], dim=-1)
        precision = self.covariance.inverse() + W.T @ W / NOISE**2
        pull = (seen - b) @ W / NOISE**2 + self.mean @ self.covariance.inverse()
        return pull @ precision.inverse(), precision.inverse()

    def mean_of_logs(
        self, x: Mapping[str, Tensor], names: Sequence[str], mean: Tensor, covariance: Tensor
    ) -> Tensor:
        """E[log p(x_names|z)] of each row with z ~ N(mean, covariance)."""
        W, b = self.stacked(names)
        seen = torch.cat([x[n] for n in names], dim=-1)
        at_mean = Normal(mean @ W.T + b, NOISE).log_prob(seen).sum(-1)
        return at_mean - (W @ covariance @ W.T).trace() / (2 * NOISE**2)

    def sample(self, rows: int, names: Sequence[str]) -> Batch:
        z = MultivariateNormal(self.mean, self.covariance).sample((rows,))
        x = {n: torch.randn(rows, SIZES[n]) * NOISE + z @ self.A[n].T + B[n] for n in names}
        return Batch(x)


@dataclass(frozen=True)
class Toy:
    """A model, rows of data, and the truth about them.

    Attributes:
        model: In eval mode, of double precision.
        x: Observations; of :func:`words` as they are stored.
        log_p: log p(x_T|x_S) of each row, by T and S.
        linear: The closed forms, if the model is linear.
        variances: Of q(z|x_S), by S, if the model is a linear joint one.
    """

    model: Model
    x: Batch
    log_p: Callable[[Subset, Subset], Tensor]
    linear: Linear | None = None
    variances: dict[Subset, Tensor] | None = None

    @property
    def split(self) -> Split:
        return Split((self.x,))


def set_decoders(model: Model, A: dict[str, Tensor]) -> None:
    for name, decoder in model.decoders.items():
        decoder.net[0].weight.copy_(A[name])
        decoder.net[0].bias.copy_(B[name])


def exact(linear: Linear, subset: Subset) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, bias and covariance of p(z|x_subset) = N(weight x + bias, covariance)."""
    zero = {n: torch.zeros(1, SIZES[n]) for n in subset}
    bias, covariance = linear.posterior(zero, subset)
    W, _ = linear.stacked(subset)
    return covariance @ W.T / NOISE**2, bias[0], covariance


def built(kind: str, names: Sequence[str], **settings: object) -> Model:
    return made(kind, numbers(names), latent=2, fusion=(), **settings).double().eval()


@torch.no_grad()
def linear_joint(names: str, *, skew: bool = False, wide: float = 1.0, rows: int = 60) -> Toy:
    """JMVAE-kl with z ~ N(0, I).

    Args:
        names: The modalities: ``"abc"``.
        skew: Whether exact posteriors are not diagonal, so that the model's are not exact.
        wide: What the posteriors' variances are multiplied by; 1 is exact unless skew.
        rows: Observations, drawn from the model.
    """
    torch.manual_seed(7)
    used = {n: A[n] @ SKEW if skew else A[n] for n in names}
    linear = Linear(used, torch.zeros(2), torch.eye(2), B)
    model = built("jmvae-kl", names, subsets="all")
    set_decoders(model, used)
    variances = {}
    for subset in model.encoder.subsets:
        weight, bias, covariance = exact(linear, subset)
        variances[subset] = wide * covariance.diagonal()
        set_encoder(model.encoder, subset, weight, bias, variances[subset])
    x = linear.sample(rows, names)

    def log_p(T: Subset, S: Subset) -> Tensor:
        return linear.log_p(x, [*S, *T]) - (linear.log_p(x, S) if S else 0)

    return Toy(model, x, log_p, linear, variances)


@torch.no_grad()
def linear_hierarchy(*, slope: float, wide: float = 1.0, rows: int = 60) -> Toy:
    """Two layers: z_1 = slope · z_2 + offset + noise. Independent layers are exact at slope 0."""
    torch.manual_seed(8)
    names, offset, variance = ("a", "b"), torch.tensor([0.4, -0.3]), torch.tensor([0.5, 0.9])
    used = {n: A[n] for n in names}
    linear = Linear(used, offset, (slope**2 + variance).diag(), B)
    model = built("hierarchical", names, layers=2, widths=(3,))
    set_decoders(model, used)
    size = sum(SIZES[n] for n in names)
    # Posteriors are read off x itself, and p(z_1|z_2) off z_2 itself.
    model.paths[0] = nn.Identity()
    model.posteriors[1] = GaussianHead(size, 2)
    model.priors[0] = GaussianHead(2, 2)
    set_head(model.priors[0], slope * torch.eye(2), offset, variance)
    weight, bias, covariance = exact(linear, names)
    set_head(model.posteriors[0], weight, bias, wide * covariance.diagonal())
    # z_2 given x: by way of z_1, of which it is linear.
    gain = slope / (slope**2 + variance)
    rest = 1 - slope * gain + gain**2 * covariance.diagonal()
    set_head(model.posteriors[1], gain.diag() @ weight, gain * (bias - offset), wide * rest)
    x = linear.sample(rows, names)

    def log_p(T: Subset, S: Subset) -> Tensor:
        return linear.log_p(x, [*S, *T]) - (linear.log_p(x, S) if S else 0)

    return Toy(model.double(), x, log_p, linear)


@torch.no_grad()
def linear_conditional(kind: str, *, wide: float = 1.0, rows: int = 60) -> Toy:
    """CVAE or CMMA from c to a and b: p(x_T|z, x_c) = A z + C x_c + b, or z ~ N(P x_c + p, S)."""
    torch.manual_seed(9)
    targets, given = ("a", "b"), ("c",)
    model = built(kind, "abc", targets=targets, given=given)
    used = {n: A[n] for n in targets}
    x = {"c": torch.randn(rows, SIZES["c"])}
    P, p, S = torch.randn(2, SIZES["c"]) / 2, torch.tensor([0.2, -0.1]), torch.tensor([0.5, 0.7])
    C = {n: torch.randn(SIZES[n], SIZES["c"]) / 2 for n in targets}
    if kind == "cmma":
        set_decoders(model, used)
        set_encoder(model.prior_encoder, given, P, p, S)
        mean, covariance, shift = x["c"] @ P.T + p, S.diag(), {n: B[n].expand(rows, -1) for n in B}
    else:
        set_decoders(model, {n: torch.cat([used[n], C[n]], 1) for n in targets})
        mean, covariance = torch.zeros(rows, 2), torch.eye(2)
        shift = {n: B[n] + x["c"] @ C[n].T for n in targets}
    linear = Linear(used, mean, covariance, shift)
    z = mean + torch.randn(rows, 2) @ covariance.sqrt()
    for n in targets:
        x[n] = z @ used[n].T + shift[n] + NOISE * torch.randn(rows, SIZES[n])
    # The posterior's mean is linear in all of x: read its weights off unit vectors.
    W, _ = linear.stacked(targets)
    posterior = (covariance.inverse() + W.T @ W / NOISE**2).inverse()
    gain = posterior @ W.T / NOISE**2
    b = torch.cat([B[n] for n in targets])
    if kind == "cmma":
        pull, constant = posterior @ covariance.inverse() @ P, posterior @ covariance.inverse() @ p
    else:
        pull, constant = -gain @ torch.cat([C[n] for n in targets]), torch.zeros(2)
    weight = torch.cat([gain, pull], 1)
    set_encoder(
        model.encoder, model.names, weight, constant - gain @ b, wide * posterior.diagonal()
    )

    def log_p(T: Subset, S: Subset) -> Tensor:
        assert given == S
        return linear.log_p(x, T)

    return Toy(model, Batch(x), log_p, linear)


GRID = torch.linspace(-9, 9, 1201, dtype=torch.float64)
"""Values of z to sum over; N(0, 1) beyond them is below 1e-18."""


@torch.no_grad()
def words(kind: str) -> Toy:
    """Two or three words given one z: p(x) is a sum over a fine grid; all 12 observations."""
    torch.manual_seed(3)
    modalities = {
        "colour": Word(),
        "side": Word(words=("left", "right")),
        "size": Word(words=("small", "large")),
    }
    settings: dict[str, object] = {}
    if kind in ONE_WAY:
        settings = {"targets": ("colour", "size"), "given": ("side",)}
    if kind == "hierarchical":
        settings = {"layers": 2, "widths": (5,)}
    model = made(kind, modalities, latent=1, **settings).double().eval()
    for name, parameter in model.named_parameters():
        if name.startswith("decoders."):
            parameter.mul_(3)  # far from a model that says nothing
    widen(model)
    each = torch.cartesian_prod(*map(torch.arange, (3, 2, 2))).T
    stored = {n: values.to(torch.uint8) for n, values in zip(modalities, each, strict=True)}
    x = Batch({n: modalities[n].observe(values) for n, values in stored.items()})
    step = (GRID[1] - GRID[0]).log()
    # What decoders read: of several layers of latents the first.
    z = torch.zeros(len(GRID), 1, *model.prior(x.select(["side"])).event_shape)
    z.flatten(2)[..., 0] = GRID.unsqueeze(1)

    def log_prior(S: Subset) -> Tensor:
        """log p(z) on the grid, ``(rows or 1, grid)``."""
        if kind == "hierarchical":
            down = model.priors[0](GRID.unsqueeze(1))
            above = Normal(0.0, 1.0).log_prob(GRID)
            log_p = Normal(down.loc, down.scale).log_prob(GRID)  # (z_2, z_1)
            return (log_p + above.unsqueeze(1) + step).logsumexp(0, keepdim=True)
        p = model.prior(x.select(S))
        return Normal(p.loc, p.scale).log_prob(GRID).reshape(-1, len(GRID))

    def marginal(names: Sequence[str], S: Subset) -> Tensor:
        rows = []
        for row in range(12):
            one = x.slice(row, row + 1)
            decoded = model.decode(z, one, names)
            rows.append(sum(p.log_prob(one[n]) for n, p in decoded.items())[:, 0])
        return (torch.stack(rows) + log_prior(S) + step).logsumexp(1)

    def log_p(T: Subset, S: Subset) -> Tensor:
        if kind in ONE_WAY:
            return marginal(T, S)
        return marginal([*S, *T], S) - (marginal(S, S) if S else 0)

    return Toy(model, Batch(stored), log_p)


def widen(model: Model) -> None:
    """Makes every posterior wider than the prior, so that importance weights are bounded."""
    if hasattr(model, "posteriors"):
        for head in model.posteriors:
            head.linear.bias[model.latent :] += 1.5
    else:
        model.encoder.first.bias[:, model.latent :] += 1.5
