"""The data sources that come with mmgen: ``mmgen data glyphs``, ``mmgen data mnist`` and others.

What is heavy is imported when a source is read. Synthetic data is no source: it is made up in
memory of the modalities that an experiment names, and is never written.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mmgen.hooks import hookimpl
from mmgen.source import Content, Source

Rows = Annotated[int, Field(ge=1, le=2**40)]


class Glyphs(Source):
    """Draw letters and digits in fonts that matplotlib ships; nothing is downloaded."""

    kind: ClassVar[str] = "glyphs"
    api_version: ClassVar[int] = 1
    train: Rows = Field(40_000, description="How many rows to draw for training.")
    validation: Rows = Field(4_000, description="How many rows to draw for validation.")
    test: Rows = Field(4_000, description="How many rows to draw for tests.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Fixes all that is random: same seed, same numbers."
    )

    def read(self) -> Content:
        """Returns pictures with a label and attributes, drawn when they are asked for."""
        from mmgen.data.sources import glyphs

        counts = {"train": self.train, "validation": self.validation, "test": self.test}
        return Content(
            f"Letters and digits drawn from the fonts that matplotlib ships, seed {self.seed}.",
            glyphs.MODALITIES,
            glyphs.drawn(counts, self.seed),
            sum(counts.values()),
        )


class Celeba(Source):
    """Read CelebA, or a part of it, in the layout in which it is handed out."""

    kind: ClassVar[str] = "celeba"
    api_version: ClassVar[int] = 1
    root: Path = Field(
        description="The folder with list_attr_celeba.txt, list_eval_partition.txt and "
        "img_align_celeba, which may be a .zip file."
    )
    crop: Literal["center", "face"] = Field(
        "center",
        description="The square to take: the picture's, or that of the largest face (extra faces); "
        "pictures without a face are left out.",
    )
    size: Annotated[int, Field(ge=8, le=512)] = Field(64, description="Its height in pixels.")
    split: Literal["official", "random"] = Field(
        "official", description="Which rows to hold out: in the official one, other people."
    )
    validation: Rows | None = Field(
        None, description="How many rows a random split holds out to validate; 1000 if left out."
    )
    test: Rows | None = Field(
        None, description="How many rows a random split holds out for tests; 1000 if left out."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Fixes which rows a random split holds out."
    )

    @model_validator(mode="after")
    def _counts_are_drawn(self) -> Self:
        if self.split == "official" and (self.validation, self.test) != (None, None):
            raise ValueError(
                "the official split has its own counts: --validation and --test "
                "belong to --split random"
            )
        return self

    def read(self) -> Content:
        """Returns pictures with 40 attributes, decoded when they are asked for."""
        from mmgen.data import crops
        from mmgen.data.sources.celeba import CelebA

        if self.crop == "face":
            crops.check_detector()
        celeba = CelebA(self.root, self.crop, self.size)
        counts = {"validation": self.validation or 1_000, "test": self.test or 1_000}
        official = self.split == "official"
        splits = celeba.official() if official else celeba.drawn(counts, self.seed)
        image = {
            "kind": "image",
            "channels": 3,
            "height": self.size,
            "width": self.size,
            "crop": self.crop,
            "likelihood": "gaussian",
            "standard_deviation": 0.3,
            "net": "convolution",
            "convolution_channels": [64, 128, 256, 256][: self.size.bit_length() - 3],
            "batch_norm": True,
        }
        return Content(
            celeba.about,
            {
                "image": image,
                "attributes": {
                    "kind": "attributes",
                    "names": celeba.names,
                    "likelihood": "gaussian",
                },
            },
            {split: celeba.chunks(names) for split, names in splits.items()},
            sum(map(len, splits.values())),
        )


class _OfMnistsForm(Source):
    root: Path = Field(description="The folder that torchvision downloads to.")
    download: bool = Field(False, description="Download the files that are missing.")
    validation: Annotated[int, Field(ge=1, le=59_999)] = Field(
        10_000, description="Rows of the training split to hold out for validation."
    )

    def read(self) -> Content:
        """Returns pictures with a label and attributes."""
        from mmgen.data.sources.torchvision import idx_dataset

        modalities, splits = idx_dataset(
            self.kind, self.root, download=self.download, validation=self.validation
        )
        return Content(
            f"{self.kind} as torchvision reads it: the picture, its class, and attributes measured "
            "from the picture.",
            modalities,
            {split: [values] for split, values in splits.items()},
            sum(len(values["label"]) for values in splits.values()),
        )


class Mnist(_OfMnistsForm):
    """Read mnist as torchvision stores it; attributes are measured from the pictures."""

    kind: ClassVar[str] = "mnist"
    api_version: ClassVar[int] = 1


class FashionMnist(_OfMnistsForm):
    """Read fashion-mnist as torchvision stores it; attributes are measured from the pictures."""

    kind: ClassVar[str] = "fashion-mnist"
    api_version: ClassVar[int] = 1


class Kmnist(_OfMnistsForm):
    """Read kmnist as torchvision stores it; attributes are measured from the pictures."""

    kind: ClassVar[str] = "kmnist"
    api_version: ClassVar[int] = 1


class PolymnistLike(Source):
    """Make five pictures of one digit by five writers, in colour, each over its own textures."""

    kind: ClassVar[str] = "polymnist-like"
    api_version: ClassVar[int] = 1
    root: Path = Field(description="The folder with MNIST/raw, which torchvision downloads to.")
    textures: Path | None = Field(
        None,
        description="A folder with at least five pictures to take patches of, which are dealt out "
        "to the five modalities by name; if left out, patterns are drawn.",
    )
    label: bool = Field(True, description="Whether the digit's name is a sixth modality, label.")
    download: bool = Field(False, description="Download the files of MNIST that are missing.")
    train: Rows = Field(50_000, description="How many rows to make for training.")
    validation: Rows = Field(10_000, description="How many rows to make for validation.")
    test: Rows = Field(10_000, description="How many rows to make for tests.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Fixes all that is random: same seed, same numbers."
    )

    def read(self) -> Content:
        """Returns five pictures and a label, made when they are asked for."""
        from mmgen.data.sources import polymnist

        counts = {"train": self.train, "validation": self.validation, "test": self.test}
        families = polymnist.families(self.textures)
        modalities, splits = polymnist.made(
            self.root, families, counts, self.seed, label=self.label, download=self.download
        )
        told = "; ".join(f"{name}: {family.about}" for name, family in families.items())
        return Content(
            "Five pictures of one digit by different hands, of MNIST, each blended over patches of "
            f"textures of its own ({told}), seed {self.seed}. Rows to train and to validate are "
            "made of different parts of MNIST's training set, those to test of its test set.",
            modalities,
            splits,
            sum(counts.values()),
        )


@hookimpl
def mmgen_sources() -> list[type[Source]]:
    """Provides glyphs, celeba, mnist and its kin, and polymnist-like."""
    return [Glyphs, Celeba, Mnist, FashionMnist, Kmnist, PolymnistLike]
