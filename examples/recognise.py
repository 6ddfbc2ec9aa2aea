"""Is what was generated recognised? Measures trained runs on a data set's test split.

    python examples/recognise.py data/mnist runs/mnist runs/mnist-jmvae runs/mnist-hierarchical

For each run, in per cent:

- label from the image alone: how often the likeliest label is right, over the test split;
- image from the label alone: how often a classifier, trained here on the data set's real pictures
  and never on generated ones, sees the class that was given;
- attributes from the image alone, beside the base rate (always the commoner value).

z is the posterior's mean, or one sample. Models without the needed encoder sample iteratively.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import mmgen
from mmgen.batch import Batch
from mmgen.data.store import Dataset, read_dataset
from mmgen.gallery import compare
from mmgen.inference.sample import sample_latent
from mmgen.nets.blocks import convolutional_encoder
from mmgen.run import Run

SAMPLES = 200
"""Pictures generated for each class."""


def classifier(dataset: Dataset, epochs: int) -> nn.Module:
    """Trains a small convolutional classifier on the real grey pictures."""
    train = dataset.splits["train"].load(["image", "label"], torch.device("cpu"))
    images, labels = train["image"].float() / 255, train["label"].long()
    features = convolutional_encoder((1, *images.shape[-2:]), (32, 64))
    width = features(images[:1]).shape[1]
    net = nn.Sequential(features, nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64))
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(100):
            optimiser.zero_grad()
            F.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimiser.step()
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Returns the share of pictures ``(n, 1, H, W)`` that are recognised, in per cent."""
    return 100 * (net(images).argmax(1) == labels).float().mean().item()


@torch.no_grad()
def label_from_image(run: Run, images: Tensor, labels: Tensor, temperature: float) -> float:
    """Returns how often the likeliest label is right, in per cent."""
    given = Batch({"image": images})
    z = sample_latent(run.model, given, 1, temperature=temperature)[0]
    guess = run.model.decode(z, given, ["label"])["label"].mean.argmax(1)
    return 100 * (guess == labels).float().mean().item()


@torch.no_grad()
def image_from_label(run: Run, net: nn.Module, temperature: float) -> float:
    """Returns how many pictures generated from each class are recognised as it, in per cent."""
    modality = run.modalities["label"]
    classes = torch.arange(len(modality.choices())).repeat_interleave(SAMPLES)
    given = Batch({"label": modality.observe(classes)})
    z = sample_latent(run.model, given, 1, temperature=temperature)[0]
    return accuracy(net, run.model.decode(z, given, ["image"])["image"].mean, classes)


@torch.no_grad()
def attributes_from_image(run: Run, images: Tensor, truth: Tensor) -> list[float]:
    """Returns how often each attribute is right at the posterior's mean, in per cent."""
    given = Batch({"image": images})
    z = sample_latent(run.model, given, 1, temperature=0.0)[0]
    p = run.model.decode(z, given, ["attributes"])["attributes"].mean
    return (100 * ((p > 0.5) == (truth > 0.5)).float().mean(0)).tolist()


def main() -> None:
    """Prints one table over the runs, and one of attributes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the data set's folder")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--rows", type=int, default=10_000, help="test pictures to go through")
    parser.add_argument("--classifier-epochs", type=int, default=5)
    parser.add_argument("--figure", type=Path, help="a PNG: images from each label, run by run")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    dataset = read_dataset(arguments.data)
    rows = torch.arange(min(arguments.rows, dataset.splits["test"].count))
    test = dataset.splits["test"].take(rows)
    labels = test["label"].long()
    net = classifier(dataset, arguments.classifier_epochs)
    real = accuracy(net, test["image"].float() / 255, labels)

    console = Console()
    console.print(
        f"The classifier recognises {real:.2f} % of the {len(labels):,} real test pictures"
    )
    table = Table("run", "label|image, mean z", "sampled z", "image|label, mean z", "sampled z")
    names = dataset.modalities["attributes"]["names"]
    rates = test["attributes"].float().mean(0)
    attributes = Table("attributes|image, mean z", *names)
    base = (100 * torch.maximum(rates, 1 - rates)).tolist()
    attributes.add_row("base rate", *(f"{value:.1f}" for value in base))
    runs = {path.name: mmgen.load(path, device="cpu") for path in arguments.runs}
    for name, run in runs.items():
        images = run.modalities["image"].observe(test["image"])
        scores = [label_from_image(run, images, labels, t) for t in (0.0, 1.0)]
        scores += [image_from_label(run, net, t) for t in (0.0, 1.0)]
        table.add_row(name, *(f"{score:.1f}" for score in scores))
        if "attributes" in run.modalities:
            shares = attributes_from_image(run, images, test["attributes"])
            attributes.add_row(name, *(f"{share:.1f}" for share in shares))
    console.print(table)
    console.print(attributes)
    if arguments.figure is not None:
        compare(runs, "label", "image", arguments.figure)


if __name__ == "__main__":
    main()
