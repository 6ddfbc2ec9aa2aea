"""The paper's second experiment: faces x and their 40 attributes w, five models and a critic.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, section 4.6: Table 2 and
    Figures 6 to 9.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmgen_suzuki2018.study import Column, Planned, Profile, Source, Study

if TYPE_CHECKING:
    from mmgen_suzuki2018.folder import Reproduction
    from mmgen_suzuki2018.table import Cell

IMAGE, ATTRIBUTES = "image", "attributes"

PROFILES = {
    "paper": Profile(epochs=50, iterations=40, rows=20_000, looked_at=2_000),
    "fast": Profile(epochs=1, iterations=3, rows=64, looked_at=64),
}

PLAIN, CRITIC = "jmvae-kl", "jmvae-kl-gan"
"""The runs whose faces are looked at."""

RUNS = (
    Planned(
        CRITIC,
        "JMVAE-kl + GAN",
        {
            "kind": "jmvae-kl",
            "alpha": 0.1,
            "adversarial": {"modality": IMAGE, "likelihood_weight": 0.01},
        },
        about="is in the paper's figures, not in its table; its α is the authors'",
    ),
    Planned(PLAIN, "JMVAE-kl", {"kind": "jmvae-kl", "alpha": 0.5}),
    Planned("hierarchical", "Hierarchical", {"kind": "hierarchical", "layers": 2}),
    Planned("cvae-attributes-to-image", "CVAE", {"kind": "cvae", "targets": [IMAGE]}),
    Planned("cmma-attributes-to-image", "CMMA", {"kind": "cmma", "targets": [IMAGE]}),
    Planned("cvae-image-to-attributes", "CVAE", {"kind": "cvae", "targets": [ATTRIBUTES]}),
    Planned("cmma-image-to-attributes", "CMMA", {"kind": "cmma", "targets": [ATTRIBUTES]}),
    Planned("jmvae", "JMVAE", {"kind": "jmvae"}),
    Planned(
        "jmvae-kl-cool",
        "JMVAE-kl, z at 0.6",
        {"kind": "jmvae-kl", "alpha": 0.5},
        temperature=0.6,
        about="is the same weights, with z drawn nearer to its mean",
        weights=PLAIN,
    ),
)
"""Those that take longest first: the last to end are then short ones."""

COLUMNS: tuple[Column, ...] = (
    ("log p(x|w)", (IMAGE,), (ATTRIBUTES,), "single"),
    ("log p(w|x)", (ATTRIBUTES,), (IMAGE,), "single"),
    ("log p(x|w,x)", (IMAGE,), (ATTRIBUTES,), "multiple"),
    ("log p(w|w,x)", (ATTRIBUTES,), (IMAGE,), "multiple"),
)
"""Table 2's columns: heading, targets, given, estimator."""

PAPER = {
    "CVAE": (-6825.0, -44.28, -4031.0, -44.28),
    "CMMA": (-6920.0, -44.57, -4026.0, -38.74),
    "JMVAE": (-48763.0, -43.97, -4026.0, -43.43),
    "JMVAE-kl": (-6852.0, -44.13, -4089.0, -43.83),
    "Hierarchical": (-7355.0, -47.61, -4901.0, -47.32),
}
"""Table 2 of the paper, in nats, over all of CelebA; image terms are averaged over colours."""


def _check(reproduction: "Reproduction") -> None:
    from mmgen_suzuki2018.celeba.page import check

    check(reproduction)


def _write(reproduction: "Reproduction", say: Callable[[str], object]) -> "list[Cell]":
    from mmgen_suzuki2018.celeba.page import write_all

    return write_all(reproduction, say)


CELEBA = Study(
    name="celeba",
    source=Source(
        ("celeba", "--crop", "face"),
        "list_attr_celeba.txt",
        "Its authors hand it out at mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    ),
    # The paper's nets: C64-C128B-C256B-C256B, D512-D512B, decoders D4096-DC256B-DC128B-DC64B-DC3
    # and D4096-D512B; convolutions and B of pictures are what mmgen data celeba suggests.
    modalities={
        IMAGE: {
            "likelihood": "gaussian",
            "scale": "standardised",
            "standard_deviation": 1.0,
            "average_colours": True,
            "net": "convolution",
            "convolution_channels": [64, 128, 256, 256],
            "batch_norm": True,
        },
        ATTRIBUTES: {
            "likelihood": "gaussian",
            "standard_deviation": 1.0,
            "encoder_widths": [512, 512],
            "decoder_widths": [4096, 512],
            "batch_norm": True,
        },
    },
    model={"latent": 128, "fusion": [1024]},
    train={"batch_size": 64, "learning_rate": 1e-4, "precision": "auto"},
    warmup=0.4,
    profiles=PROFILES,
    runs=RUNS,
    extras={},
    coherence=False,
    table=2,
    columns=COLUMNS,
    paper=PAPER,
    check=_check,
    write=_write,
)
