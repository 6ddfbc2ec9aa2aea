"""Gaussians of z whose dimensions depend on each other: full covariances, and of low rank.

References:
    M. Pourahmadi, "Joint mean-covariance models with applications to longitudinal data",
    Biometrika 86(3), 1999 (a covariance as regressions of each dimension on others); G. Dorta,
    S. Vicente, L. Agapito, N. D. F. Campbell, I. Simpson, "Structured Uncertainty Prediction
    Networks", CVPR 2018 (precisions by their Cholesky factors, read off a net).
"""

import math
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions.kl import register_kl

from mmgen.latent.gaussian import DiagonalGaussian, Gaussian, full_precision


class FullGaussian(Gaussian):
    """N(mean, Σ) of any covariance, Σ⁻¹ = U diag(innovation⁻²) Uᵀ with U lower unitriangular.

    U diag(1 / innovation) is the Cholesky factor of the precision. Each dimension is a regression
    on those after it, and noise of its own: Uᵀ(z − mean) = innovation · u, u ~ N(0, I). Any U and
    any positive innovation make a covariance, and with U = I it is diag(innovation²). Densities
    and the KL to it multiply by U; draws alone solve a triangular system, and nothing is inverted.

    Args:
        mean: ``(..., Z)``.
        innovation: The standard deviation of each dimension given those after it, ``(..., Z)``.
        coupling: U ``(..., Z, Z)``.
        symbol: See :class:`mmgen.latent.base.Latent`.

    Examples:
        >>> covariance = torch.tensor([[1.0, 0.6], [0.6, 2.0]])
        >>> p = FullGaussian.of_covariance(torch.zeros(2), covariance)
        >>> p.variance.round(decimals=3), p.covariance[0, 1].round(decimals=3)
        (tensor([1., 2.]), tensor(0.6000))
    """

    def __init__(
        self, mean: Tensor, innovation: Tensor, coupling: Tensor, symbol: str = "q(z)"
    ) -> None:
        self.loc, self.innovation, self.coupling = mean, innovation, coupling
        super().__init__(mean.shape[:-1], mean.shape[-1:], symbol)

    @classmethod
    def of_covariance(cls, mean: Tensor, covariance: Tensor, symbol: str = "q(z)") -> Self:
        """Returns N(mean, covariance), of a positive definite covariance ``(..., Z, Z)``."""
        # Backwards, so that the factor of Σ = A Aᵀ is upper triangular: A = U⁻ᵀ diag(innovation).
        factor = torch.linalg.cholesky(covariance.flip(-1, -2)).flip(-1, -2)
        innovation = factor.diagonal(dim1=-2, dim2=-1)
        one = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        regression = (factor / innovation.unsqueeze(-2)).mT
        coupling = torch.linalg.solve_triangular(regression, one, upper=False, unitriangular=True)
        return cls(mean, innovation, coupling.tril(-1) + one, symbol)

    @property
    def factor(self) -> Tensor:
        """A ``(..., Z, Z)``, upper triangular, of Σ = A Aᵀ."""
        return self._solved(torch.diag_embed(self.innovation)).mT

    @property
    def covariance(self) -> Tensor:
        """Σ ``(..., Z, Z)``."""
        with full_precision(self.loc.device):
            return self.factor @ self.factor.mT

    @property
    def variance(self) -> Tensor:
        """The diagonal of Σ, ``(..., Z)``."""
        return self.factor.square().sum(-1)

    def standardised(self, x: Tensor) -> Tensor:
        """Returns u ``(..., Z)`` of z − mean = x: N(0, I) of draws."""
        with full_precision(self.loc.device):
            mixed = _restored(_rows(x, self.batch_shape) @ self.coupling, x)
        return mixed / self.innovation

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z = mean + U⁻ᵀ (innovation · u)."""
        return self._of(self.loc.new_empty(*sample_shape, *self.loc.shape).normal_())

    def pick(self, chosen: Tensor) -> Tensor:
        """Draws z of chosen ones: see :meth:`mmgen.latent.gaussian.Gaussian.pick`."""
        return _picked(self, chosen, self.loc.new_empty(*chosen.shape, *self.event_shape).normal_())

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log N(z; mean, Σ), ``(...)``."""
        u = self.standardised(value - self.loc)
        each = -u.square() / 2 - self.innovation.log() - math.log(math.sqrt(2 * math.pi))
        return each.sum(-1)

    def tempered(self, temperature: float) -> Self:
        """Returns N(mean, τ² Σ)."""
        return type(self)(self.loc, temperature * self.innovation, self.coupling, self.symbol)

    def __getitem__(self, index: Any) -> Self:
        """Returns a part of the batch."""
        return type(self)(
            self.loc[index], self.innovation[index], self.coupling[index], self.symbol
        )

    def detach(self) -> Self:
        """Returns the same distribution, through which no gradient flows."""
        loc, innovation, coupling = self.loc, self.innovation, self.coupling
        return type(self)(loc.detach(), innovation.detach(), coupling.detach(), self.symbol)

    def _of(self, u: Tensor) -> Tensor:
        noise = _rows(self.innovation * u, self.batch_shape)
        return self.loc + _restored(self._solved(noise), u)

    def _solved(self, rows: Tensor) -> Tensor:
        """Returns rows ``(..., n, Z)`` times U⁻¹: U⁻ᵀ times each of them."""
        solved: Tensor = torch.linalg.solve_triangular(
            self.coupling, rows, upper=False, left=False, unitriangular=True
        )
        return solved


class LowRankGaussian(Gaussian):
    """N(mean, D (I + V Vᵀ) D) with D = diag(scale): R directions are shared by all dimensions.

    Args:
        mean: ``(..., Z)``.
        scale: ``(..., Z)``, positive.
        directions: V ``(..., Z, R)``.
        symbol: See :class:`mmgen.latent.base.Latent`.
    """

    def __init__(
        self, mean: Tensor, scale: Tensor, directions: Tensor, symbol: str = "q(z)"
    ) -> None:
        self.loc, self.scale, self.directions = mean, scale, directions
        super().__init__(mean.shape[:-1], mean.shape[-1:], symbol)

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance, ``(..., Z)``."""
        return self.scale.square() * (1 + self.directions.square().sum(-1))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z = mean + D (u + V v), with u and v ~ N(0, I)."""
        return self._of(self._noise((*sample_shape, *self.batch_shape)))

    def pick(self, chosen: Tensor) -> Tensor:
        """Draws z of chosen ones: see :meth:`mmgen.latent.gaussian.Gaussian.pick`."""
        return _picked(self, chosen, self._noise(chosen.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log density by Woodbury's identity, of R × R matrices, ``(...)``."""
        x, V = (value - self.loc) / self.scale, self.directions
        with full_precision(self.loc.device):
            one = torch.eye(V.shape[-1], dtype=V.dtype, device=V.device)
            # I + VᵀV always has a factor; to check it would wait for the device.
            L, _ = torch.linalg.cholesky_ex(one + V.mT @ V)
            projected = (_rows(x, self.batch_shape) @ V).mT
            shared = torch.linalg.solve_triangular(L, projected, upper=False).mT
        squared = x.square().sum(-1) - _restored(shared, x).square().sum(-1)
        log_volume = self.scale.log().sum(-1) + L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_p: Tensor = -squared / 2 - log_volume - x.shape[-1] * math.log(math.sqrt(2 * math.pi))
        return log_p

    def tempered(self, temperature: float) -> Self:
        """Returns the same, its covariance multiplied by τ²."""
        return type(self)(self.loc, temperature * self.scale, self.directions, self.symbol)

    def __getitem__(self, index: Any) -> Self:
        """Returns a part of the batch."""
        return type(self)(self.loc[index], self.scale[index], self.directions[index], self.symbol)

    def detach(self) -> Self:
        """Returns the same distribution, through which no gradient flows."""
        loc, scale, directions = self.loc, self.scale, self.directions
        return type(self)(loc.detach(), scale.detach(), directions.detach(), self.symbol)

    def _noise(self, shape: tuple[int, ...]) -> Tensor:
        return self.loc.new_empty(*shape, sum(self.directions.shape[-2:])).normal_()

    def _of(self, noise: Tensor) -> Tensor:
        u, v = noise.tensor_split([self.directions.shape[-2]], dim=-1)
        with full_precision(self.loc.device):
            shared = _restored(_rows(v, self.batch_shape) @ self.directions.mT, u)
        return self.loc + self.scale * (u + shared)


@register_kl(DiagonalGaussian, FullGaussian)  # type: ignore[untyped-decorator]
def _kl_of_diagonal(q: DiagonalGaussian, p: FullGaussian) -> Tensor:
    # Σ_i (Uᵀ diag(σ²) U)_ii / innovation_i²: of the squares of U, without a triangular system.
    with full_precision(p.loc.device):
        spread = (q.variance.unsqueeze(-2) @ p.coupling.square()).squeeze(-2)
    trace = spread / p.innovation.square()
    return _kl(trace, p.standardised(q.loc - p.loc), p.innovation / q.scale)


@register_kl(FullGaussian, FullGaussian)  # type: ignore[untyped-decorator]
def _kl_of_full(q: FullGaussian, p: FullGaussian) -> Tensor:
    with full_precision(p.loc.device):
        spread = (p.coupling.mT @ q.factor).square().sum(-1)
    trace = spread / p.innovation.square()
    return _kl(trace, p.standardised(q.loc - p.loc), p.innovation / q.innovation)


@register_kl(FullGaussian, DiagonalGaussian)  # type: ignore[untyped-decorator]
def _kl_to_diagonal(q: FullGaussian, p: DiagonalGaussian) -> Tensor:
    return _kl(q.variance / p.variance, (q.loc - p.loc) / p.scale, p.scale / q.innovation)


def _kl(trace: Tensor, shift: Tensor, volume: Tensor) -> Tensor:
    """Returns ½ (tr Σ_p⁻¹Σ_q + ‖shift‖² − Z) + log |volume|, each ``(..., Z)`` by dimension."""
    return (0.5 * (trace + shift.square() - 1) + volume.log()).sum(-1)


def _picked(components: FullGaussian | LowRankGaussian, chosen: Tensor, noise: Tensor) -> Tensor:
    """Draws by one component after the other: a matrix for each draw would be gathered else."""
    z = components[0]._of(noise)  # noqa: SLF001 - of this module's classes
    for number in range(1, len(components.loc)):
        each = components[number]._of(noise)  # noqa: SLF001
        z = torch.where((chosen == number).unsqueeze(-1), each, z)
    return z


def _rows(x: Tensor, batch: torch.Size) -> Tensor:
    """Lays ``(*samples, *batch, Z)`` out as ``(*batch, samples, Z)``, for matrices of the batch.

    A product of it with ``(*batch, Z, Z)`` copies no matrix for each sample.
    """
    full = x.expand(torch.broadcast_shapes(x.shape, (*batch, x.shape[-1])))
    samples = full.shape[: full.dim() - 1 - len(batch)].numel()
    return full.reshape(samples, *batch, x.shape[-1]).movedim(0, -2)


def _restored(rows: Tensor, x: Tensor) -> Tensor:
    """Lays rows ``(*batch, samples, n)`` out as x, of which :func:`_rows` made such."""
    lead = torch.broadcast_shapes(x.shape[:-1], rows.shape[:-2])
    return rows.movedim(-2, 0).reshape(*lead, rows.shape[-1])
