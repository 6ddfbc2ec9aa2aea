"""What the paper states about Table 2, held against what was measured, as far as it was."""

from collections.abc import Mapping, Sequence

from mmgen.errors import listed
from mmgen_suzuki2018.celeba import COLUMNS, PAPER
from mmgen_suzuki2018.celeba.faces import GENERATED, Looked
from mmgen_suzuki2018.page import Claim
from mmgen_suzuki2018.table import Cell, nats

FAR = 1000.0
"""Nats that "far below" asks for."""

FACES, TOLD, BOTH = "log p(x|w)", "log p(w|x)", "log p(x|w,x)"


def claims(found: Sequence[Cell], constant: Sequence[float | None]) -> list[Claim]:
    """Judges the paper's statements on likelihoods.

    Args:
        found: Table 2, or some rows of it.
        constant: What the best constant answer has, by column.
    """
    numbers = {(cell.row, cell.quantity): cell.nats for cell in found}
    judged = []

    def order(quantity: str, better: str, worse: str, words: str, by: float = 0.0) -> None:
        if {(better, quantity), (worse, quantity)} <= numbers.keys():
            a, b = numbers[better, quantity], numbers[worse, quantity]
            evidence = f"{better} {nats(a)}, {worse} {nats(b)}"
            judged.append(Claim(f"{quantity}: {words}", a > b + by, evidence))

    order(FACES, "JMVAE-kl", "JMVAE", "JMVAE is far below JMVAE-kl", FAR)
    order(FACES, "Hierarchical", "JMVAE", "JMVAE is below the hierarchy")
    order(FACES, "JMVAE-kl", "CMMA", "JMVAE-kl is better than CMMA")
    for worse in ("CVAE", "CMMA"):
        order(TOLD, "JMVAE", worse, f"JMVAE is better than {worse}")
        order(TOLD, "JMVAE-kl", worse, f"JMVAE-kl is better than {worse}")
    order(BOTH, "JMVAE", "Hierarchical", "the hierarchy reconstructs less well than JMVAE")
    for row in ("JMVAE-kl", "JMVAE-kl, z at 0.6"):
        if (row, FACES) not in numbers:
            continue
        for (quantity, *_), paper in zip(COLUMNS, PAPER["JMVAE-kl"], strict=True):
            a = numbers[row, quantity]
            words = f"{quantity}: {row} reaches the paper's JMVAE-kl"
            judged.append(Claim(words, a >= paper, f"{nats(a)}, paper {nats(paper)}"))
        floor, a = constant[0], numbers[row, FACES]
        if floor is not None:
            words = f"{FACES}: {row} is above the best constant picture"
            judged.append(Claim(words, a > floor, f"{nats(a)}, constant {nats(floor)}"))
    return judged


def seen(looked: Mapping[str, Looked]) -> list[Claim]:
    """Judges what faces should show.

    Args:
        looked: What was measured of runs: of one without a critic, then of one with it.
    """
    judged = []
    for row, each in looked.items():
        shares = [r.generated for r in each.recognised if r.attribute in GENERATED]
        if shares:
            share = sum(shares) / len(shares)
            words = f"{row}: {listed(GENERATED)} are recognised in 90 % of average faces"
            judged.append(Claim(words, share >= 0.9, f"{share:.1%}"))
    if len(looked) == 2:
        (plain, critic), names = looked.values(), [*looked]
        a, b = ({s.of: s for s in each.sharp} for each in (plain, critic))
        for of in a.keys() & b.keys() - {"test pictures"}:
            nearer = b[of].frechet < a[of].frechet
            words = f"{of}: {names[1]} is nearer to real faces than {names[0]}"
            evidence = f"Fréchet distance {b[of].frechet:.1f} against {a[of].frechet:.1f}"
            judged.append(Claim(words, nearer, evidence))
    return sorted(judged, key=lambda claim: claim.words)
