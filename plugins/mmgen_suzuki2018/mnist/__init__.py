"""The paper's first experiment: MNIST pictures x and their labels w, seven models, one table.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, section 4: Table 1 and
    Figures 3, 4 and 5.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmgen_suzuki2018.study import Column, Planned, Profile, Source, Study

if TYPE_CHECKING:
    from mmgen_suzuki2018.folder import Reproduction
    from mmgen_suzuki2018.table import Cell

IMAGE, LABEL = "image", "label"

PROFILES = {
    "paper": Profile(epochs=100, iterations=50, rows=10_000, looked_at=1_000),
    # Adam and clipping as in the authors' code, of which the paper does not speak.
    "authors": Profile(
        *(100, 50, 10_000, 1_000),
        train={"eps": 1e-4, "gradient_clip": 5.0, "gradient_clip_value": 1.0},
    ),
    "fast": Profile(epochs=2, iterations=10, rows=300, looked_at=100),
}

# Those that take longest first: the last to end are then short ones.
RUNS = (
    Planned("jmvae-kl", "JMVAE-kl", {"kind": "jmvae-kl"}),
    Planned("hierarchical", "Hierarchical", {"kind": "hierarchical", "layers": 2}),
    Planned("cvae-label-to-image", "CVAE", {"kind": "cvae", "targets": [IMAGE]}),
    Planned("cmma-label-to-image", "CMMA", {"kind": "cmma", "targets": [IMAGE]}),
    Planned("jmvae", "JMVAE", {"kind": "jmvae"}),
    Planned("cvae-image-to-label", "CVAE", {"kind": "cvae", "targets": [LABEL]}),
    Planned("cmma-image-to-label", "CMMA", {"kind": "cmma", "targets": [LABEL]}),
    Planned("jmvae-kl-2d", "", {"kind": "jmvae-kl", "latent": 2}, share=0.2),
    Planned("hierarchical-2d", "", {"kind": "hierarchical", "latent": 2}, share=0.2),
    Planned("jmvae-2d", "", {"kind": "jmvae", "latent": 2}, share=0.2),
)

BEYOND = (
    Planned(
        "jmvae-kl-flow",
        "JMVAE-kl, flow",
        {
            "kind": "jmvae-kl",
            "alpha": 0.5,
            "subset_posterior": "flow",
            "flow_transforms": 6,
            "flow_widths": [256, 256],
        },
        {"schedule": "cosine"},
        share=0.8,
        temperature=0.6,
        about="is not in the paper",
    ),
    Planned(
        "jmvae-kl-tuned",
        "JMVAE-kl, tuned",
        {"kind": "jmvae-kl", "alpha": 0.35},
        {"schedule": "cosine"},
        temperature=0.9,
        about="is not in the paper",
    ),
)
"""Rows beyond the paper. α weighs how well a label explains a picture against how well a picture
explains itself; see ``docs/results.md`` for what else was tried."""

READINGS = (
    Planned(
        "jmvae-kl-mean",
        "JMVAE-kl, mean of KLs",
        {"kind": "jmvae-kl", "alpha": 0.5},
        about="weighs the mean of the subsets' KLs by 1, as the authors' code does, not the sum",
    ),
    Planned(
        "hierarchical-mean",
        "Hierarchical, mean",
        {"kind": "hierarchical", "layers": 2, "bottom_up": "mean"},
        about="reads q(z_2|·) off the mean of z_1, as the authors' code does, not off features",
    ),
    Planned(
        "hierarchical-sample",
        "Hierarchical, sample",
        {"kind": "hierarchical", "layers": 2, "bottom_up": "sample"},
        about="reads q(z_2|·) off a draw of z_1, not off features",
    ),
)
"""Rows of what the paper leaves open, read otherwise; all else is as in :data:`RUNS`."""

COLUMNS: tuple[Column, ...] = (
    ("log p(x|w)", (IMAGE,), (LABEL,), "single"),
    ("log p(w|x)", (LABEL,), (IMAGE,), "single"),
    ("log p(x|w,x)", (IMAGE,), (LABEL,), "multiple"),
    ("log p(w|w,x)", (LABEL,), (IMAGE,), "multiple"),
)
"""Table 1's columns: heading, targets, given, estimator."""

PAPER = {
    "CVAE": (-448.8, -5.293, -70.42, -5.304),
    "CMMA": (-451.1, -0.2971, -69.89, -0.002574),
    "JMVAE": (-747.1, -0.2286, -69.57, -0.2026),
    "JMVAE-kl": (-422.35, -0.2628, -76.94, -0.1874),
    "Hierarchical": (-475.5, -2.640, -196.9, -0.4456),
}
"""Table 1 of the paper, in nats."""


def _check(_: "Reproduction") -> None:
    """Leaves it to the trainings, which ask for a picture and a label alone."""


def _write(reproduction: "Reproduction", say: Callable[[str], object]) -> "list[Cell]":
    from mmgen_suzuki2018.mnist.page import write_all

    return write_all(reproduction, say)


# The paper's nets, z, Adam and warm-up are mmgen's own defaults.
MNIST = Study(
    name="mnist",
    source=Source(
        ("mnist",),
        "MNIST/raw",
        "Fetch the set with: mmgen data mnist ROOT --download --out DATA",
    ),
    modalities={IMAGE: {}, LABEL: {}},
    model={},
    train={},
    warmup=None,
    profiles=PROFILES,
    runs=RUNS,
    extras={"beyond": BEYOND, "readings": READINGS},
    coherence=True,
    table=1,
    columns=COLUMNS,
    paper=PAPER,
    check=_check,
    write=_write,
)
