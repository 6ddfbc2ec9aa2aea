"""Table 1, Figures 3, 4 and 5, the data of each, and all of it on one page."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields

import torch
from safetensors.torch import save
from torch import Tensor

from mmgen.data.store import Split, read_dataset
from mmgen.files.atomic import write
from mmgen.files.reading import exists
from mmgen.run import Run, load
from mmgen.tables import Table, comma_separated
from mmgen_suzuki2018 import measured, table
from mmgen_suzuki2018.folder import COHERENCE, Reproduction
from mmgen_suzuki2018.mnist import IMAGE, LABEL, drawings
from mmgen_suzuki2018.mnist.chains import Point, latents, likelihood_by_iteration, pictures
from mmgen_suzuki2018.mnist.claims import claims
from mmgen_suzuki2018.page import Claim, beyond, command, machine, statements, trained
from mmgen_suzuki2018.study import SAMPLES
from mmgen_suzuki2018.table import Cell

AFTER = (1, 2, 5, 10, 20, 50, 100)
"""Numbers of iterations that Figure 3 shows, as far as there are so many."""

ORDER = ("JMVAE", "Hierarchical", "JMVAE-kl")
"""Of the models in figures."""


def write_all(reproduction: Reproduction, say: Callable[[str], object]) -> list[Cell]:
    """Writes table, figures and page of what was trained and measured.

    What is there of a figure's data is kept.

    Args:
        reproduction: With all its jobs done.
        say: Called with what is being done.

    Returns:
        The table.

    Raises:
        RunError: If a file is damaged.
        WriteError: If one cannot be written.
    """
    study = reproduction.study
    found = table.cells(study, reproduction.measured(), reproduction.planned)
    table.save(study, found, reproduction.out)
    draw = _Figures(reproduction)
    say("Figure 3")
    draw.figure_3()
    say("Figure 4: every iteration of every chain is measured")
    points = draw.figure_4()
    say("Figure 5")
    draw.figure_5()
    rises = {
        model: [p.nats for p in points if (p.model, p.target) == (model, LABEL)]
        for model in ORDER[:2]
    }
    write(reproduction.out / "README.md", page(reproduction, found, claims(found, rises)))
    return found


class _Figures:
    def __init__(self, reproduction: Reproduction) -> None:
        self.reproduction = reproduction
        self.effort = reproduction.effort

    def figure_3(self) -> None:
        after = [t for t in AFTER if t <= self.effort.iterations]
        file = self.reproduction.out / "figure-3.safetensors"
        if not exists(file):
            shown = {m: pictures(self._run(m), LABEL, IMAGE, after) for m in ORDER[:2]}
            write(file, save({m: _bytes(means) for m, means in shown.items()}))
        modalities = self._run(ORDER[0]).modalities
        image, choices = modalities[IMAGE], modalities[LABEL].choices()
        shape = (len(after), len(choices), 1, *image.shape)
        shown = measured.pictures_of(file, dict.fromkeys(ORDER[:2], shape))
        drawings.figure_3(shown, after, image, file.with_suffix(".png"))

    def figure_4(self) -> list[Point]:
        file = self.reproduction.out / "figure-4.csv"
        if not exists(file):
            part = self._part(ORDER[0])
            points = [
                point
                for target, given in ((LABEL, IMAGE), (IMAGE, LABEL))
                for model in ORDER
                for point in likelihood_by_iteration(
                    model,
                    self._run(model),
                    part,
                    target,
                    given,
                    iterations=self.effort.iterations,
                    samples=SAMPLES,
                )
            ]
            names = [field.name for field in fields(Point)]
            write(file, comma_separated(names, map(asdict, points)))
        points = [Point(**line.model_dump()) for line in measured.lines(file, measured.PointLine)]
        wanted = {(m, t) for m in ORDER for t in (LABEL, IMAGE)}
        if wanted - {(p.model, p.target) for p in points}:
            raise measured.FILES.wrong(file, "is not whole")
        drawings.figure_4(points, file.with_suffix(".png"))
        return points

    def figure_5(self) -> None:
        file = self.reproduction.out / "figure-5.csv"
        run = self._run(ORDER[0])
        names = run.modalities[LABEL].choices()
        givens = {"image and label": (IMAGE, LABEL), "label": (LABEL,)}
        if not exists(file):
            part = self._part(ORDER[0])
            classes = part.take(torch.arange(part.count), [LABEL])[LABEL].tolist()
            records = []
            for model in ORDER:
                flat = self._run(model, "-2d")
                for words, given in givens.items():
                    z = latents(flat, part, given, iterations=self.effort.iterations).tolist()
                    records += [
                        {
                            "model": model,
                            "given": words,
                            "class": c,
                            "z1": f"{x:.4f}",
                            "z2": f"{y:.4f}",
                        }
                        for c, (x, y) in zip(classes, z, strict=True)
                    ]
            write(file, comma_separated(["model", "given", "class", "z1", "z2"], records))
        spaces, numbers = measured.latents_of(file, ORDER, [*givens], len(names))
        drawings.figure_5(spaces, numbers, names, file.with_suffix(".png"))

    def _run(self, model: str, suffix: str = "") -> Run:
        folder = self.reproduction.run(model.lower() + suffix)
        plugins = self.reproduction.plugins
        return load(folder, device=self.reproduction.device, plugin_modules=plugins)

    def _part(self, model: str) -> Split:
        split = read_dataset(self.reproduction.data).splits["test"]
        return split.spread(self.effort.looked_at, self._run(model).modalities)


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().to(torch.uint8).contiguous()


def page(reproduction: Reproduction, found: Sequence[Cell], judged: Sequence[Claim]) -> str:
    """Returns the page as Markdown."""
    effort = reproduction.effort
    return f"""# MNIST: Table 1 and Figures 3, 4 and 5

M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation between
different modalities", IPSJ Journal 59(3), 2018, section 4, made again with

```sh
{command(reproduction)}
```

on {machine(reproduction)}. x is a picture, w its label.

## Table 1

{table.table(reproduction.study, found, files=True).markdown()}
Nats; mean over {found[0].rows:,} test pictures of the mean of {SAMPLES} logs (equations 11, A.1
and A.2), ± its standard error over pictures. JMVAE and the hierarchy sample iteratively,
T = {effort.iterations}. The same in [CSV](table-1.csv), [JSON](table-1.json) and
[LaTeX](table-1.tex).
{beyond(reproduction)}
## What the paper states

{statements(judged)}
## Is a digit generated from its label recognised?

{_recognised(reproduction)}
Per cent of {effort.looked_at:,} test labels; a classifier trained on real pictures looks. z at the
mean of what it is drawn from, or sampled ({SAMPLES} times), in rows beyond the
paper at their temperature.

## Figures

![Image from label by number of iterations](figure-3.png)

[Data](figure-3.safetensors)

![Conditional log-likelihood by number of iterations](figure-4.png)

[Data](figure-4.csv)

![The two-dimensional latent space](figure-5.png)

[Data](figure-5.csv). For the hierarchy z is z_1, which the decoders read.

## What was trained

{trained(reproduction)}
The paper's misprints are read so: the label's decoder ends in 10 units (D10), and in A.2 z_1 is
drawn from p(z_1|z_2). Weights are those with the lowest validation loss.
"""


def _recognised(reproduction: Reproduction) -> str:
    lines = []
    for planned in reproduction.planned:
        file = reproduction.file(planned, COHERENCE)
        if not planned.row or not exists(file):
            continue
        rows = measured.recognised(file)
        by_z = {row.z: f"{100 * row.value:.1f}" for row in rows}
        real = f"{100 * rows[0].ceiling:.1f}"
        lines.append((planned.row, by_z.get("mean", "–"), by_z.get("sampled", "–"), real))
    return Table(("", "mean z", "sampled z", "real pictures"), "lrrr", lines).markdown()
