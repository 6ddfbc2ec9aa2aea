"""FactorVAE: a critic keeps the dimensions of z apart. One file, of which mmgen knows nothing."""

import torch
from pydantic import NonNegativeFloat
from torch.nn.functional import softplus

from mmgen.hooks import hookimpl
from mmgen.inference.bound import evidence_bound
from mmgen.latent.encoder import SubsetEncoder
from mmgen.latent.gaussian import gaussian, standard_normal
from mmgen.model import Model, ModelSettings, ParameterGroup
from mmgen.nets.blocks import mlp
from mmgen.objective import Objective, Term


class FactorVAE(Model):
    """One z behind all modalities, whose dimensions a critic keeps independent of each other.

    H. Kim, A. Mnih, "Disentangling by Factorising", ICML 2018, equations 2 and 3.
    """

    kind, api_version = "factor-vae", 1
    equation = ("Σ_k log p(x_k | z)", "− β KL( q(z | x) ‖ N(0, I) )", "− γ TC(z)")

    class Settings(ModelSettings):
        """FactorVAE.

        Attributes:
            latent: Z, the size of z.
            gamma: γ, the weight of the total correlation.
        """

        gamma: NonNegativeFloat = 2.0

    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        self.encoder = SubsetEncoder(modalities, [self.names], 2 * self.latent)
        self.critic = mlp(self.latent, (32,), 1)

    def prior(self, given):
        return standard_normal(self.latent, like=self.like)

    def posterior(self, x):
        return gaussian(self.encoder(x)[0], "q(z | x)") if {*x} == {*self.names} else None

    def objective(self, x):
        q = self.posterior(x)
        z = q.rsample()
        # Each dimension of another row: as if they were independent of each other.
        apart = z.detach().gather(0, torch.rand_like(z).argsort(0))
        tc, real, mixed = (self.critic(h)[:, 0].to(z.dtype) for h in (z, z.detach(), apart))
        terms = evidence_bound(self, x, q, z)
        terms.append(Term("tc", tc, self.settings.gamma, bound=False, title="TC(z)"))
        guess = softplus(-real) + softplus(mixed)
        return Objective([*terms, Term("critic", guess, trains=("critic",), bound=False)])

    def parameter_groups(self):
        critic, rest = list(self.critic.parameters()), [self.encoder, self.decoders]
        own = {"lr": 1e-4, "betas": (0.5, 0.9)}
        return {
            "model": ParameterGroup([p for net in rest for p in net.parameters()]),
            "critic": ParameterGroup(critic, own),
        }


@hookimpl
def mmgen_models():
    return [FactorVAE]
