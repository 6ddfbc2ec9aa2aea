"""JMVAE and JMVAE-kl: one z for all modalities, and an encoder for every subset.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equations 5 and 10;
    "Joint Multimodal Learning with Deep Generative Models", arXiv:1611.01891, 2016.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mmgen.batch import Batch
from mmgen.errors import ConfigError, listed
from mmgen.inference.bound import evidence_bound
from mmgen.inference.divergence import divergence
from mmgen.latent.base import Latent, symbol
from mmgen.latent.encoder import SubsetEncoder
from mmgen.latent.family import (
    Family,
    FullGaussians,
    GaussianFamily,
    Gaussians,
    LowRankGaussians,
    Mixtures,
)
from mmgen.latent.flow import ConditionalFlow
from mmgen.latent.gaussian import (
    VARIANCE_FLOOR,
    DiagonalGaussian,
    Gaussian,
    gaussian,
    standard_normal,
)
from mmgen.latent.product import products_of
from mmgen.modality import Modality
from mmgen.model import Model, ModelSettings
from mmgen.objective import Objective, Term, subset_kl
from mmgen.seeding import decisions
from mmgen.settings import MOST, Depth, Size, Widths
from mmgen.subsets import Subset, chosen, ordered, subset_encoder_nets

JOINT = "q(z | x)"

UNIT = math.log(math.expm1(1 - VARIANCE_FLOOR))
"""The parameter that a Gaussian's variance of 1 is read off."""

CLOSED = ("gaussian", "full")
"""Families of posteriors given subsets that z of a row can be drawn from in training."""

TOLD = 8
"""The most sets of modalities that a message names."""

Components = Annotated[int, Field(gt=0, le=1000)]
"""A number of Gaussians: z are drawn from one after the other."""


class JointlyEncoded(Model):
    """One latent z ~ N(0, I), and q(z|x) by an encoder of all modalities together.

    Attributes:
        encoder: The encoders of the subsets that have one, all modalities among them.
    """

    encoder: SubsetEncoder

    def prior(self, given: Batch) -> DiagonalGaussian:  # noqa: ARG002
        """Returns N(0, I)."""
        return standard_normal(self.latent, like=self.like)

    def encode_each(self, x: Batch) -> dict[str, Tensor]:
        """Encodes modalities by the joint encoder's nets, ``(B, ·)`` each."""
        return self.encoder.encode_each(x, self.names)

    def join(self, encoded: Mapping[str, Tensor]) -> DiagonalGaussian:
        """Returns q(z|x) of modalities that are encoded."""
        return gaussian(self.encoder.join(encoded, self.names)[0], JOINT)

    def imputed_posterior(self, x: Batch) -> DiagonalGaussian:
        """Returns q(z|x), imputed or not."""
        return self.join(self.encode_each(x))


class JMVAE(JointlyEncoded):
    """One latent z behind all modalities: one encoder reads them together, one decoder each.

    Maximises, with the joint encoder q(z|x) (eq. 5),

    L = Σ_k E_q(z|x)[log p(x_k|z)] − β KL(q(z|x) ‖ N(0, I)).
    """

    kind: ClassVar[str] = "jmvae"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = ("Σ_k log p(x_k | z)", "− β KL( q(z | x) ‖ N(0, I) )")
    formula: ClassVar[str] = "K"

    class Settings(ModelSettings):
        """JMVAE (eq. 5): one joint encoder.

        Attributes:
            latent: Z, the size of z: by how many numbers a row is described; 64 in the paper's
                MNIST.
            fusion: Widths of layers that join the encoders; in the paper none, and 1024 for CelebA.
            sampling_prior: What z is drawn from given nothing: prior, N(0, I), as in the paper; or
                fitted, a mixture of Gaussians that after training is fitted to the posteriors of
                training rows. Training and likelihoods have N(0, I).
        """

        fusion: Widths = ()
        sampling_prior: Literal["prior", "fitted"] = "prior"

    def __init__(self, modalities: Mapping[str, Modality], settings: "JMVAE.Settings") -> None:
        super().__init__(modalities, settings)
        self.fits_prior = settings.sampling_prior == "fitted"
        self.encoder = SubsetEncoder(modalities, [self.names], 2 * self.latent, settings.fusion)

    def posterior(self, x: Batch) -> DiagonalGaussian | None:
        """Returns q(z|x) of all modalities."""
        return gaussian(self.encoder(x)[0], JOINT) if {*x} == {*self.names} else None

    def objective(self, x: Batch) -> Objective:
        """Returns the terms of −L."""
        q = gaussian(self.encoder(x)[0], JOINT)
        return Objective(evidence_bound(self, x, q, q.rsample()))

    @classmethod
    def encoder_count(cls, settings: ModelSettings, modalities: int) -> int:  # noqa: ARG003
        """Returns K."""
        return modalities


class JMVAEKL(JointlyEncoded):
    """One latent z behind all modalities, which an encoder for each subset of them learns to find.

    Maximises, with a weight α for every subset S that has an encoder (eq. 10),

    L = Σ_k E_q(z|x)[log p(x_k|z)] − β KL(q(z|x) ‖ N(0, I)) − α Σ_S KL(q(z|x) ‖ q(z|x_S)).

    With α = 0 this is JMVAE. How q(z|x_S) is computed is a setting (``subset_encoder``): by nets of
    its own, by layers of its own after nets that all subsets share, or as q(z|x_S) ∝ p(z)
    Π_{k∈S} q̃_k(z|x_k). With ``subsets_per_step`` = n, a step draws n of the N subsets, each choice
    as likely as another, and weighs their sum by N/n: its mean, and its gradient's, is that of all.
    With ``prediction`` = γ > 0, what is beside the paper,

    + γ Σ_k mean_{S ∌ k} w_{S,k} E_q(z|x_S)[log p(x_k|z)]

    of modalities k with choices: what z of a subset says of a class is trained for itself, as far
    as the subset tells it. √w_{S,k} is by how much p(x_k|z) is larger for a row's own x_k than for
    another row's, without a gradient: of what x_S does not tell, log p would ask every z to leave
    it open; z then lie between the places where rows are, and generate what is like no row.

    Of a row that lacks modalities, which has those of a set P, q(z|x) is q(z|x_P), k is in P, and S
    are the proper subsets of P: a bound on log p(x_P). All encoders run on all rows, and masks
    choose, so that no step takes longer for what its rows lack, or waits for the device to know.

    Attributes:
        subsets: The proper subsets that have a posterior.
        members: Which modalities they have, and all together last, ``(S + 1, K)``.
    """

    members: Tensor
    kind: ClassVar[str] = "jmvae-kl"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = (*JMVAE.equation, "− α Σ_S KL( q(z | x) ‖ q(z | x_S) )")
    formula: ClassVar[str] = "2^(K−1)·K"
    incomplete_rows: ClassVar[bool] = True
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "shared": {"subset_encoder": "shared"},
        "product": {"subset_encoder": "product"},
        "2 per step": {"subsets_per_step": 2},
        "shared 2 per step": {"subset_encoder": "shared", "subsets_per_step": 2},
    }

    class Settings(JMVAE.Settings):
        """JMVAE-kl (eq. 10): an encoder for every subset of modalities.

        Attributes:
            latent: Z, the size of z: by how many numbers a row is described.
            fusion: Widths of layers that join the encoders of the modalities.
            sampling_prior: What z is drawn from given nothing: prior, N(0, I), as in the paper; or
                fitted, a mixture of Gaussians that after training is fitted to the posteriors of
                training rows. Training and likelihoods have N(0, I).
            sampling_posterior: What z is drawn from given a subset: encoder, q(z|x_S), as in the
                paper; or fitted, where many training rows have the same x_S, such as a class, a
                mixture of Gaussians that after training is fitted to their posteriors, and draws
                chosen by where a fitted prior has z. Training and likelihoods have q(z|x_S).
            subsets: Which subsets of the modalities get an encoder: all, 2^K − 2 of them; single,
                each modality; none; or a list such as ["image", "image+label"].
            subset_encoder: How q(z|x_S) is computed: separate, as in the paper, each subset by nets
                of its own, 2^(K−1)·K of all; shared, by layers of its own after one net of each
                modality, which the joint encoder reads too, K nets; or product, of p(z) and an
                expert of each modality in S, beside the joint encoder's nets, 2K in all.
            subsets_per_step: How many subsets, drawn at random, each training step computes the KL
                of, weighted so that its mean is the sum over all; if left out, all. A step then
                costs the same whatever their number; validation counts all.
            alpha: α, the weight of each subset's KL; 1 in the paper, which sums them (eq. 10). The
                authors' published code weighs their mean: its α is α / (2^K − 2) here, 0.5 for two
                modalities.
            subset_posterior: What q(z|x_S) is: gaussian, as in the paper, of independent
                dimensions; full, a Gaussian with a full covariance; mixture, of Gaussians; or flow,
                a normalising flow (extra ``flow``).
            subset_gradient: Whether the subsets' KL moves the joint posterior too, as in the paper.
            prediction: γ, the weight of log p(x_k | z) with z of q(z|x_S) for modalities k outside
                S that have choices, such as classes, as far as S tells them; 0 in the paper.
            mixture_components: Of subset_posterior = mixture: how many Gaussians.
            mixture_covariance: Of subset_posterior = mixture: diagonal, low-rank (and diagonal), or
                full.
            mixture_rank: Of mixture_covariance = low-rank: how many directions dimensions share.
            flow_transforms: Of subset_posterior = flow: how many transformations.
            flow_widths: Of subset_posterior = flow: widths of the nets in each.
        """

        sampling_posterior: Literal["encoder", "fitted"] = "encoder"
        subsets: Literal["none", "single", "all"] | tuple[str, ...] = "all"
        subset_encoder: Literal["separate", "shared", "product"] = "separate"
        subsets_per_step: Size | None = None
        alpha: Annotated[float, Field(ge=0, le=MOST)] = 1.0
        subset_posterior: Literal["gaussian", "full", "mixture", "flow"] = "gaussian"
        subset_gradient: bool = True
        prediction: Annotated[float, Field(ge=0, le=MOST)] = 0.0
        mixture_components: Components = 5
        mixture_covariance: Literal["diagonal", "low-rank", "full"] = "full"
        mixture_rank: Size = 4
        flow_transforms: Depth = 3
        flow_widths: Widths = (128, 128)

    def __init__(self, modalities: Mapping[str, Modality], settings: "JMVAEKL.Settings") -> None:
        super().__init__(modalities, settings)
        self.fits_prior = settings.sampling_prior == "fitted"
        self.fits_posteriors = settings.sampling_posterior == "fitted"
        self.alpha, self.subset_gradient = settings.alpha, settings.subset_gradient
        self.subsets = chosen(self.names, settings.subsets)
        self.subsets_per_step = settings.subsets_per_step
        self.product = settings.subset_encoder == "product"
        self.prediction = settings.prediction
        without = {k for k in self.names if any(k not in subset for subset in self.subsets)}
        self.predicted = [k for k, m in modalities.items() if k in without and m.choices()]
        self._check(settings)
        self._family = _family(settings)
        joint, own = 2 * self.latent, self._family.size if self.subsets else 2 * self.latent
        self.encoder = SubsetEncoder(
            modalities,
            [*self._encoded(self.subsets), self.names],
            own,
            settings.fusion,
            shared=settings.subset_encoder == "shared",
            last_teaches=not self.subset_gradient,
            last_out=joint if joint != own else None,
            apart=self.subsets_per_step is not None,
        )
        transforms, widths = settings.flow_transforms, settings.flow_widths
        flows = bool(self.subsets) and settings.subset_posterior == "flow"
        self.flow = ConditionalFlow(self.latent, transforms, widths) if flows else None
        members = [[n in S for n in self.names] for S in [*self.subsets, self.names]]
        # A buffer, so that no step copies it to the device.
        self.register_buffer("members", torch.tensor(members), persistent=False)

    def _check(self, settings: "JMVAEKL.Settings") -> None:
        """Checks that the settings go together.

        Raises:
            ConfigError: If they do not.
        """
        if self.product and settings.subset_posterior != "gaussian":
            raise ConfigError(
                f'model.subset_posterior = "{settings.subset_posterior}": with '
                'model.subset_encoder = "product" each q(z | x_S) is a product of diagonal '
                "Gaussians, and so a diagonal Gaussian."
                '\n  Try model.subset_encoder="shared", or "separate"'
            )
        count = len(self.subsets)
        if (self.subsets_per_step or 0) > count:
            raise ConfigError(
                f"model.subsets_per_step = {self.subsets_per_step}: there are only {count} subsets "
                "with an encoder. Leave it out to train all in each step"
            )

    def check_patterns(self, patterns: Iterable[Subset]) -> None:
        """Checks that q(z|x_P) of rows that have P is a Gaussian with an encoder, which they train.

        Raises:
            ConfigError: If not.
        """
        settings: Any = self.settings
        partly = "where rows lack modalities"
        if settings.subset_posterior not in CLOSED:
            raise ConfigError(
                f'model.subset_posterior = "{settings.subset_posterior}": {partly}, a step draws z '
                "from the posterior given what each row has, with a gradient and a KL to the prior "
                'that Gaussians have.\n  Try model.subset_posterior="full", or "gaussian"'
            )
        if self.subsets_per_step is not None:
            raise ConfigError(
                f"model.subsets_per_step = {self.subsets_per_step}: {partly}, z of each is drawn "
                "from the posterior given what it has, so that a step needs the encoders of all "
                "subsets.\n  Leave the setting out, or train a model of experts"
            )
        if settings.subset_encoder == "shared" and not self.subset_gradient:
            raise ConfigError(
                f"model.subset_gradient = false: {partly}, nets that all subsets share would learn "
                'nothing of them.\n  Try model.subset_encoder="separate", or leave the setting out'
            )
        known = {*self.subsets, self.names}
        if unknown := [S for S in patterns if S not in known]:
            told = listed("+".join(S) for S in unknown[:TOLD])
            told += f" and {len(unknown) - TOLD:,} more" if len(unknown) > TOLD else ""
            raise ConfigError(
                f"model.subsets: there are rows that have only {told}, for which there is no "
                'encoder.\n  Try model.subsets="all", or name these among them'
            )

    @property
    def family(self) -> Family:
        """What the posteriors given proper subsets are, but for products."""
        return self.flow or self._family

    def posterior(self, x: Batch) -> Latent | None:
        """Returns q(z|x_S) of a subset that has an encoder; the full one always has."""
        subset = ordered(self.names, x)
        if x.present and (subset == self.names or subset in self.subsets):
            # What x does not hold, all of its rows lack.
            whole = {**self.blank(self.names, x.rows).tensors, **x.tensors}
            lacks = torch.zeros_like(next(iter(x.present.values())))
            masks = {**{n: lacks for n in self.names if n not in x}, **x.present}
            h, joint = self.encoder.split(whole)
            title = JOINT if subset == self.names else symbol("q", subset)
            return self._own(h, joint, self._has(Batch(whole, masks)), title)
        if subset == self.names:
            return gaussian(self.encoder(x, subset)[0], JOINT)
        if subset not in self.subsets:
            return None
        title = symbol("q", subset)
        if self.product:
            h = torch.cat([self.encoder(x, (n,)) for n in subset])
            return self._products(h, [subset], title)[0]
        return self.family(self.encoder(x, subset)[0], title)

    def objective(self, x: Batch) -> Objective:
        """Returns the terms of −L, by ``subsets_per_step`` an unbiased estimate in training."""
        if x.present:
            return self._objective_of_each(x)
        subsets = self._subsets_of_step()
        drawn = None if self.subsets_per_step is None else self._encoded(subsets)
        h, joint = self.encoder.split(x, drawn)  # (S, B, P) and (B, 2Z)
        q = gaussian(joint, JOINT)
        z = q.rsample()
        terms = evidence_bound(self, x, q, z)
        if subsets:
            if not self.subset_gradient:
                q, z = q.detach(), z.detach()
            posteriors = self._posteriors(h, subsets, "q(z | x_S)")
            kl = divergence(q, posteriors, z)  # (S, B)
            terms += self._subset_terms(subsets, kl)
            terms += self._predictions(x, subsets, posteriors)
        return Objective(terms)

    def _objective_of_each(self, x: Batch) -> Objective:
        """Returns the terms of −L of rows of which some lack modalities.

        z of a row are drawn from q(z|x_P) of what it has, P, and subsets are those of P.
        """
        has = self._has(x)
        h, joint = self.encoder.split(x.stood_in() if self.training else x)
        q = self._own(h, joint, has, JOINT)
        z = q.rsample()
        terms = evidence_bound(self, x, q, z)
        if not self.subsets:
            return Objective(terms)
        if not self.subset_gradient:
            q, z = q.detach(), z.detach()
        posteriors = self._posteriors(h, self.subsets, "q(z | x_S)")
        kl = divergence(q, posteriors, z)  # (S, B)
        within = (~self.members[:-1, :, None] | has).all(1)
        proper = within & ~self._same(has)[:-1]
        each = zip(self._subset_terms(self.subsets, kl), proper, strict=True)
        terms += [replace(term, present=rows) for term, rows in each]
        return Objective([*terms, *self._predictions(x, self.subsets, posteriors, proper)])

    def _has(self, x: Batch) -> Tensor:
        """Returns which rows have which modality, ``(K, B)``."""
        masks = x.present or {}
        every = torch.ones_like(next(iter(masks.values())))
        return torch.stack([masks.get(n, every) for n in self.names])

    def _same(self, has: Tensor) -> Tensor:
        """Returns which rows have exactly the modalities of each subset, all K the last of them."""
        return (self.members[:, :, None] == has).all(1)

    def _own(self, h: Tensor, joint: Tensor, has: Tensor, title: str) -> Gaussian:
        """Returns q(z|x_P) of each row's own P, ``(B,)``; p(z) of a row that has nothing.

        Args:
            h: What all proper subsets' posteriors are read off, ``(S, B, P)``.
            joint: What q(z|x) of all modalities is read off, ``(B, 2Z)``.
            has: See :meth:`_has`.
            title: How the distribution is written.
        """
        self.check_patterns(())
        same = self._same(has)
        own = torch.cat([same, ~same.any(0, keepdim=True)]).long().argmax(0)
        mean, raw = joint.chunk(2, -1)
        prior = torch.cat([torch.zeros_like(mean), torch.full_like(raw, UNIT)], -1)
        rest = torch.stack([joint, prior])  # parameters of diagonal Gaussians
        if self.product and self.subsets:
            q, p = self._products(h, self.subsets, title), gaussian(rest)
            loc, scale = (torch.cat(each) for each in ((q.loc, p.loc), (q.scale, p.scale)))
            return DiagonalGaussian(_chosen(loc, own), _chosen(scale, own), title)
        # Those of other Gaussians begin alike, and zeros couple nothing.
        alike = F.pad(rest, (0, h.shape[-1] - rest.shape[-1]))
        q_own = self.family(_chosen(torch.cat([h, alike]), own), title)
        assert isinstance(q_own, Gaussian), "of rows that lack modalities, see check_patterns"
        return q_own

    def _subsets_of_step(self) -> list[Subset]:
        """Returns the subsets whose KL is computed: all, or some drawn anew in each training step.

        The draw follows a random state that a checkpoint holds; on the CPU, where no device is
        waited for. It takes time for the subsets drawn, not for all.
        """
        if self.subsets_per_step is None or not self.training:
            return self.subsets
        seed = int(torch.randint(2**63 - 1, (), generator=decisions(), device="cpu"))
        rows = random.Random(seed).sample(range(len(self.subsets)), self.subsets_per_step)
        return [self.subsets[row] for row in sorted(rows)]

    def _encoded(self, subsets: Sequence[Subset]) -> list[Subset]:
        """Returns the proper subsets that are encoded, for some to have a posterior."""
        if not self.product:
            return [*subsets]
        return [(n,) for n in self.names if any(n in subset for subset in subsets)]

    def _posteriors(self, h: Tensor, subsets: Sequence[Subset], title: str) -> Latent:
        """Reads q(z|x_S) of some subsets off what :meth:`_encoded` of them gave, ``(S, B)``."""
        return self._products(h, subsets, title) if self.product else self.family(h, title)

    def _products(self, h: Tensor, subsets: Sequence[Subset], title: str) -> DiagonalGaussian:
        """Returns p(z) Π_{k∈S} q̃_k(z|x_k), normalised, of experts read off ``(experts, B, 2Z)``."""
        q = gaussian(h)
        experts = {n: q[row] for row, (n,) in enumerate(self._encoded(subsets))}
        prior = standard_normal(self.latent, like=h)
        return products_of(experts, prior, subsets, title)

    def _subset_terms(self, subsets: Sequence[Subset], kl: Tensor) -> list[Term]:
        if self.subsets_per_step is None:
            each = zip(subsets, kl, strict=True)
            return [subset_kl(S, value, self._title(S), self.alpha) for S, value in each]
        # One term: of many, a step would have to note those that it did not draw too.
        total = len(self.subsets) / len(subsets) * kl.sum(0)
        return [Term("subsets", total, self.alpha, about=self.names, title="Σ KL to q(z | x_S)")]

    def _predictions(
        self, x: Batch, subsets: Sequence[Subset], posteriors: Latent, has: Tensor | None = None
    ) -> list[Term]:
        """Returns the terms of w log p(x_k|z), z of q(z|x_S): means over all subsets S without k.

        Args:
            x: Observations ``(B, *shape)`` of all modalities.
            subsets: Those of a step.
            posteriors: q(z|x_S) of them, ``(S, B)``.
            has: Which rows have all of S and more, ``(S, B)``; all without it.
        """
        if not self.prediction:
            return []
        z, terms, masks = posteriors.rsample(), [], x.present or {}  # z (S, B, Z)
        for k in self.predicted:
            without = [row for row, S in enumerate(subsets) if k not in S]
            value, present = x[k].new_zeros(x.rows), masks.get(k)
            if without:
                p = self.decode(torch.stack([z[row] for row in without]), names=[k])[k]
                log_p = p.log_prob(x[k])
                with torch.no_grad():
                    of_another = p.log_prob(x[k].roll(1, 0))
                if has is not None:
                    known = masks.get(k, torch.ones_like(has[0]))
                    rows = torch.stack([has[row] for row in without]) & known
                    present = rows.any(0)
                    told = _told(log_p, of_another, rows & known.roll(1, 0))
                    value = torch.where(rows, told * log_p, 0).sum(0)
                else:
                    value = (_told(log_p, of_another) * log_p).sum(0)
            # Of those that a step draws, their share in all: see the class.
            count = sum(k not in S for S in self.subsets) * len(subsets) / len(self.subsets)
            about: dict[str, Any] = {"about": (k,), "bound": False, "present": present}
            title, weight = f"w log p({k} | z), z of q(z | x_S)", -self.prediction
            terms.append(Term(f"prediction/{k}", value / count, weight, title=title, **about))
        return terms

    @staticmethod
    def _title(subset: Subset) -> str:
        return f"KL to {symbol('q', subset)}"

    @classmethod
    def encoder_count(cls, settings: ModelSettings, modalities: int) -> int | None:
        """Returns 2^(K−1)·K if all subsets have encoders of their own."""
        every = getattr(settings, "subsets", None) == "all"
        separate = getattr(settings, "subset_encoder", None) == "separate"
        return subset_encoder_nets(modalities) if every and separate else None


def _told(log_p: Tensor, of_another: Tensor, rows: Tensor | None = None) -> Tensor:
    """Returns by how much p is larger than of another row, a mean over rows, squared: ``(S, 1)``.

    Without a gradient, and from 0 to 1.

    Args:
        log_p: ``(S, B)``.
        of_another: ``(S, B)``.
        rows: Which count, ``(S, B)``; all without it.
    """
    more = (log_p.exp() - of_another.exp()).detach()
    if rows is None:
        return more.mean(1, keepdim=True).clamp(0, 1).square()
    count = rows.sum(1, keepdim=True).clamp_min(1)
    return (torch.where(rows, more, 0).sum(1, keepdim=True) / count).clamp(0, 1).square()


def _chosen(values: Tensor, which: Tensor) -> Tensor:
    """Returns one of ``(N, B, P)`` for each of B rows, ``(B, P)``, by its number ``(B,)``."""
    return values.gather(0, which[None, :, None].expand(1, -1, values.shape[-1]))[0]


def _family(settings: JMVAEKL.Settings) -> Family:
    """Returns what posteriors given proper subsets are; a flow is laid over diagonal Gaussians."""
    Z = settings.latent
    if settings.subset_posterior == "full":
        return FullGaussians(Z)
    if settings.subset_posterior != "mixture":
        return Gaussians(Z)
    components: dict[str, GaussianFamily] = {
        "diagonal": Gaussians(Z),
        "low-rank": LowRankGaussians(Z, settings.mixture_rank),
        "full": FullGaussians(Z),
    }
    return Mixtures(components[settings.mixture_covariance], settings.mixture_components)
