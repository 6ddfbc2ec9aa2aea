"""What can be seen in faces: attributes, sharpness, and what an edit changes beside what it should.

A classifier of the attributes that was trained on real faces looks at all of them. It is read at
even odds: an attribute is seen where it is likelier than it is among all training pictures, which
is the best decision where it is looked for in as many faces with it as without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.batches import Batches
from mmgen.data.store import Dataset, Split
from mmgen.editing import covariance, followed, slopes
from mmgen.errors import DataError, listed
from mmgen.evaluation.coherence.classifier import Classifier, classifier
from mmgen.evaluation.coherence.frechet import frechet_distance, moments
from mmgen.evaluation.coherence.readout import readouts
from mmgen.run import Run
from mmgen.seeding import random_state
from mmgen.training.records import Record
from mmgen_suzuki2018.celeba import ATTRIBUTES, IMAGE

INFERRED = (
    *("Male", "Smiling", "Eyeglasses", "Bald", "Blond_Hair"),
    *("Black_Hair", "Wearing_Hat", "Heavy_Makeup", "Bangs", "Young"),
)
"""Attributes that a face shows, to be told from it and to be changed in it."""

GENERATED = ("Male", "Smiling", "Blond_Hair", "Eyeglasses")
"""Attributes to be recognised in faces that were generated from them."""

STRENGTHS = (1.0, 2.0)
"""What a changed attribute is set to, or to its negative: on as in the data, and twice as much."""

CHUNK = 500
"""Faces that are decoded at a time."""

Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Inferred(Record):
    """How well an attribute is told from test pictures: balanced accuracies at even odds."""

    attribute: str
    model: Share
    classifier: Share


class Generated(Record):
    """How often an attribute is recognised in average faces generated with it, and without.

    All other attributes are those of test rows; the face is the mean of p(x | z) at the mean of z.
    """

    attribute: str
    strength: Finite
    on: Share
    off: Share


class Recognised(Record):
    """How well an attribute is recognised in average faces from the attributes of test pictures.

    Balanced accuracies: in these faces, and in the test pictures themselves.
    """

    attribute: str
    generated: Share
    real: Share


class Sharp(Record):
    """How sharp faces are, and how far from real ones.

    ``laplacian`` is the mean variance of the Laplacian of grey values from 0 to 255; ``frechet``
    the Fréchet distance from training pictures, on features of the classifier.
    """

    of: str
    laplacian: Finite
    frechet: Finite
    pictures: Annotated[int, Field(gt=1)]


class Edited(Record):
    """What becomes of test pictures in which an attribute is changed to what they do not show.

    ``asked`` is the share in which the change is recognised, at even odds; ``others`` the mean,
    over all other attributes, of by how much the classifier's balanced accuracy differs from that
    in the pictures as they were. ``follow`` is that of :func:`mmgen.editing.edit`: at 0 other
    attributes are held as they were inferred, at 1 they follow the one that is asked for.
    """

    attribute: str
    strength: Finite
    follow: Share
    asked: Share
    others: Share


class Looked(Record):
    """All that was measured of a run; empty is what its model does not do."""

    inferred: list[Inferred]
    recognised: list[Recognised]
    generated: list[Generated]
    sharp: list[Sharp]
    edited: list[Edited]


@dataclass(frozen=True, eq=False, repr=False)
class Judge(OneLine):
    """The classifier at even odds.

    Attributes:
        classifier: Of the attributes in pictures.
        names: Of the attributes.
        log_odds: Of each among the training pictures ``(A,)``.
    """

    classifier: Classifier
    names: tuple[str, ...]
    log_odds: Tensor

    def sees(self, x: Tensor) -> Tensor:
        """Reads pictures as nets see them ``(B, C, H, W)``: what is on ``(B, A)``."""
        with torch.no_grad():
            logits = [self.classifier.net(part) for part in x.split(CHUNK)]
        return torch.cat(logits) > self.log_odds

    def features(self, x: Tensor) -> Tensor:
        """Returns what its last layer reads ``(B, features)``."""
        with torch.no_grad():
            return torch.cat([self.classifier.features(part) for part in x.split(CHUNK)]).double()


def judge(run: Run, dataset: Dataset, say: Any = lambda _: None) -> Judge:
    """Returns the classifier kept beside the data set, trained where there is none.

    Raises:
        DataError: If the attributes of the data are not on or off.
    """
    modalities = {name: run.modalities[name] for name in (IMAGE, ATTRIBUTES)}
    train = dataset.splits["train"]
    readout = readouts({ATTRIBUTES: modalities[ATTRIBUTES]}, train).get(ATTRIBUTES)
    if readout is None:
        raise DataError(f"{dataset.path}: its attributes are not on or off")
    found = classifier(dataset, modalities, IMAGE, ATTRIBUTES, readout, run.device, say=say)
    on = readout.read(_observed(run, train, [ATTRIBUTES])[ATTRIBUTES]).double().mean(0)
    few = 1 / train.count
    log_odds = on.clamp(few, 1 - few).logit().to(run.model.like.dtype)
    return Judge(found, readout.choices, log_odds)


def look(
    run: Run, dataset: Dataset, rows: Split, judged: Judge, *, iterations: int | None, seed: int = 0
) -> Looked:
    """Measures a run on test rows.

    Args:
        run: Of pictures and attributes of Gaussian likelihood.
        dataset: Its split ``train`` is what generated faces are held against.
        rows: The test rows.
        judged: The classifier.
        iterations: T of iterative sampling, of a model that needs it.
        seed: Fixes all draws.
    """
    faces = Faces(run, rows, judged, iterations, seed)
    generates = run.model.generates
    to_image, to_attributes = (
        generates([ATTRIBUTES], [IMAGE]),
        generates([IMAGE], [ATTRIBUTES]),
    )
    both = to_image and to_attributes
    return Looked(
        inferred=faces.inferred(dataset) if to_attributes else [],
        recognised=faces.recognised() if to_image else [],
        generated=faces.generated() if to_image else [],
        sharp=faces.sharp(dataset) if to_image else [],
        edited=faces.edited() if both else [],
    )


class Faces:
    """Test rows, and what a run makes of them.

    Args:
        run: Of pictures and attributes of Gaussian likelihood.
        rows: The test rows.
        judged: The classifier.
        iterations: T of iterative sampling.
        seed: Fixes all draws.
    """

    def __init__(
        self, run: Run, rows: Split, judged: Judge, iterations: int | None, seed: int = 0
    ) -> None:
        self.run, self.judged, self.iterations, self.seed = run, judged, iterations, seed
        seen = _observed(run, rows, [IMAGE, ATTRIBUTES])
        self.x, self.w = seen[IMAGE], seen[ATTRIBUTES]
        self.pixels = rows.take(torch.arange(rows.count), [IMAGE])[IMAGE]

    @property
    def truth(self) -> Tensor:
        """What is on in the test rows ``(rows, A)``."""
        return self.w > 0

    def at(self, attribute: str) -> int:
        """Returns the place of an attribute.

        Raises:
            DataError: If the data have none of this name.
        """
        if attribute not in self.judged.names:
            raise DataError(
                f"there is no attribute {attribute}; they are {listed(self.judged.names)}"
            )
        return self.judged.names.index(attribute)

    @cached_property
    def together(self) -> Tensor:
        """How attributes go together in what the run generates from nothing, ``(A, A)``."""
        together = covariance(self.run, [ATTRIBUTES], self.seed)
        assert together is not None, "a model that edits generates from nothing"
        return together

    def set(self, w: Tensor, attribute: str, value: float | Tensor) -> Tensor:
        """Returns attributes ``(rows, A)`` of which one has another value."""
        changed = w.clone()
        changed[:, self.at(attribute)] = value
        return changed

    def average(self, w: Tensor) -> Tensor:
        """Generates means of p(x | z) ``(rows, *shape)`` at the mean of z given ``(rows, A)``."""
        return self._from({ATTRIBUTES: w}, IMAGE)[0]

    def tell(self) -> tuple[Tensor, Tensor]:
        """Returns means of p(w | z) ``(rows, A)`` and of z ``(rows, Z)`` given the pictures."""
        return self._from({IMAGE: self.x}, ATTRIBUTES)

    def _from(
        self, given: Mapping[str, Tensor], target: str, temperature: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        means, zs = [], []
        [(name, values)] = given.items()
        for number, part in enumerate(values.split(CHUNK)):
            p = self.run.generate(
                {name: part},
                [target],
                1,
                temperature=temperature,
                iterations=self.iterations,
                seed=self.seed + number,
            )
            means.append(p[target].mean[0])
            zs.append(p.z[0])
        return torch.cat(means), torch.cat(zs)

    def decode(self, z: Tensor) -> Tensor:
        """Generates the mean of p(x | z) ``(n, *shape)`` at z ``(n, Z)``."""
        with torch.no_grad():
            decoded = [
                self.run.model.decode(part, Batch({}), [IMAGE])[IMAGE].mean
                for part in z.split(CHUNK)
            ]
        return torch.cat(decoded)

    def inferred(self, dataset: Dataset) -> list[Inferred]:
        """Measures how well attributes are told from pictures."""
        usual = _observed(self.run, dataset.splits["train"], [ATTRIBUTES])[ATTRIBUTES].mean(0)
        told = self.tell()[0] > usual
        seen = self.judged.sees(self.x)
        model, real = balanced(told, self.truth), balanced(seen, self.truth)
        return [
            Inferred(attribute=name, model=model[at].item(), classifier=real[at].item())
            for at, name in enumerate(self.judged.names)
            if model[at].isfinite()
        ]

    def recognised(self) -> list[Recognised]:
        """Measures whether the attributes of test pictures are recognised in faces from them."""
        generated = balanced(self.judged.sees(self.average(self.w)), self.truth)
        real = balanced(self.judged.sees(self.x), self.truth)
        return [
            Recognised(attribute=name, generated=generated[at].item(), real=real[at].item())
            for at, name in enumerate(self.judged.names)
            if real[at].isfinite()
        ]

    def generated(self) -> list[Generated]:
        """Measures whether one attribute is recognised that is set against all the others."""
        result = []
        for attribute in GENERATED:
            for strength in STRENGTHS:
                on, off = (
                    self.judged.sees(self.average(self.set(self.w, attribute, value)))[
                        :, self.at(attribute)
                    ]
                    for value in (strength, -strength)
                )
                result.append(
                    Generated(
                        attribute=attribute,
                        strength=strength,
                        on=on.double().mean().item(),
                        off=(~off).double().mean().item(),
                    )
                )
        return result

    def sharp(self, dataset: Dataset) -> list[Sharp]:
        """Measures the sharpness of reconstructions, and of faces from attributes and nothing."""
        train = dataset.splits["train"]
        real = _observed(
            self.run, train.spread(min(train.count, 10_000), self.run.modalities), [IMAGE]
        )[IMAGE]
        trained_on = moments(self.judged.features(real))
        sets = {
            "test pictures": self.x,
            "from attributes": self._from({ATTRIBUTES: self.w}, IMAGE, temperature=1.0)[0],
        }
        model = self.run.model
        if model.generates([IMAGE], [ATTRIBUTES]):
            sets["reconstructions"] = self.decode(self.tell()[1])
        if model.generates([], [IMAGE]):
            with random_state(self.run.device, self.seed):
                z = torch.cat(
                    [self.run.generate({}, [IMAGE], len(part)).z for part in self.x.split(CHUNK)]
                )
            sets["from nothing"] = self.decode(z)
        return [
            Sharp(
                of=of,
                laplacian=laplacian_variance(self.drawn(x)),
                frechet=frechet_distance(trained_on, moments(self.judged.features(x))),
                pictures=len(x),
            )
            for of, x in sets.items()
        ]

    def edited(self) -> list[Edited]:
        """Measures what edits change: each attribute to what the picture does not show."""
        before = self.judged.sees(self.x)
        accuracy = balanced(before, self.truth)
        w = self.tell()[0]
        average = self.drawn(self.average(w))
        result = []
        for attribute, strength, follow in product(INFERRED, STRENGTHS, (0.0, 1.0)):
            at = self.at(attribute)
            wanted = ~before[:, at]
            value = torch.where(wanted, strength, -strength).to(w)
            after = self.judged.sees(self.change(w, attribute, value, average, follow))
            others = (balanced(after, self.truth) - accuracy).abs()
            others[at] = torch.nan
            result.append(
                Edited(
                    attribute=attribute,
                    strength=strength,
                    follow=follow,
                    asked=(after[:, at] == wanted).double().mean().item(),
                    others=others.nanmean().item(),
                )
            )
        return result

    def change(
        self,
        w: Tensor,
        attribute: str,
        value: float | Tensor,
        average: Tensor,
        follow: float = 1.0,
    ) -> Tensor:
        """Returns the test pictures, as nets see them, with one attribute changed.

        Args:
            w: The attributes inferred from them.
            attribute: Which of them changes.
            value: To what, all alike or each by itself ``(rows,)``.
            average: The faces in [0, 1] that are generated from w.
            follow: By how much the other attributes follow.
        """
        at = self.at(attribute)
        step = follow * slopes(self.together, [at])[:, 0].to(w)
        steps = (value - w[:, at]).unsqueeze(1) * step
        others = followed(w, steps, self.run.modalities[ATTRIBUTES])
        changed = self.drawn(self.average(self.set(others, attribute, value)))
        shown = (self.pixels.to(changed) / 255 + changed - average).clamp(0, 1)
        stored = (255 * shown).round().to(torch.uint8)
        return self.run.modalities[IMAGE].observe(stored)

    def drawn(self, x: Tensor) -> Tensor:
        """Returns pictures in [0, 1] ``(rows, 3, H, W)`` of what nets see or generate."""
        drawn = self.run.modalities[IMAGE].render(x)
        assert drawn is not None, "pictures are drawn"
        return drawn


def balanced(seen: Tensor, truth: Tensor) -> Tensor:
    """Returns the balanced accuracy of each attribute ``(A,)``; NaN where all rows are alike.

    Examples:
        >>> truth = torch.tensor([[True], [False], [False], [False]])
        >>> balanced(torch.tensor([[True], [False], [False], [True]]), truth)
        tensor([0.8333], dtype=torch.float64)
    """
    seen, on = seen.double(), truth.double()
    return ((seen * on).sum(0) / on.sum(0) + ((1 - seen) * (1 - on)).sum(0) / (1 - on).sum(0)) / 2


def laplacian_variance(pictures: Tensor) -> float:
    """Returns the mean variance of the Laplacian of grey values from 0 to 255.

    Args:
        pictures: In [0, 1] ``(B, C, H, W)``.
    """
    grey = 255 * pictures.double().mean(1, keepdim=True)
    kernel = grey.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    edges = F.conv2d(grey, kernel[None, None])
    return edges.flatten(1).var(1, correction=0).mean().item()


def _observed(run: Run, rows: Split, names: Sequence[str]) -> dict[str, Tensor]:
    """Returns all rows of some modalities, as nets see them."""
    modalities = {name: run.modalities[name] for name in names}
    batches = Batches(rows, modalities, device=run.device, batch_size=CHUNK)
    with random_state(run.device, 0):
        parts = [*batches.epoch(None, 0)]
    return {name: torch.cat([part[name] for part in parts]) for name in names}
