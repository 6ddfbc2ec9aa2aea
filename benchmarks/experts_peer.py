"""The objectives of multivae's MVAE, MMVAE, MoPoE and MVTCAE, on weights, rows and noise handed in.

    python3 -m venv ENV && ENV/bin/pip install multivae    # an environment of its own, no mmgen
    ENV/bin/python benchmarks/experts_peer.py CASE.json    # or - to read standard input
    ENV/bin/python benchmarks/experts_peer.py --check      # multivae against the papers' equations

Reads one case, or a list of them, builds multivae's model around each and prints its loss and
gradients as JSON. Numbers are float64, whose decimals JSON keeps exactly. A case is

    {"model": "mvae" | "mmvae" | "mopoe" | "mvtcae",
     "options": {...},               # fields of multivae's own configuration, such as beta, k, K
     "variance": "log" | "softplus", # what the second half of an encoder's output is
     "floor": 1e-6,                  # added to a softplus; left out: 0
     "modalities": {NAME: {
         "likelihood": "normal" | "laplace" | "bernoulli" | "categorical", "scale": 1.0,
         "encoder": [[WEIGHT, BIAS], ...],   # as nn.Linear keeps them, ReLU between: to 2Z
         "decoder": [[WEIGHT, BIAS], ...],   # to the mean, or to logits
         "x": [[...], ...], "present": [true, ...]}},    # present may be left out
     "noise": [...],                 # standard normal (Laplace where the posterior is): see below
     "choices": ...}                 # mvae: the k subsets; mopoe: a subset of each row, or left out

Noise is one array for each draw, always of all B rows, in the order in which multivae asks: mvae
``(B, Z)`` for the full subset, each modality, each of ``choices``; mmvae ``(K, B, Z)`` for each
modality; mopoe and mvtcae one ``(B, Z)``. The answer is

    {"multivae": version, "loss": of the batch, "terms": multivae's own metrics of the batch,
     "draws": the shapes of noise that multivae asked for, in its order,
     "rows": [{"loss", "terms"}, ...],   # of each row as a batch of its own
     "choices": the subset that each row's z came from (mopoe),
     "gradients": {NAME: {"encoder": [[WEIGHT, BIAS], ...], "decoder": ...}}}
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Laplace, Normal, kl_divergence

Case = dict[str, Any]
Net = list[list[Tensor]]


def tensors(case: Case) -> Case:
    """Makes float64 tensors of a case's numbers, weights that keep gradients."""

    def net(layers: Sequence[Any]) -> Net:
        return [[torch.tensor(p, requires_grad=True) for p in layer] for layer in layers]

    modalities = {
        name: {
            **given,
            "encoder": net(given["encoder"]),
            "decoder": net(given["decoder"]),
            "x": torch.tensor(given["x"], dtype=torch.float64),
            "present": torch.tensor(given.get("present", [True] * len(given["x"]))),
        }
        for name, given in case["modalities"].items()
    }
    noise = [torch.tensor(n, dtype=torch.float64) for n in case["noise"]]
    incomplete = any("present" in m for m in case["modalities"].values())
    return {**case, "modalities": modalities, "noise": noise, "incomplete": incomplete}


def run(net: Net, h: Tensor) -> Tensor:
    for weight, bias in net[:-1]:
        h = F.linear(h, weight, bias).relu()
    return F.linear(h, *net[-1])


def encode(case: Case, name: str) -> tuple[Tensor, Tensor]:
    """Returns mean and log-variance of q̃_k(z|x_k), ``(B, Z)`` each."""
    return gaussian(case, run(case["modalities"][name]["encoder"], case["modalities"][name]["x"]))


def gaussian(case: Case, h: Tensor) -> tuple[Tensor, Tensor]:
    mean, raw = h.tensor_split(2, -1)
    if case["variance"] == "softplus":
        return mean, (F.softplus(raw) + case.get("floor", 0.0)).log()
    return mean, raw.clone()  # multivae writes infinity into it where a row lacks the modality


def row(case: Case, i: int) -> Case:
    """Cuts a case down to one row."""
    modalities = {
        name: {**m, "x": m["x"][i : i + 1], "present": m["present"][i : i + 1]}
        for name, m in case["modalities"].items()
    }
    cut = {"modalities": modalities, "noise": [n[..., i : i + 1, :] for n in case["noise"]]}
    if case["model"] == "mopoe":
        cut["choices"] = case["choices"][i : i + 1]
    return {**case, **cut}


# multivae's models.


def theirs(case: Case) -> Any:
    """Builds multivae's model around a case's nets."""
    from multivae import models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn.base_architectures import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self, net: Net) -> None:
            super().__init__()
            self.net, self.latent_dim = net, latent

        def forward(self, x: Tensor) -> Any:
            mean, log_variance = gaussian(case, run(self.net, x))
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self, net: Net) -> None:
            super().__init__()
            self.net = net

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=run(self.net, z))

    given = case["modalities"]
    latent = case["noise"][0].shape[-1]
    kind = {"mvae": "MVAE", "mmvae": "MMVAE", "mopoe": "MoPoE", "mvtcae": "MVTCAE"}[case["model"]]
    # MVAE weighs the KL by (epoch − 1) / warmup (mvae_model.py:153): 0 in the first of 10 epochs.
    defaults = {"warmup": 0} if kind == "MVAE" else {}
    configuration = getattr(models, f"{kind}Config")(
        n_modalities=len(given),
        latent_dim=latent,
        input_dims={n: (m["x"].shape[-1],) for n, m in given.items()},
        decoders_dist={n: m["likelihood"] for n, m in given.items()},
        decoder_dist_params={n: {"scale": m["scale"]} for n, m in given.items() if "scale" in m},
        **defaults | case["options"],
    )
    encoders = {n: Encoder(m["encoder"]) for n, m in given.items()}
    decoders = {n: Decoder(m["decoder"]) for n, m in given.items()}
    return getattr(models, kind)(configuration, encoders, decoders).train()


def inputs(case: Case) -> Any:
    from multivae.data.datasets.base import IncompleteDataset, MultimodalBaseDataset

    data = {n: m["x"] for n, m in case["modalities"].items()}
    # MoPoE takes the subset of a row by the row's number in a complete batch, rounded so that the
    # full subset gets the rest (mopoe_model.py:435), and draws it in an incomplete one (line 417).
    # An incomplete batch that lacks nothing has the weights of the first, in float32 (line 327).
    if case["incomplete"] or (case["model"] == "mopoe" and case.get("choices")):
        masks = {n: m["present"] for n, m in case["modalities"].items()}
        return IncompleteDataset(data=data, masks=masks)
    return MultimodalBaseDataset(data=data)


def mvae_subsets(case: Case) -> list[list[str]]:
    """Lists the subsets whose ELBOs MVAE adds, in multivae's order."""
    names = list(case["modalities"])
    if not case["options"].get("use_subsampling", True):
        return [names]
    return [names, *([n] for n in names), *case.get("choices", [])]


def asked(case: Case) -> list[Tensor]:
    """Returns the noise as multivae asks for it.

    MVAE draws nothing for the rows that lack all of a subset, MMVAE nothing for a modality that all
    rows lack.
    """
    if case["model"] not in {"mvae", "mmvae"}:
        return list(case["noise"])
    mvae = case["model"] == "mvae"
    kept = []
    subsets = mvae_subsets(case) if mvae else [[n] for n in case["modalities"]]
    for noise, subset in zip(case["noise"], subsets, strict=True):
        some = torch.stack([case["modalities"][n]["present"] for n in subset]).any(0)
        if some.any():
            kept.append(noise[some] if mvae else noise)
    return kept


@contextmanager
def fed(case: Case, model: Any) -> Iterator[list[list[int]]]:
    """Hands out a case's noise and choices wherever multivae would draw, and lists the shapes."""
    noise, draws = asked(case), []

    def unit(shape: Sequence[int]) -> Tensor:
        draws.append(list(shape))
        handed = [list(n.shape) for n in noise[: len(draws)]]
        if handed != draws:
            sys.exit(f"multivae asks for noise of shapes {draws}, the case has {handed}")
        return noise[len(draws) - 1]

    def laplace(q: Laplace, shape: Sequence[int] = ()) -> Tensor:
        return q.loc + q.scale * unit((*shape, *q.batch_shape))

    def chosen(*_: Any, **__: Any) -> list[int]:
        return [model.subsets.index(tuple(subset)) for subset in case["choices"]]

    def component(_: Any) -> Tensor:
        names = [subset for subset in model.subsets.values() if subset]
        picks = [names.index(sorted(subset)) for subset in case["choices"]]
        return F.one_hot(torch.tensor(picks), len(names))

    with (
        patch("torch.distributions.normal._standard_normal", lambda shape, **_: unit(shape)),
        patch("torch.distributions.Laplace.rsample", laplace),
        patch("multivae.models.mvae.mvae_model.choice", chosen),
        patch("torch.distributions.OneHotCategorical.sample", component),
    ):
        yield draws
    if len(draws) < len(noise):
        sys.exit(f"multivae asks for {len(draws)} draws of noise, the case has {len(noise)}")


def forward(case: Case) -> dict[str, Any]:
    """Runs multivae's model: its loss, its metrics, the shapes of its draws, itself."""
    model = theirs(case)
    with fed(case, model) as draws:
        detail = {"detailed_output": True} if case["model"] == "mmvae" else {}
        out = model(inputs(case), **detail)
    # MVAE's "recon" of a subset is its ELBO: the KL is added to it in place (mvae_model.py:104).
    terms = {k: torch.as_tensor(v).item() for k, v in out.metrics.items()}
    if detail:  # MMVAE has no metrics: the log-weights log p(x, z) − log q(z|x), (K, B)
        log_weights, _ = model.compute_k_lws(out.qz_xs, out.zss, out.recon, inputs(case))
        terms = {f"log_weights/{n}": value.tolist() for n, value in log_weights.items()}
    return {"loss": out.loss, "terms": terms, "draws": draws, "model": model}


def components(case: Case, model: Any) -> list[list[str]]:
    """Returns the subset that MoPoE takes each row's z from."""
    latents = model.inference(inputs(case))
    taken = (latents["mus"] == latents["joint"][0]).all(-1)  # (subsets, B)
    names = [subset for subset in model.subsets.values() if subset]
    return [names[i] for i in taken.int().argmax(0)]


def measure(case: Case) -> dict[str, Any]:
    """Returns what multivae computes of a case, see the top of this file."""
    case = tensors(case)
    out = forward(case)
    out["loss"].backward()
    answer = {
        "multivae": version("multivae"),
        "loss": out["loss"].item(),
        "terms": out["terms"],
        "draws": out["draws"],
        "gradients": gradients(case),
    }
    if case["model"] == "mopoe":
        case["choices"] = answer["choices"] = case.get("choices") or components(case, out["model"])
    count = len(next(iter(case["modalities"].values()))["x"])
    alone = [forward(row(case, i)) for i in range(count)]
    return {**answer, "rows": [{"loss": r["loss"].item(), "terms": r["terms"]} for r in alone]}


def gradients(case: Case) -> dict[str, Any]:
    """Returns gradients in the shape of a case's weights, and forgets them."""

    def take(p: Tensor) -> Any:
        g, p.grad = p.grad, None
        return (torch.zeros_like(p) if g is None else g).tolist()

    return {
        n: {net: [[take(p) for p in layer] for layer in m[net]] for net in ("encoder", "decoder")}
        for n, m in case["modalities"].items()
    }


# The papers' objectives, from their equations: losses (terms, B), NaN where a term does not count a
# row. M is the number of modalities; P are those that a row has, all M where it has no holes.


def normal(mean: Tensor, variance: Tensor) -> Independent:
    return Independent(Normal(mean, variance.sqrt()), 1)


def product(case: Case, experts: dict[str, Any], subset: Sequence[str], prior: int) -> Independent:
    """Returns the normalised p(z)^prior Π_{k∈S∩P} q̃_k(z|x_k), p(z) = N(0, I).

    multivae adds 1e-8 to every variance first in MoPoE and MVTCAE (base_utils.py:122), not in MVAE
    (line 133): what differs by 1e-9 to 1e-7 below is that.
    """
    precisions = {n: experts[n][1].neg().exp() * has(case, n).unsqueeze(-1) for n in subset}
    total = sum(precisions.values()) + prior
    # A row that has nothing of S, where no prior is, gets a variance that no term then counts.
    total = total.where(total > 0, 1.0)
    return normal(sum(experts[n][0] * precisions[n] for n in subset) / total, 1 / total)


def standard(q: Independent) -> Independent:
    return normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))


def has(case: Case, name: str) -> Tensor:
    present: Tensor = case["modalities"][name]["present"]
    return present


def log_p(case: Case, name: str, z: Tensor) -> Tensor:
    """Returns λ_k log p(x_k|z), ``(..., B)``, 0 where a row lacks x_k."""
    m = case["modalities"][name]
    out, x = run(m["decoder"], z), m["x"]
    if m["likelihood"] == "categorical":
        value = out.log_softmax(-1) * x
    elif m["likelihood"] == "bernoulli":
        value = Bernoulli(logits=out).log_prob(x.expand_as(out))
    else:
        value = {"normal": Normal, "laplace": Laplace}[m["likelihood"]](out, m["scale"]).log_prob(x)
    weight = case["options"].get("rescale_factors", {}).get(name, 1.0)
    return weight * value.sum(-1) * has(case, name)


def mvae(case: Case) -> Tensor:
    """−Σ_S [Σ_{k∈S} E_q(z|x_S) log p(x_k|z) − β KL(q(z|x_S) ‖ p(z))].

    q(z|x_S) ∝ p(z) Π_{k∈S} q̃_k(z|x_k); S is all, each alone, and k at random (M. Wu, N. Goodman,
    "Multimodal Generative Models for Scalable Weakly-Supervised Learning", NeurIPS 2018).
    With holes, S is S ∩ P, and a row that has nothing of S is not counted.
    """
    experts, terms = {n: encode(case, n) for n in case["modalities"]}, []
    for subset, eps in zip(mvae_subsets(case), case["noise"], strict=True):
        q = product(case, experts, subset, prior=1)
        z = q.mean + q.stddev * eps
        kl = case["options"].get("beta", 1.0) * kl_divergence(q, standard(q))
        some = torch.stack([has(case, n) for n in subset]).any(0)
        terms.append((kl - sum(log_p(case, n, z) for n in subset)).where(some, math.nan))
    return torch.stack(terms)


def mmvae(case: Case) -> Tensor:
    """−1/M Σ_m log 1/K Σ_k p(x, z_mk) / q(z_mk|x) with z_mk ~ q̃_m(z|x_m).

    q(z|x) = 1/M Σ_m q̃_m(z|x_m), so that z is stratified over its components (Y. Shi, N. Siddharth,
    B. Paige, P. Torr, "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative
    Models", NeurIPS 2019). The gradient is DReG's (G. Tucker et al., ICLR 2019) if that is asked.
    With holes, both means are over m ∈ P.
    """
    doubly = case["options"].get("loss", "dreg_looser") == "dreg_looser"
    names, q, q_fixed = list(case["modalities"]), {}, {}
    for n in names:
        mean, log_variance = encode(case, n)
        if case["options"]["prior_and_posterior_dist"] == "normal":
            q[n] = normal(mean, log_variance.exp())
            q_fixed[n] = normal(mean.detach(), log_variance.exp().detach())
            p = standard(q[n])
        else:  # the second half of the encoder's output is logits of scales whose mean is 1
            scale = log_variance.softmax(-1) * log_variance.shape[-1] + 1e-6
            q[n] = Independent(Laplace(mean, scale), 1)
            q_fixed[n] = Independent(Laplace(mean.detach(), scale.detach()), 1)
            p = Independent(Laplace(torch.zeros_like(mean), torch.full_like(mean, 1 + 1e-6)), 1)
    count = torch.stack([has(case, n) for n in names]).sum(0)
    bounds = []
    for n, eps in zip(names, case["noise"], strict=True):
        z = q[n].base_dist.loc + q[n].base_dist.scale * eps  # (K, B, Z)
        each = {m: (q_fixed if doubly else q)[m].log_prob(z) for m in names}
        mixture = torch.stack([each[m].where(has(case, m), -math.inf) for m in names])
        log_q = mixture.logsumexp(0) - count.log()
        log_w = sum(log_p(case, m, z) for m in names) + p.log_prob(z) - log_q  # (K, B)
        if doubly:
            w = log_w.detach().softmax(0).unsqueeze(-1)
            z.register_hook(lambda gradient, w=w: w * gradient)
        bounds.append((log_w.logsumexp(0) - math.log(len(log_w))) * has(case, n))
    return -(sum(bounds) / count).unsqueeze(0)


def mopoe(case: Case) -> Tensor:
    """−Σ_k E_q(z|x) log p(x_k|z) + β 1/|A| Σ_{S∈A} KL(q_S(z|x_S) ‖ p(z)), A all subsets.

    q(z|x) = 1/|A| Σ_{S∈A} q_S(z|x_S) and q_S ∝ Π_{k∈S} q̃_k, times p(z) for the full S alone; a
    row's z comes from one S (T. Sutter, I. Daunhawer, J. Vogt, "Generalized Multimodal ELBO", ICLR
    2021; that the full S has the prior and no other does is in the authors' code).
    With holes, A is the subsets of P, and the sum over k is over P.
    """
    names = list(case["modalities"])
    subsets = [s for n in range(1, len(names) + 1) for s in combinations(names, n)]
    experts = {n: encode(case, n) for n in names}
    q = {s: product(case, experts, s, prior=int(len(s) == len(names))) for s in subsets}
    picked = [subsets.index(tuple(sorted(s, key=names.index))) for s in case["choices"]]
    rows = torch.arange(len(picked))
    mean = torch.stack([q[s].mean for s in subsets])[picked, rows]
    deviation = torch.stack([q[s].stddev for s in subsets])[picked, rows]
    z = mean + deviation * case["noise"][0]
    usable = torch.stack([torch.stack([has(case, n) for n in s]).all(0) for s in subsets])
    kl = torch.stack([kl_divergence(q[s], standard(q[s])) for s in subsets])
    kl = (kl * usable).sum(0) / usable.sum(0)
    loss = case["options"].get("beta", 1.0) * kl - sum(log_p(case, n, z) for n in names)
    return loss.unsqueeze(0)


def mvtcae(case: Case) -> Tensor:
    """−(M − α)/M Σ_k E_q log p(x_k|z) + β [α/M Σ_k KL(q ‖ q̃_k) + (1 − α) KL(q ‖ p)].

    q(z|x) ∝ Π_k q̃_k(z|x_k), without the prior (H. Hwang, G.-H. Kim, S. Hong, K.-E. Kim, "Multi-View
    Representation Learning via Total Correlation Objective", NeurIPS 2021).
    With holes, the product and the sums are over k ∈ P, and M is still all.
    """
    options = {"alpha": 0.1, "beta": 2.5} | case["options"]
    alpha, beta, names = options["alpha"], options["beta"], list(case["modalities"])
    experts = {n: encode(case, n) for n in names}
    q = product(case, experts, names, prior=0)
    z = q.mean + q.stddev * case["noise"][0]
    views = {n: normal(mean, log_variance.exp()) for n, (mean, log_variance) in experts.items()}
    kl_views = sum(kl_divergence(q, views[n]) * has(case, n) for n in names)
    kl_prior = kl_divergence(q, standard(q))
    share = alpha / len(names)
    loss = beta * (share * kl_views + (1 - alpha) * kl_prior)
    return (loss - (1 - share) * sum(log_p(case, n, z) for n in names)).unsqueeze(0)


EQUATIONS = {"mvae": mvae, "mmvae": mmvae, "mopoe": mopoe, "mvtcae": mvtcae}

IWAE = {"K": 5, "prior_and_posterior_dist": "normal", "loss": "iwae_looser"}
DREG = {**IWAE, "loss": "dreg_looser"}
RESCALED = {"uses_likelihood_rescaling": True, "rescale_factors": {"a": 1.0, "b": 3.0, "c": 5.0}}

CHECKS: list[tuple[str, str, dict[str, Any]]] = [
    ("mvae", "complete", {"beta": 0.7, "k": 2}),
    ("mvae", "complete", {"use_subsampling": False}),
    ("mvae", "complete", RESCALED),
    ("mvae", "holes", {"beta": 0.7, "k": 2}),
    ("mmvae", "complete", IWAE),
    ("mmvae", "complete", {**IWAE, "K": 1}),
    ("mmvae", "complete", DREG),
    ("mmvae", "complete", {**DREG, "prior_and_posterior_dist": "laplace_with_softmax"}),
    ("mmvae", "holes", IWAE),
    ("mmvae", "holes", DREG),
    ("mopoe", "complete", {"beta": 1.5}),
    ("mopoe", "drawn", {"beta": 1.5}),
    ("mopoe", "holes", {"beta": 1.5}),
    ("mvtcae", "complete", {}),
    ("mvtcae", "complete", {"alpha": 0.9, "beta": 0.5}),
    ("mvtcae", "holes", {"alpha": 0.9, "beta": 0.5}),
]


def random_case(model: str, batch: str, options: dict[str, Any], seed: int) -> Case:
    """Draws a case: 7 rows of a Gaussian, a Bernoulli and a categorical modality, Z = 4.

    Args:
        model: What the case is of.
        batch: ``"complete"``; ``"holes"``, where rows lack modalities; or ``"drawn"``, a complete
            one whose subsets are drawn for MoPoE.
        options: Fields of multivae's configuration.
        seed: Seeds everything, and an odd one takes the softplus.
    """
    torch.manual_seed(seed)
    rows, sizes = 7, {"a": 6, "b": 5, "c": 4}

    def net(*widths: int) -> list[Any]:
        return [
            [(torch.randn(o, i) / i**0.5).tolist(), torch.randn(o).tolist()]
            for i, o in pairwise(widths)
        ]

    def noise(*shape: int) -> Any:
        if options.get("prior_and_posterior_dist") == "laplace_with_softmax":
            return Laplace(0.0, 1.0).sample(shape).tolist()
        return torch.randn(shape).tolist()

    x = {
        "a": torch.randn(rows, 6),
        "b": torch.rand(rows, 5).round(),
        "c": F.one_hot(torch.randint(4, (rows,)), 4),
    }
    kinds = {"a": "normal", "b": "bernoulli", "c": "categorical"}
    modalities = {
        n: {"likelihood": kinds[n], "encoder": net(size, 8, 8), "decoder": net(4, 8, size),
            "x": x[n].tolist(), **({"scale": 0.75} if n == "a" else {})}
        for n, size in sizes.items()
    }  # fmt: skip
    variance = {"variance": "softplus", "floor": 1e-6} if seed % 2 else {"variance": "log"}
    case: Case = {"model": model, "options": options, "modalities": modalities, **variance}
    subsets = [list(s) for n in (1, 2, 3) for s in combinations(sizes, n)]
    usable = [subsets] * rows
    if batch == "holes":
        # A complete row, one that has a alone, and five at random.
        held = [subsets[-1], subsets[0], *(subsets[i] for i in torch.randint(7, (rows - 2,)))]
        usable = [[s for s in subsets if set(s) <= set(h)] for h in held]
        for n, m in modalities.items():
            m["present"] = [n in h for h in held]
    if model == "mvae":
        case["choices"] = [["b", "c"], ["a", "b"]][: options.get("k", 0)]
        case["noise"] = [noise(rows, 4) for _ in mvae_subsets(case)]
    elif model == "mmvae":
        case["noise"] = [noise(options["K"], rows, 4) for _ in sizes]
    else:
        case["noise"] = [noise(rows, 4)]
    if model == "mopoe" and batch != "complete":
        case["choices"] = [u[torch.randint(len(u), ())] for u in usable]
    return case


def leaves(tree: Any) -> Iterator[float]:
    for item in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(item, (dict, list)):
            yield from leaves(item)
        else:
            yield item


def apart(ours: Sequence[float], peers: Sequence[float]) -> float:
    """Returns the greatest difference relative to the largest number."""
    a, b = torch.tensor(list(ours)), torch.tensor(list(peers))
    return float((a - b).abs().max() / b.abs().max())


def check(model: str, batch: str, options: dict[str, Any], seed: int) -> tuple[float, float, float]:
    """Compares a random case: loss, loss of each row, gradients."""
    case = random_case(model, batch, options, seed)
    answer = measure(case)
    case = tensors({**case, "choices": answer.get("choices", case.get("choices"))})
    values = EQUATIONS[model](case)
    # multivae's MMVAE sums over the batch (mmvae_model.py:272, 292); the others take the mean:
    # MVAE of each subset's rows (mvae_model.py:109), MoPoE and MVTCAE of all rows, also of a
    # modality that some lack (mopoe_model.py:204, mvtcae_model.py:107).
    loss = values.sum() if model == "mmvae" else values.nanmean(1).sum()
    loss.backward()
    slopes = apart(list(leaves(gradients(case))), list(leaves(answer["gradients"])))
    if options.get("loss") == "dreg_looser":
        # What multivae returns there is no bound, but Σ_k w_k log(weight) with w the normalised
        # weights (mmvae_model.py:257); its gradient is that of the bound, by DReG's estimate.
        weights = torch.stack([torch.tensor(value) for value in answer["terms"].values()])
        count = torch.stack([has(case, n) for n in case["modalities"]]).sum(0)
        values = -(weights.softmax(1) * weights).sum((0, 1), keepdim=True)[0] / count
        loss = values.sum()
    rows = apart(values.nansum(0).tolist(), [r["loss"] for r in answer["rows"]])
    return apart([loss.item()], [answer["loss"]]), rows, slopes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="?", default="-", help="a JSON file, - for standard input")
    parser.add_argument("--check", action="store_true", help="random cases against the equations")
    parser.add_argument("--seeds", type=int, default=4, help="how many cases of each check")
    arguments = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    if not arguments.check:
        text = sys.stdin.read() if arguments.case == "-" else Path(arguments.case).read_text()
        given = json.loads(text)
        several = isinstance(given, list)
        print(json.dumps([measure(case) for case in given] if several else measure(given)))
        return
    print("largest relative difference of the loss, of a row's loss, of a gradient")
    for model, batch, options in CHECKS:
        worst = [check(model, batch, options, seed) for seed in range(arguments.seeds)]
        print(*(f"{max(w):.1e}" for w in zip(*worst, strict=True)), model, batch, options)
        if not max(map(max, worst)) < 1e-6:
            sys.exit("multivae and the equations differ")


if __name__ == "__main__":
    main()
