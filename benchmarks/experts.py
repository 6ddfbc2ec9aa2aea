"""The objectives of MVAE, MMVAE, MoPoE and MVTCAE against multivae's: same weights, same noise.

    python3 -m venv ENV && ENV/bin/pip install multivae    # an environment of its own
    python benchmarks/experts.py --peer ENV/bin/python [--seeds 4]

Three modalities (Gaussian, categorical, Bernoulli), small nets with random weights, the same rows,
noise and random subsets for both. Prints the largest relative difference of the batch's loss, of
the loss of each row, and of the gradients of all weights, and ends with 1 if one exceeds 1e-4.
Where rows have holes, a batch's mean is over those that have a modality here, and over all of them
in multivae: but for MMVAE, rows alone compare.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mmgen.batch import Batch
from mmgen.latent.gaussian import VARIANCE_FLOOR, DiagonalGaussian
from mmgen.latent.mixture import Mixture
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.nets.blocks import Likelihood, gaussian, mlp
from mmgen_attributes import Attributes
from mmgen_experts import mmgen_models
from mmgen_label import Label

PEER = Path(__file__).with_name("experts_peer.py")
LATENT, ROWS, SAMPLES = 4, 7, 5
DEVIATION = 0.75

Case = dict[str, Any]


class Numbers(Modality):
    """Six numbers with Gaussian noise of one fixed deviation."""

    kind: ClassVar[str] = "numbers"
    api_version: ClassVar[int] = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """``(6,)``."""
        return (6,)

    def encoder(self) -> nn.Module:
        """Builds an MLP ``(B, 6) -> (B, 8)``."""
        return mlp(6, [8])

    def decoder(self, in_features: int) -> nn.Module:
        """Builds an MLP ``(B, in_features)`` to a Gaussian."""
        return Likelihood(mlp(in_features, [8], 6), lambda mean: gaussian(mean, DEVIATION))

    def parse(self, cell: str) -> Tensor:
        """Is not asked: there are no tables here."""
        raise NotImplementedError


NETS = {"encoder_widths": (8,), "decoder_widths": (8,)}
MODALITIES: dict[str, Modality] = {
    "numbers": Numbers(),
    "colour": Label(classes=("red", "green", "blue", "white"), **NETS),
    "switches": Attributes(names=("a", "b", "c", "d", "e"), **NETS),
}
LIKELIHOODS = {
    "numbers": {"likelihood": "normal", "scale": DEVIATION},
    "colour": {"likelihood": "categorical"},
    "switches": {"likelihood": "bernoulli"},
}
SUBSETS = [s for size in (1, 2, 3) for s in combinations(MODALITIES, size)]

# Our settings, and multivae's options for the same.
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("mvae", "2 random subsets", {"random_subsets": 2}, {"k": 2}),
    ("mvae", "no random subset", {"random_subsets": 0}, {"k": 0}),
    *(
        ("mmvae", f"{kind}, K = {K}", {"samples": K, "gradient": kind}, {
            "K": K, "loss": f"{kind}_looser", "prior_and_posterior_dist": "normal",
        })
        for kind, K in (("iwae", SAMPLES), ("iwae", 1), ("dreg", SAMPLES))
    ),
    ("mopoe", "β = 1", {}, {"beta": 1.0}),
    ("mopoe", "β = 2.5", {"beta": 2.5}, {"beta": 2.5}),
    ("mvtcae", "α = 0.1, β = 2.5", {}, {}),
    ("mvtcae", "α = 0.9, β = 0.5", {"alpha": 0.9, "beta": 0.5}, {"alpha": 0.9, "beta": 0.5}),
]  # fmt: skip


def build(kind: str, settings: dict[str, Any]) -> Model:
    """Builds a model with weights that are larger than the first ones are."""
    cls = {cls.kind: cls for cls in mmgen_models()}[kind]
    model = cls(MODALITIES, cls.Settings(latent=LATENT, **settings)).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


def nets(model: Model) -> dict[str, dict[str, list[list[Tensor]]]]:
    """Returns each modality's encoder and decoder: weights and biases as nn.Linear keeps them."""
    found = {}
    for i, n in enumerate(model.names):
        hidden, first = model.encoder.encoders[n].layers[0], model.encoder.first
        encoder = [[hidden.weight[0].T, hidden.bias[0]], [first.weights[n][0].T, first.bias[i]]]
        linear = [layer for layer in model.decoders[n].net if isinstance(layer, nn.Linear)]
        found[n] = {"encoder": encoder, "decoder": [[each.weight, each.bias] for each in linear]}
    return found


def slopes(model: Model) -> dict[str, dict[str, list[list[Tensor]]]]:
    """Returns the gradients in the shape of :func:`nets`."""
    for parameter in model.parameters():
        parameter.data = parameter.grad
    return nets(model)


def observations(holes: bool) -> Batch:
    colours = F.one_hot(torch.randint(4, (ROWS,)), 4).double()
    values = (torch.randn(ROWS, 6), colours, torch.rand(ROWS, 5).round())
    x = dict(zip(MODALITIES, values, strict=True))
    if not holes:
        return Batch(x)
    # A complete row, one that has the numbers alone, and five at random.
    held = [SUBSETS[-1], SUBSETS[0], *(SUBSETS[i] for i in torch.randint(7, (ROWS - 2,)))]
    return Batch(x, {n: torch.tensor([n in h for h in held]) for n in MODALITIES})


def listed(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.tolist()
    if isinstance(tree, dict):
        return {key: listed(value) for key, value in tree.items()}
    return [listed(value) for value in tree]


def made(kind: str, model: Model, x: Batch, options: dict[str, Any]) -> Case:
    """Writes a model, rows and noise as a case for the peer."""
    case: Case = {"model": kind, "options": options, "variance": "softplus"}
    masks = {n: {"present": mask.tolist()} for n, mask in (x.present or {}).items()}
    case["modalities"] = {
        n: {**listed(net), **LIKELIHOODS[n], "x": x[n].tolist(), **masks.get(n, {})}
        for n, net in nets(model).items()
    }
    case["floor"] = VARIANCE_FLOOR
    draws = 1
    if kind == "mvae":
        pairs = [SUBSETS[i] for i in torch.randperm(3)[: options["k"]] + 3]
        case["choices"] = [list(pair) for pair in pairs]
        draws = 4 + options["k"]
    elif kind == "mmvae":
        draws = 3
    elif kind == "mopoe":
        held = [[n for n in x if x.present is None or x.present[n][i]] for i in range(ROWS)]
        usable = [[s for s in SUBSETS if {*s} <= {*h}] for h in held]
        case["choices"] = [list(u[torch.randint(len(u), ())]) for u in usable]
    shape = (options["K"], ROWS, LATENT) if kind == "mmvae" else (ROWS, LATENT)
    case["noise"] = torch.randn(draws, *shape).tolist()
    return case


@contextmanager
def fed(case: Case) -> Iterator[None]:
    """Hands out a case's noise and choices wherever mmgen would draw."""
    noise = iter(torch.tensor(case["noise"]))
    subsets = iter(map(tuple, case.get("choices", [])))

    def drawn(q: DiagonalGaussian, shape: Sequence[int] = ()) -> Tensor:
        own = torch.stack([*noise], 1) if shape else next(noise)  # all of MMVAE's at once
        return q.loc + q.scale * own

    def chosen(_q: Mixture, _shape: Sequence[int] = ()) -> Tensor:
        bits = [sum(1 << list(MODALITIES).index(n) for n in subset) for subset in subsets]
        return torch.tensor(bits) - 1  # subsets of experts count in binary

    with (
        patch.object(DiagonalGaussian, "rsample", drawn),
        patch.object(Mixture, "choose", chosen),
        patch("mmgen_experts.mvae.random_subset", lambda _names: next(subsets)),
    ):
        yield


def apart(ours: Tensor, theirs: Any) -> float:
    """Returns the greatest difference relative to the largest number."""
    peers = torch.tensor(theirs)
    return float((ours - peers).abs().max() / peers.abs().max())


def flat(tree: Any) -> Tensor:
    if isinstance(tree, dict):
        return torch.cat([flat(tree[key]) for key in sorted(tree)])
    if isinstance(tree, list) and tree and not isinstance(tree[0], float):
        return torch.cat([flat(value) for value in tree])
    return torch.as_tensor(tree).flatten()


def compared(model: Model, x: Batch, case: Case, answer: Case) -> list[float | None]:
    """Returns how far loss, rows and gradients are apart; ``None`` where they do not compare."""
    with fed(case):
        objective = model(x)
    rows = torch.zeros(ROWS)
    for term in objective:
        value = term.value if term.present is None else torch.where(term.present, term.value, 0)
        rows = rows + term.weight * value.detach()
    loss = objective.losses()["model"]
    loss.backward()
    # multivae's MMVAE sums over the batch. With DReG, what it returns is not the bound but has
    # its gradient.
    scale = ROWS if case["model"] == "mmvae" else 1
    no_value = case["options"].get("loss") == "dreg_looser"
    batch = x.present is None or case["model"] == "mmvae"
    gradients = flat(slopes(model)).detach()
    return [
        apart(scale * loss.detach(), answer["loss"]) if batch and not no_value else None,
        None if no_value else apart(rows, [row["loss"] for row in answer["rows"]]),
        apart(scale * gradients, flat(answer["gradients"]).tolist()) if batch else None,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="the Python of an environment that has multivae")
    parser.add_argument("--seeds", type=int, default=4, help="how many cases of each line")
    arguments = parser.parse_args()
    if arguments.peer is None:
        sys.exit(
            "multivae is needed to compare with, in an environment of its own:\n"
            "  python3 -m venv ENV && ENV/bin/pip install multivae\n"
            "  python benchmarks/experts.py --peer ENV/bin/python"
        )
    torch.set_default_dtype(torch.float64)
    lines, cases = [], []
    for kind, about, settings, options in CASES:
        for holes in (False, True):
            line = []
            for seed in range(arguments.seeds):
                torch.manual_seed(seed)
                model, x = build(kind, settings), observations(holes)
                case = made(kind, model, x, options)
                line.append((model, x, case))
                cases.append(case)
            lines.append((kind, about, "with holes" if holes else "complete", line))
    done = subprocess.run(
        [arguments.peer, PEER, "-"],
        check=False,
        input=json.dumps(cases),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{arguments.peer} {PEER.name} failed:\n{done.stderr}")
    answers = iter(json.loads(done.stdout))

    table = Table("model", "with", "rows", "loss", "of each row", "gradients")
    worst = 0.0
    for kind, about, rows, line in lines:
        found = zip(*(compared(*each, next(answers)) for each in line), strict=True)
        measured = [[v for v in column if v is not None] for column in found]
        worst = max(worst, *(max(column, default=0.0) for column in measured))
        if any(measured):
            cells = [f"{max(column):.0e}" if column else "–" for column in measured]
            table.add_row(kind, about, rows, *cells)
    Console().print(table)
    if not worst < 1e-4:
        sys.exit(f"a difference of {worst:.0e}: the objectives are not the same")


if __name__ == "__main__":
    main()
