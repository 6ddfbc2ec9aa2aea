"""A judge: a modality with choices, which every other modality of a row is asked about."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.data.store import Dataset
from mmgen.errors import ConfigError, DataError
from mmgen.evaluation.coherence.classifier import Classifier, classifier
from mmgen.evaluation.coherence.readout import Readout, readouts
from mmgen.modality import Modality


@dataclass(frozen=True, eq=False, repr=False)
class Judge(OneLine):
    """Reads what a modality with choices is: off its own value, and off others by classifiers.

    Attributes:
        name: Of that modality, which may be one of the data set alone.
        readout: How its own values are read.
        classifiers: By name, of each other modality.
    """

    name: str
    readout: Readout
    classifiers: Mapping[str, Classifier]

    def look(self, name: str, x: Tensor) -> Tensor:
        """Returns all that is needed of ``(B, *shape)``: features, or its own reading ``(B, ...)``.

        What :meth:`read` takes: features are needed for distances as well, and computed once.
        """
        if name == self.name:
            return self.readout.read(x)
        return self.classifiers[name].features(x)

    def read(self, name: str, looked: Tensor) -> Tensor:
        """Returns class numbers ``(...)``, or what is on ``(..., n)``."""
        return looked if name == self.name else self.classifiers[name].decide(looked)


def judge_of(
    dataset: Dataset,
    modalities: Mapping[str, Modality],
    name: str,
    about: Modality,
    device: torch.device,
    say: Callable[[str], object] = lambda _: None,
) -> Judge:
    """Trains a judge's classifiers on real rows, or takes those kept beside the data set.

    Args:
        dataset: Has a split ``train``.
        modalities: Those to read it off, by name; the judge itself may be among them.
        name: The judge's name.
        about: The judge.
        device: Where the classifiers are to run.
        say: Called with a few words before one is trained.

    Raises:
        ConfigError: If it has no choices that rows can be told apart by.
        DataError: If there is no split ``train``.
    """
    if "train" not in dataset.splits:
        raise DataError("the data set has no split 'train' to train the judge's classifiers on")
    readout = readouts({name: about}, dataset.splits["train"]).get(name)
    if readout is None:
        raise ConfigError(
            f"--judge {name}: kind {about.kind!r} has no choices that rows can be told apart by; "
            "a judge is a label, or attributes that are on or off"
        )
    readout = replace(readout, codes=readout.codes.to(device))
    both = {**modalities, name: about}
    return Judge(
        name,
        readout,
        {
            seen: classifier(dataset, both, seen, name, readout, device, say=say)
            for seen in modalities
            if seen != name
        },
    )


def all_equal(readings: Sequence[Tensor]) -> Tensor:
    """Returns where all readings name the same, of one shape as each of them.

    Examples:
        >>> all_equal([torch.tensor([1, 2, 3]), torch.tensor([1, 2, 0])])
        tensor([ True,  True, False])
    """
    first, *others = readings
    return torch.stack([first == other for other in others]).all(0)
