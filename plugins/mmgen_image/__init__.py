"""The kind ``image``: grey or colour pictures of independent pixels given z."""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from os import PathLike, fspath
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.distributions import Distribution

from mmgen.data.crops import Crop
from mmgen.hooks import hookimpl
from mmgen.modality import Box, Modality, Widths
from mmgen.nets import blocks
from mmgen_image import files, standardise

Scale = Literal["unit", "signed", "standardised"]


class Image(Modality):
    """A picture, stored as uint8 ``(C, H, W)``, observed in [0, 1] or as ``scale`` says."""

    kind: ClassVar[str] = "image"
    api_version: ClassVar[int] = 1
    cells_are_paths: ClassVar[bool] = True
    stored_with: ClassVar[tuple[str, ...]] = ("channels", "height", "width", "crop")
    channels: Literal[1, 3] = Field(1, description="1 is grey, 3 is colour")
    height: PositiveInt = Field(28, description="H in pixels")
    width: PositiveInt = Field(28, description="W in pixels")
    likelihood: Literal["bernoulli", "gaussian"] = Field("bernoulli", description="p(pixel | z)")
    binarise: bool = Field(True, description="bernoulli: draws 0 or 1; else continuous Bernoulli")
    scale: Scale = Field(
        "unit",
        description="gaussian: pixels in [0, 1] around sigmoid(net(z)); signed: in [-1, 1] around "
        "tanh(net(z)); standardised, each by itself on the training split, around net(z)",
    )
    standard_deviation: PositiveFloat | Literal["learned"] = Field(
        1.0, description="gaussian: of a pixel given z; learned: one for all pixels"
    )
    average_colours: bool = Field(
        False,
        description="whether log p(pixel | z) is averaged over colours, as in the paper's CelebA, "
        "instead of summed: log-likelihoods are then a third, and no density",
    )
    crop: Crop = Field(
        "none",
        description="which part of a photograph is seen: all, the largest square, or the square "
        "around the largest face (extra faces); one of this very size is seen whole",
    )
    net: Literal["mlp", "convolution"] = Field("mlp", description="what both nets are made of")
    encoder_widths: Widths = Field((512, 512), description="mlp: hidden layers")
    decoder_widths: Widths = Field((512, 512), description="mlp: hidden layers")
    convolution_channels: Widths = Field((32, 64), description="from outside in")
    batch_norm: bool = Field(
        False, description="convolution: batch normalisation before every ReLU but each net's first"
    )
    pixel_means: str = Field("", description="standardised: measured if left out")
    pixel_deviations: str = Field("", description="standardised: measured if left out")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.scale != "unit" and self.likelihood != "gaussian":
            raise ValueError(f'scale = "{self.scale}" needs likelihood = "gaussian"')
        if self.crop != "none" and self.height != self.width:
            raise ValueError(
                f'crop = "{self.crop}" takes a square, which {self.height}×{self.width} pixels are '
                'not; choose height = width, or crop = "none"'
            )
        if bool(self.pixel_means) != bool(self.pixel_deviations):
            raise ValueError("pixel_means and pixel_deviations are set together, or neither")
        if self.pixel_means:
            standardise.means(self.pixel_means, self.shape)
            standardise.deviations(self.pixel_deviations, self.shape)
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        return self.channels, self.height, self.width

    def encoder(self) -> nn.Module:
        """Builds a net ``(B, C, H, W) -> (B, features)``."""
        if self.net == "convolution":
            return blocks.convolutional_encoder(
                self.shape, self.convolution_channels, batch_norm=self.batch_norm
            )
        return nn.Sequential(nn.Flatten(), *blocks.mlp(prod(self.shape), self.encoder_widths))

    def decoder(self, in_features: int) -> nn.Module:
        """Builds a net ``(B, in_features)`` to a distribution of pictures ``(C, H, W)``."""
        if self.net == "convolution":
            net = blocks.convolutional_decoder(
                in_features, self.shape, self.convolution_channels, batch_norm=self.batch_norm
            )
        else:
            net = blocks.mlp(in_features, self.decoder_widths, prod(self.shape))
        if self.likelihood == "gaussian" and self.standard_deviation == "learned":
            return blocks.LearnedDeviation(net, self._gaussian)
        return blocks.Likelihood(net, self._pixels)

    def _pixels(self, out: Tensor) -> Distribution:
        if self.likelihood == "gaussian":
            assert self.standard_deviation != "learned"
            return self._gaussian(out, self.standard_deviation)
        out = out.reshape(-1, *self.shape)
        p = blocks.bernoulli(out) if self.binarise else blocks.continuous_bernoulli(out)
        return self._over_colours(p)

    def _gaussian(self, out: Tensor, deviation: float | Tensor) -> Distribution:
        out = out.reshape(-1, *self.shape)
        if self.scale != "standardised":
            out = out.sigmoid() if self.scale == "unit" else out.tanh()
        return self._over_colours(blocks.gaussian(out, deviation))

    def _over_colours(self, p: Distribution) -> Distribution:
        return blocks.Averaged(p, self.channels) if self.average_colours else p

    def parse(self, cell: str) -> Tensor:
        """Reads a picture file of any size; what is no picture is a ``ValueError``."""
        return files.read_picture(cell, self.shape, self.crop)

    def accept(self, value: Any) -> Tensor:
        """Takes a file name, a PIL picture, or an array of pixels, of any size.

        Pixels are whole numbers from 0 to 255, or other numbers from 0 to 1, as ``(H, W)``,
        ``(H, W, C)`` with one, three or four channels, or just :attr:`shape`.
        """
        if isinstance(value, str | PathLike):
            return self.parse(str(fspath(value)))
        return files.from_memory(value, self.shape, self.crop)

    def locate(self, photograph: NDArray[np.uint8], crop: str | None = None) -> tuple[Tensor, Box]:
        """Takes the part that ``crop`` says, or another one: none, center or face."""
        return files.located(photograph, self.shape, self.crop if crop is None else crop)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Scales to [0, 1] or as ``scale`` says; if ``binarise``, draws 1 with that probability."""
        x = stored.to(torch.get_default_dtype()) / 255
        if self.likelihood == "bernoulli":
            return _drawn(x, generator) if self.binarise else x
        if self.scale == "signed":
            return 2 * x - 1
        if self.scale == "standardised" and self.pixel_means:
            mean, deviation = self._statistics(x)
            return (x - mean) / deviation
        return x

    def render(self, x: Tensor) -> Tensor:
        """Draws ``(n, C, H, W)`` as ``(n, 3, H, W)``."""
        if self.scale == "signed":
            x = (x + 1) / 2
        if self.scale == "standardised" and self.pixel_means:
            mean, deviation = self._statistics(x)
            x = x * deviation + mean
        return x.clamp(0, 1).expand(-1, 3, -1, -1)

    def _statistics(self, like: Tensor) -> list[Tensor]:
        read = (
            standardise.means(self.pixel_means, self.shape),
            standardise.deviations(self.pixel_deviations, self.shape),
        )
        # Copied beside the step, which waits for no device.
        return [values.to(like, non_blocking=True) for values in read]

    @property
    def needs_fit(self) -> bool:
        """Whether the pixels' means and deviations are still to be measured."""
        return self.scale == "standardised" and not self.pixel_means

    def fit(self, stored: Tensor) -> Self:
        """Returns a copy with the mean and deviation of each pixel, if they are needed."""
        if not self.needs_fit:
            return self
        means, deviations = standardise.measure(stored)
        return self.model_copy(update={"pixel_means": means, "pixel_deviations": deviations})

    def example(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Makes a random picture for each class, with noise."""
        return (super().example(classes, generator).sigmoid() * 255).to(torch.uint8)

    def recommended(self) -> dict[str, Any]:
        """Chooses convolutions, where a picture is large enough to be halved twice.

        Not where hidden layers were chosen, which convolutions have none of.
        """
        usual = type(self).model_fields["encoder_widths"].default
        chosen = (self.encoder_widths, self.decoder_widths) != (usual, usual)
        return {} if chosen or min(self.height, self.width) < 8 else {"net": "convolution"}

    @classmethod
    def match_score(cls, cells: Sequence[str]) -> float:
        """Returns the share of cells that are names of picture files, by their suffix."""
        return files.column_score(cells)

    @classmethod
    def infer_settings(cls, columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Reads the size off the first picture that can be read, channels off several.

        Above 32 pixels the nets are convolutions. No settings if no file can be read.
        """
        shape = files.infer_shape([*chain(*columns.values())])
        if shape is None:
            return {}
        channels, height, width = shape
        large = max(width, height) > 32 and min(width, height) >= 4
        return {
            "channels": channels,
            "height": height,
            "width": width,
            **({"net": "convolution"} if large else {}),
            # Black or white by chance suits drawings; densities of grey values that grow without
            # bound near black and white outweigh all other modalities.
            "likelihood": "gaussian",
            "standard_deviation": 0.3,
        }


def _drawn(p: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws 0 or 1, 1 with probability p: faster than torch's own, which draws one by one."""
    u = torch.rand(p.shape, generator=generator, device=p.device, dtype=p.dtype)
    return (u < p).to(p.dtype)


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    """Provides the kind ``image``."""
    return [Image]
