"""The equations written out from the nets' weights alone: what models are held against."""

import math

import torch
import torch.nn.functional as F

from mmgen.latent.gaussian import VARIANCE_FLOOR


def kl(mean, variance, other_mean, other_variance):
    """KL(N(mean, variance) ‖ N(other_mean, other_variance)) of diagonal Gaussians, ``(...)``."""
    ratio = variance / other_variance
    distance = (mean - other_mean) ** 2 / other_variance
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


def moments(parameters):
    """Mean and variance that parameters ``(..., 2Z)`` mean."""
    mean, raw = parameters.chunk(2, dim=-1)
    return mean, F.softplus(raw) + VARIANCE_FLOOR


def gaussian_of(encoder, x, subset):
    """Mean and variance of the Gaussian of one of a subset encoder's subsets, layer by layer."""
    number = encoder.subsets.index(subset)
    total = encoder.first.bias[number]
    for n in subset:
        copy = encoder.members[n].index(number)
        total = total + encoder.encoders[n](x[n])[copy] @ encoder.first.weights[n][copy]
    for layer in encoder.rest:
        total = total.relu() @ layer.weight[number] + layer.bias[number, 0]
    return moments(total)


def log_likelihoods(model, x, read):
    """log p(x_k|·) in nats of what decoders read ``(B, features)``, by each family's density."""
    log_p = {}
    for n, decoder in model.decoders.items():
        out = decoder.net(read)
        if model.modalities[n].kind == "word":
            log_p[n] = (out.log_softmax(-1) * x[n]).sum(-1)
        elif model.modalities[n].kind == "grid":
            bits = F.binary_cross_entropy_with_logits(out, x[n], reduction="none")
            log_p[n] = -bits.sum((1, 2, 3))
        else:
            variance = model.modalities[n].deviation ** 2
            density = (x[n] - out) ** 2 / variance + math.log(2 * math.pi * variance)
            log_p[n] = -0.5 * density.sum(-1)
    return log_p


def raw(variance):
    """What softplus and the floor turn into the variance."""
    return torch.log(torch.expm1(torch.as_tensor(variance) - VARIANCE_FLOOR))


def set_head(head, weight, bias, variance):
    """Makes a head's Gaussian N(weight h + bias, diag(variance)), whatever h."""
    with torch.no_grad():
        head.linear.weight.copy_(torch.cat([weight, torch.zeros_like(weight)]))
        head.linear.bias.copy_(torch.cat([bias, raw(variance)]))


def set_encoder(encoder, subset, weight, bias, variance):
    """Makes q(z|x_S) = N(weight x_S + bias, diag(variance)), of encoders without widths."""
    number = encoder.subsets.index(subset)
    mean = torch.cat([weight, torch.zeros_like(weight)]).T  # (in, 2Z)
    start = 0
    with torch.no_grad():
        for n in subset:
            part = encoder.first.weights[n][encoder.members[n].index(number)]
            part.copy_(mean[start : start + len(part)])
            start += len(part)
        encoder.first.bias[number].copy_(torch.cat([bias, raw(variance)]))


def set_decoders(model, W, c):
    """Makes x = W z + c + noise, the rows of W shared out to the modalities in order."""
    sizes = [decoder.net[-1].out_features for _, decoder in model.decoders.items()]
    parts = zip(model.decoders.items(), W.split(sizes), c.split(sizes), strict=True)
    with torch.no_grad():
        for (_, decoder), weight, bias in parts:
            decoder.net[-1].weight.copy_(weight)
            decoder.net[-1].bias.copy_(bias)
