"""The kind ``image``: grey or colour pictures, Bernoulli or Gaussian pixels."""

from typing import ClassVar, Literal, Self

import numpy as np
import PIL.Image
import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, constraints

from mmgen.hooks import hookimpl
from mmgen.modality import Modality
from mmgen.nets.blocks import Likelihood, convolutional_decoder, convolutional_encoder, mlp


class Grey(Bernoulli):
    """Grey values x count as E log p(b), b ~ Bernoulli(x): the usual cross-entropy."""

    support = constraints.unit_interval


class Image(Modality):
    """A picture, stored as uint8 ``(C, H, W)``, seen as [0, 1]."""

    kind: ClassVar[str] = "image"
    api_version: ClassVar[int] = 1
    channels: Literal[1, 3] = Field(1, description="1 is grey, 3 is colour")
    height: PositiveInt = Field(28, description="H in pixels")
    width: PositiveInt = Field(28, description="W in pixels")
    likelihood: Literal["bernoulli", "gaussian"] = Field("bernoulli", description="p(x | z)")
    binarise: bool = Field(True, description="bernoulli: draw each pixel anew, black or white")
    standard_deviation: PositiveFloat = Field(1.0, description="gaussian: of a pixel")
    net: Literal["mlp", "convolution"] = Field("mlp", description="what nets are made of")
    encoder_widths: tuple[PositiveInt, ...] = Field((512, 512), description="mlp: hidden layers")
    decoder_widths: tuple[PositiveInt, ...] = Field((512, 512), description="mlp: hidden layers")
    convolution_channels: tuple[PositiveInt, ...] = Field((32, 64), description="from the picture")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        with torch.device("meta"):
            self.encoder()
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        return self.channels, self.height, self.width

    def encoder(self) -> nn.Module:
        """Builds a net ``(B, C, H, W) -> (B, features)``."""
        if self.net == "convolution":
            return convolutional_encoder(self.shape, self.convolution_channels)
        return nn.Sequential(nn.Flatten(), *mlp(int(np.prod(self.shape)), self.encoder_widths))

    def decoder(self, in_features: int) -> nn.Module:
        """Builds a net ``(B, in_features)`` to independent pixels."""
        if self.net == "convolution":
            net = convolutional_decoder(in_features, self.shape, self.convolution_channels)
        else:
            net = mlp(in_features, self.decoder_widths, int(np.prod(self.shape)))
            net.append(nn.Unflatten(1, self.shape))
        return Likelihood(net, self._family)

    def _family(self, out: Tensor) -> Distribution:
        each: Distribution = Bernoulli(logits=out, validate_args=False)
        if self.likelihood == "gaussian":
            deviation = torch.full_like(out, self.standard_deviation)
            each = Normal(out.sigmoid(), deviation, validate_args=False)
        elif not self.binarise:
            each = Grey(logits=out, validate_args=False)
        return Independent(each, 3, validate_args=False)

    def parse(self, cell: str) -> Tensor:
        """Reads a picture file, whatever its size, as uint8 ``(C, H, W)``."""

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Scales to [0, 1]; with ``binarise`` each pixel is 1 with its grey value as probability."""
        x = stored.to(torch.get_default_dtype()) / 255
        if self.likelihood == "bernoulli" and self.binarise:
            return torch.bernoulli(x, generator=generator)
        return x

    def render(self, x: Tensor) -> Tensor:
        """Draws ``(n, C, H, W)`` as ``(n, 3, H, W)``."""
        return x.clamp(0, 1).expand(-1, 3, -1, -1)

    def describe(self, x: Tensor) -> list[str]:
        """Says how bright each picture is."""

    def example(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Makes a coarse pattern for each class, with noise."""


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    """Provides the kind ``image``."""
    return [Image]
