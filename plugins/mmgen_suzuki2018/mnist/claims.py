"""What the paper states about its table and figures, held against what was measured."""

from collections.abc import Mapping, Sequence

from mmgen_suzuki2018.mnist import COLUMNS, PAPER
from mmgen_suzuki2018.page import Claim
from mmgen_suzuki2018.table import Cell, nats, value

FAR = 50.0
"""Nats that "far below" asks for."""


def claims(found: Sequence[Cell], rises: Mapping[str, Sequence[float]]) -> list[Claim]:
    """Judges the paper's statements.

    Args:
        found: Table 1.
        rises: Of each iterative model's row, log p(w|x) after 1, 2, … T iterations: Figure 4.
    """

    def at(row: str, quantity: str) -> float:
        return value(found, row, quantity).nats

    def numbers(quantity: str, *rows: str) -> str:
        return ", ".join(f"{row} {nats(at(row, quantity))}" for row in rows)

    image, label = "log p(x|w)", "log p(w|x)"
    result = []
    better = min(at("JMVAE-kl", image), at("Hierarchical", image))
    result.append(
        Claim(
            f"{image}: JMVAE is far below JMVAE-kl and the hierarchy",
            at("JMVAE", image) < better - FAR,
            numbers(image, "JMVAE", "JMVAE-kl", "Hierarchical"),
        )
    )
    for quantity, row, baseline in (
        (image, "JMVAE-kl", "CVAE"),
        (image, "JMVAE-kl", "CMMA"),
        (label, "JMVAE", "CVAE"),
        (label, "JMVAE-kl", "CVAE"),
    ):
        holds = at(row, quantity) >= at(baseline, quantity)
        words = f"{quantity}: {row} is at least as good as {baseline}"
        result.append(Claim(words, holds, numbers(quantity, row, baseline)))
    for row, curve in rises.items():
        result.append(
            Claim(
                f"Figure 4: {row} rises with the iterations",
                curve[-1] > curve[0],
                f"{nats(curve[0])} after 1, {nats(curve[-1])} after {len(curve)}",
            )
        )
    speed = {row: settled(curve) for row, curve in rises.items()}
    result.append(
        Claim(
            "Figure 4: the hierarchy rises faster than JMVAE",
            speed["Hierarchical"] < speed["JMVAE"],
            ", ".join(f"{row} has nine tenths of its rise after {t}" for row, t in speed.items()),
        )
    )
    for (quantity, *_), paper in zip(COLUMNS, PAPER["JMVAE-kl"], strict=True):
        result.append(
            Claim(
                f"{quantity}: JMVAE-kl reaches the paper's number",
                at("JMVAE-kl", quantity) >= paper,
                f"{nats(at('JMVAE-kl', quantity))}, paper {nats(paper)}",
            )
        )
    return result


def settled(curve: Sequence[float]) -> int:
    """Returns after how many iterations nine tenths of a curve's whole rise are there.

    Examples:
        >>> settled([-5.0, -2.0, -1.1, -1.0])
        3
    """
    wanted = curve[0] + 0.9 * (curve[-1] - curve[0])
    reached = (t for t, nats in enumerate(curve, start=1) if nats >= wanted)
    return next(reached, len(curve))
