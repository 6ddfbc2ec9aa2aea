"""Five pictures of one digit, by different hands, each over textures of its own.

The pictures of a row share the digit and nothing else: what z holds beside it is each one's own.

References:
    T. M. Sutter, I. Daunhawer, J. E. Vogt, "Generalized Multimodal ELBO", ICLR 2021, whose
    PolyMNIST has crops of five photographs behind the digits.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmgen.data.sources.textures import PATTERNS, Family, dealt
from mmgen.data.sources.torchvision import read_idx
from mmgen.errors import DataError
from mmgen.seeding import generator

NAMES = ("m0", "m1", "m2", "m3", "m4")

SIDE = 28

HELD_OUT = 10_000
"""The last rows of MNIST's training set, of which validation rows are made."""

CHUNK = 500
"""The rows that are made at once: some tens of megabytes."""

INK = 0.85
"""How far the ink is from the patch towards white or black, where the stroke is full."""

PICTURE: Mapping[str, Any] = {
    "kind": "image",
    "channels": 3,
    "height": SIDE,
    "width": SIDE,
    "likelihood": "gaussian",
    "standard_deviation": 0.3,
    "net": "convolution",
    "convolution_channels": [32, 64, 128],
}


def families(textures: Path | None) -> dict[str, Family]:
    """Returns the family of textures of each picture modality.

    Args:
        textures: A folder of pictures to cut patches out of; without it, patterns are drawn.

    Raises:
        DataError: If the folder's pictures cannot be used.
    """
    found = PATTERNS if textures is None else dealt(textures, len(NAMES), SIDE)
    return dict(zip(NAMES, found, strict=True))


def made(
    root: Path,
    families: Mapping[str, Family],
    counts: Mapping[str, int],
    seed: int,
    *,
    label: bool = True,
    download: bool = False,
) -> tuple[dict[str, dict[str, Any]], dict[str, Iterator[dict[str, Tensor]]]]:
    """Makes the data set; the same seed and counts give the same bits on the same installation.

    Each split has digits of its own: ``test`` those of MNIST's test set, ``validation`` the last
    :data:`HELD_OUT` of its training set, ``train`` the others.

    Args:
        root: The folder that torchvision calls root; it holds ``MNIST/raw``.
        families: The textures of each picture modality.
        counts: The number of rows of each split.
        seed: The seed of everything that is random.
        label: Whether the digit's name is a modality.
        download: Let torchvision fetch MNIST into ``root`` if it is not there.

    Returns:
        The modalities' configurations; and by split, chunks of stored values, made when they are
        asked for: each picture ``(n, 3, 28, 28)`` uint8, ``label`` ``(n,)`` uint8.

    Raises:
        DataError: If MNIST cannot be read, or a split of it has too few pictures of a digit.
    """
    pictures, labels = read_idx("mnist", root, train=True, download=download)
    held_out = min(HELD_OUT, len(pictures) // 2)
    digits = {
        "train": _by_digit(pictures[:-held_out], labels[:-held_out], len(families)),
        "validation": _by_digit(pictures[-held_out:], labels[-held_out:], len(families)),
        "test": _by_digit(*read_idx("mnist", root, train=False, download=download), len(families)),
    }
    modalities = {name: dict(PICTURE) for name in families}
    if label:
        modalities["label"] = {"kind": "label", "classes": [str(digit) for digit in range(10)]}
    splits = {
        split: _chunks(digits[split], families, count, (seed, split), label)
        for split, count in counts.items()
    }
    return modalities, splits


def _by_digit(pictures: Tensor, labels: Tensor, hands: int) -> list[Tensor]:
    """Sorts pictures ``(N, 28, 28)`` by their digit."""
    found = [pictures[labels == digit] for digit in range(10)]
    for digit, of_digit in enumerate(found):
        if len(of_digit) < hands:
            raise DataError(
                f"a part of mnist has {len(of_digit)} pictures of a {digit}; {hands} different "
                "ones are needed for a row. Name the folder of the whole set"
            )
    return found


def _chunks(
    digits: list[Tensor],
    families: Mapping[str, Family],
    count: int,
    key: tuple[int, str],
    label: bool,
) -> Iterator[dict[str, Tensor]]:
    hands = generator("polymnist-like", *key)
    streams = {name: generator("polymnist-like", *key, name) for name in families}
    shares = torch.tensor([float(len(of_digit)) for of_digit in digits])
    for first in range(0, count, CHUNK):
        n = min(CHUNK, count - first)
        classes = torch.multinomial(shares, n, replacement=True, generator=hands)
        drawn = _drawn(digits, classes, len(families), hands)
        chunk = {
            name: blended(drawn[:, number], family.patches(n, SIDE, streams[name]))
            for number, (name, family) in enumerate(families.items())
        }
        yield chunk | ({"label": classes.to(torch.uint8)} if label else {})


def _drawn(digits: list[Tensor], classes: Tensor, hands: int, stream: torch.Generator) -> Tensor:
    """Draws different pictures of each row's digit ``(n, hands, 28, 28)``."""
    drawn = torch.empty(len(classes), hands, SIDE, SIDE, dtype=torch.uint8)
    for digit, pictures in enumerate(digits):
        rows = classes == digit
        # The largest of independent numbers lie at places drawn without replacement.
        chosen = torch.rand(int(rows.sum()), len(pictures), generator=stream).topk(hands).indices
        drawn[rows] = pictures[chosen]
    return drawn


def blended(digits: Tensor, patches: Tensor) -> Tensor:
    """Blends digits over patches, in ink that is light on dark ones and dark on light ones.

    Ink is the patch itself, moved :data:`INK` of the way to white or black: textures go on in it.

    Args:
        digits: ``(n, 28, 28)`` uint8, the stroke's strength.
        patches: ``(n, 3, 28, 28)`` in [0, 1].

    Returns:
        ``(n, 3, 28, 28)`` uint8.
    """
    stroke = digits.unsqueeze(1).float() / 255
    # ITU-R BT.601: how bright a colour looks.
    brightness = (patches.mean((2, 3)) * torch.tensor([0.299, 0.587, 0.114])).sum(1)
    towards = (brightness < 0.5).float()[:, None, None, None]
    pixels = patches + INK * stroke * (towards - patches)
    return (255 * pixels).round().to(torch.uint8)
