"""What one writes by hand: JMVAE-kl of two modalities, a module a net, one after the other."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    Normal,
    OneHotCategorical,
    kl_divergence,
)

ALPHA = 0.5
ATTRIBUTES = 40


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)


def gaussian(parameters: Tensor) -> Distribution:
    mean, spread = parameters.float().chunk(2, -1)
    return Independent(Normal(mean, (F.softplus(spread) + 1e-6).sqrt()), 1)


class Digits(nn.Module):
    """The paper's nets for MNIST: 784-512-512 and 10-512-512, z of 64."""

    SIZES: Sequence[int] = (784, 10)

    def __init__(self, latent: int = 64) -> None:
        super().__init__()
        x, w = self.SIZES
        self.joint = nn.ModuleList([mlp(x, 512, 512), mlp(w, 512, 512)])
        self.joined = nn.Linear(1024, 2 * latent)
        self.alone = nn.ModuleList(
            nn.Sequential(mlp(size, 512, 512), nn.Linear(512, 2 * latent)) for size in self.SIZES
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(mlp(latent, 512, 512), nn.Linear(512, size)) for size in self.SIZES
        )

    def loss(self, x: Tensor, w: Tensor, beta: float) -> Tensor:
        """Returns the loss of a batch (equation 10)."""
        of_x, of_w = (net(values) for net, values in zip(self.joint, (x, w), strict=True))
        q = gaussian(self.joined(torch.cat([of_x, of_w], 1)))
        z = q.rsample()
        image, label = (decoder(z).float() for decoder in self.decoders)
        log_p = Independent(Bernoulli(logits=image), 1).log_prob(x)
        log_p = log_p + OneHotCategorical(logits=label).log_prob(w)
        prior = Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1)
        kl = beta * kl_divergence(q, prior)
        for net, values in zip(self.alone, (x, w), strict=True):
            kl = kl + ALPHA * kl_divergence(q, gaussian(net(values)))
        loss: Tensor = (kl - log_p).mean()
        return loss


class Pictures(nn.Module):
    """JMVAE-kl of K pictures 784-512-512: a net for each member of each of 2^K − 1 subsets."""

    def __init__(self, modalities: int, latent: int = 64) -> None:
        super().__init__()
        every = range(1, 2**modalities)
        self.subsets = [[k for k in range(modalities) if number >> k & 1] for number in every]
        self.encoders = nn.ModuleList(
            nn.ModuleList(mlp(784, 512, 512) for _ in subset) for subset in self.subsets
        )
        self.heads = nn.ModuleList(nn.Linear(512 * len(s), 2 * latent) for s in self.subsets)
        self.decoders = nn.ModuleList(
            nn.Sequential(mlp(latent, 512, 512), nn.Linear(512, 784)) for _ in range(modalities)
        )

    def loss(self, x: Tensor, beta: float) -> Tensor:
        """Returns the loss of pictures ``(K, B, 784)`` (equation 10)."""
        each = zip(self.subsets, self.encoders, self.heads, strict=True)
        *others, q = (
            gaussian(head(torch.cat([net(x[k]) for k, net in zip(subset, nets, strict=True)], 1)))  # type: ignore[call-overload]
            for subset, nets, head in each
        )
        z = q.rsample()
        logits = torch.stack([decoder(z).float() for decoder in self.decoders])
        log_p = Independent(Bernoulli(logits=logits), 1).log_prob(x).sum(0)
        prior = Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1)
        kl = beta * kl_divergence(q, prior) + ALPHA * sum(kl_divergence(q, p) for p in others)
        loss: Tensor = (kl - log_p).mean()
        return loss


def image_encoder() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1), nn.ReLU()]
    for before, after in ((64, 128), (128, 256), (256, 256)):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten())


def attributes_encoder() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(ATTRIBUTES, 512), nn.ReLU(), nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU()
    )


def image_decoder() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(128, 4096), nn.ReLU(), nn.Unflatten(1, (256, 4, 4))]
    for before, after in ((256, 256), (256, 128), (128, 64)):
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1))


def attributes_decoder() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(128, 4096), nn.ReLU(), nn.Linear(4096, 512), nn.BatchNorm1d(512), nn.ReLU()),
        *(nn.Linear(512, ATTRIBUTES), nn.Tanh()),
    )


def posterior(features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, 1024), nn.ReLU(), nn.Linear(1024, 256))


class Faces(nn.Module):
    """The paper's nets for CelebA: pictures 64×64 and 40 attributes, z of 128."""

    def __init__(self) -> None:
        super().__init__()
        self.joint = nn.ModuleList([image_encoder(), attributes_encoder(), posterior(4608)])
        self.image = nn.Sequential(image_encoder(), posterior(4096))
        self.attributes = nn.Sequential(attributes_encoder(), posterior(512))
        self.decoders = nn.ModuleList([image_decoder(), attributes_decoder()])

    def loss(self, x: Tensor, w: Tensor, beta: float) -> Tensor:
        """Returns the loss of a batch (equation 10), of a picture averaged over its colours."""
        of_x, of_w, joined = self.joint
        q = gaussian(joined(torch.cat([of_x(x), of_w(w)], 1)))
        z = q.rsample()
        mean_x, mean_w = (decoder(z).float() for decoder in self.decoders)
        log_p = Independent(Normal(mean_x, 1.0), 3).log_prob(x) / 3
        log_p = log_p + Independent(Normal(mean_w, 1.0), 1).log_prob(w)
        prior = Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1)
        kl = beta * kl_divergence(q, prior)
        for subset in (gaussian(self.image(x)), gaussian(self.attributes(w))):
            kl = kl + ALPHA * kl_divergence(q, subset)
        loss: Tensor = (kl - log_p).mean()
        return loss


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns bfloat16 autocast, or nothing."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    observed: Sequence[Tensor],
    precision: str = "float32",
) -> None:
    """Takes a step as one writes it by hand."""
    optimiser.zero_grad()
    with autocast(observed[0].device, precision):
        loss = model.loss(*observed, 1.0)  # type: ignore[operator]
    loss.backward()
    optimiser.step()
