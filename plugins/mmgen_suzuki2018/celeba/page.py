"""Table 2, Figures 6 to 9, what is seen in faces, and all of it on one page."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgen import build
from mmgen.batch import Batch
from mmgen.data.store import Dataset, Split, read_dataset
from mmgen.editing import edit, part_of
from mmgen.errors import DataError, listed
from mmgen.files.atomic import write
from mmgen.files.reading import exists
from mmgen.formatting import number
from mmgen.latent.base import Latent
from mmgen.run import Run, load
from mmgen.seeding import generator
from mmgen.tables import Table
from mmgen_suzuki2018 import table
from mmgen_suzuki2018.celeba import ATTRIBUTES, CRITIC, IMAGE, PLAIN, drawings, floors
from mmgen_suzuki2018.celeba.claims import claims, seen
from mmgen_suzuki2018.celeba.faces import GENERATED, INFERRED, Faces, Judge, Looked, judge, look
from mmgen_suzuki2018.folder import Reproduction, newer
from mmgen_suzuki2018.measured import FILES
from mmgen_suzuki2018.page import beyond, command, machine, statements, trained
from mmgen_suzuki2018.study import SAMPLES, Planned
from mmgen_suzuki2018.table import Cell

LOOKED = "faces.json"

COLUMNS = 8
"""How many test pictures figures show."""

POINTS = 300
"""How many test pictures' attributes Figure 8b shows in each condition."""

RANDOM = 4
"""Random faces of each condition in Figure 8a."""

SPREAD = 0.6
"""Of random faces: by how much of its deviation z differs from its mean."""

VARIED = ("Male", "Bald", "Smiling")
"""Attributes that Figure 8 sets."""

EDITS = {
    "Smiling": 2,
    "Not Smiling": -2,
    "Male": 2,
    "Not Male": -2,
    "Eyeglasses": 2,
    "Bald": 2,
    "Blond_Hair": 2,
    "Not Young": -2,
}
"""Edits of Figure 9, and to what they set their attribute."""

NAMED = 3
"""Attributes that a caption names."""


def check(reproduction: Reproduction) -> None:
    """Checks that the data are CelebA's, and that portraits show faces, before hours of training.

    Raises:
        DataError: If the data set lacks a modality, an attribute or the test split.
        GenerationError: If a portrait cannot be read, or shows no face.
    """
    dataset = read_dataset(reproduction.data)
    names = dataset.modalities.get(ATTRIBUTES, {}).get("names", ())
    missing = [name for name in (IMAGE, ATTRIBUTES) if name not in dataset.modalities]
    missing += [name for name in INFERRED if not missing and name not in names]
    if missing or not {"train", "test"} <= dataset.splits.keys():
        raise DataError(
            f"{reproduction.data}: is not CelebA: it has no {listed(missing or ['split test'])}. "
            "Write it with: mmgen data celeba"
        )
    if reproduction.portraits:
        picture = build.registry(reproduction.plugins).create(IMAGE, dataset.modalities[IMAGE])
        for portrait in reproduction.portraits:
            part_of(picture, IMAGE, portrait)


Found = Sequence[tuple[Planned, Looked]]
"""What was measured of each run."""


def write_all(reproduction: Reproduction, say: Callable[[str], object]) -> list[Cell]:
    """Writes table, figures and page of what was trained and measured.

    Args:
        reproduction: With all its jobs done.
        say: Called with what is being done.

    Returns:
        The table.

    Raises:
        DataError: If the data set is not CelebA's.
        RunError: If a file is damaged.
        WriteError: If one cannot be written.
    """
    study, out = reproduction.study, reproduction.out
    dataset = read_dataset(reproduction.data)
    found = table.cells(study, reproduction.measured(), reproduction.planned)
    trained_runs = [planned for planned in reproduction.runs if planned.row]
    first = _load(reproduction, trained_runs[0])
    rows = _rows(dataset, reproduction, first)
    constants = floors.floors(first, dataset, rows)
    table.save(study, found, out, constants)
    say("looking at faces")
    judged = judge(first, dataset, say=say)
    looked = [
        (p, _looked(reproduction, p, dataset, rows, judged, say))
        for p in trained_runs
        if not p.iterative  # T rounds of each of some eighty sets of faces: hours
    ]
    draw = _Figures(reproduction, dataset, judged)
    say("Figure 6")
    draw.figure_6(trained_runs)
    by_name = {planned.name: planned for planned in trained_runs}
    pair = [by_name[name] for name in (PLAIN, CRITIC) if name in by_name]
    if len(pair) == 2:
        say("Figure 7")
        draw.figure_7(pair)
    if pair:
        say("Figures 8 and 9")
        draw.figure_8(pair[-1])
        draw.figure_9(pair[-1])
    names = [planned.name for planned in pair]
    shown = {p.row: each for p, each in reversed(looked) if p.name in names}
    judged_claims = claims(found, constants[0][1]) + seen(shown)
    text = _page(reproduction, found, constants, looked, statements(judged_claims), rows.count)
    write(out / "README.md", text)
    return found


def _load(reproduction: Reproduction, planned: Planned) -> Run:
    return load(
        reproduction.run(planned.name),
        device=reproduction.device,
        plugin_modules=reproduction.plugins,
    )


def _rows(dataset: Dataset, reproduction: Reproduction, run: Run) -> Split:
    test = dataset.splits["test"]
    return test.spread(min(test.count, reproduction.effort.looked_at), run.modalities)


def _looked(
    reproduction: Reproduction,
    planned: Planned,
    dataset: Dataset,
    rows: Split,
    judged: Judge,
    say: Callable[[str], object],
) -> Looked:
    """Reads what was measured of a run, or measures it."""
    file = reproduction.file(planned, LOOKED)
    if not newer(file, reproduction.run(planned.name) / "best.safetensors"):
        say(f"looking at the faces of {planned.name}")
        run = _load(reproduction, planned)
        found = look(run, dataset, rows, judged, iterations=None)
        write(file, found.model_dump_json(indent=2) + "\n")
    return FILES.check(Looked, FILES.json(file), file)


class _Figures:
    """Draws each figure of a few test rows."""

    def __init__(self, reproduction: Reproduction, dataset: Dataset, judged: Judge) -> None:
        self.reproduction, self.dataset, self.judged = reproduction, dataset, judged

    def _faces(self, planned: Planned, count: int = COLUMNS) -> Faces:
        run = _load(self.reproduction, planned)
        test = self.dataset.splits["test"]
        rows = test.spread(min(test.count, count), run.modalities)
        iterations = self.reproduction.effort.iterations if planned.iterative else None
        return Faces(run, rows, self.judged, iterations)

    def figure_6(self, runs: Sequence[Planned]) -> None:
        shown, captions = {}, []
        for planned in runs:
            if not planned.generates([IMAGE]):
                continue
            faces = self._faces(planned)
            shown[planned.row] = faces.drawn(faces.average(faces.w)).cpu()
            captions = [self._named(w) for w in faces.w]
        if shown:
            if self.reproduction.photographs:
                shown = {"test pictures": faces.drawn(faces.x).cpu(), **shown}
            drawings.figure_6(shown, captions, self.reproduction.out / "figure-6.png")

    def _named(self, w: Tensor) -> str:
        """Names the attributes that tell a face from others: those that are on and rare."""
        rarest = (w.cpu() > 0) * -self.judged.log_odds.cpu()
        rarest[w.cpu() <= 0] = -torch.inf
        places = sorted(rarest.topk(NAMED).indices.tolist())
        return "\n".join(self.judged.names[at] for at in places if w[at] > 0)

    def figure_7(self, pair: Sequence[Planned]) -> None:
        shown: dict[str, dict[str, Tensor]] = {}
        for planned in pair:
            faces = self._faces(planned)
            z = faces.run.generate({}, [IMAGE], len(faces.x), seed=1).z
            for of, x in (
                ("reconstructed", faces.decode(faces.tell()[1])),
                ("from attributes", faces.average(faces.w)),
                ("from nothing", faces.decode(z)),
            ):
                shown.setdefault(of, {})[planned.row] = faces.drawn(x).cpu()
        plain, critic = (planned.row for planned in pair)
        strips: dict[str, Tensor] = {}
        for of, each in shown.items():
            strips |= {of: each[plain], f"{of}, critic": each[critic]}
        if self.reproduction.photographs:
            strips = {"test pictures": faces.drawn(faces.x).cpu(), **strips}
        drawings.figure_7(strips, self.reproduction.out / "figure-7.png")

    def figure_8(self, planned: Planned) -> None:
        faces = self._faces(planned, POINTS)
        conditions = {"Base": faces.w}
        for attribute in VARIED:
            conditions[attribute] = faces.set(faces.w, attribute, 2.0)
            conditions[f"Not {attribute}"] = faces.set(faces.w, attribute, -2.0)
        q = {condition: _posterior(faces.run, w) for condition, w in conditions.items()}
        # A base that shows none of what is varied, if there is one.
        varied = [faces.at(attribute) for attribute in VARIED]
        base = int((faces.w[:, varied] > 0).sum(1).argmin())
        like = faces.run.model.like
        noise = like.new_empty(RANDOM, faces.run.model.latent)
        noise.copy_(torch.randn(noise.shape, generator=generator("figure 8a"), device="cpu"))
        shown = {}
        for condition, each in q.items():
            mean, deviation = each.mean[base], each.stddev[base]
            z = torch.cat([mean[None], mean + SPREAD * deviation * noise])
            shown[condition] = faces.drawn(faces.decode(z)).cpu()
        drawings.figure_8a(shown, self.reproduction.out / "figure-8a.png")
        points, explained = principal({condition: each.mean for condition, each in q.items()})
        drawings.figure_8b(points, explained, self.reproduction.out / "figure-8b.png")

    def figure_9(self, planned: Planned) -> None:
        portraits = self.reproduction.portraits
        if portraits:
            shown, notes = self._portraits(planned)
        elif self.reproduction.photographs:
            shown, notes = self._edited(planned)
        else:
            return
        drawings.figure_9(shown, notes, self.reproduction.out / "figure-9.png")

    def _edited(self, planned: Planned) -> tuple[dict[str, Tensor], list[str]]:
        faces = self._faces(planned, 4)
        w = faces.tell()[0]
        average = faces.drawn(faces.average(w))
        shown = {"photograph": faces.drawn(faces.x), "average face": average}
        for words, value in EDITS.items():
            attribute = words.removeprefix("Not ")
            shown[words] = faces.drawn(faces.change(w, attribute, float(value), average))
        notes = [self._named(each).replace("\n", ", ") or "nothing" for each in w]
        return {words: x.cpu() for words, x in shown.items()}, notes

    def _portraits(self, planned: Planned) -> tuple[dict[str, Tensor], list[str]]:
        run = _load(self.reproduction, planned)
        columns: dict[str, list[Tensor]] = {}
        notes = []
        for portrait in self.reproduction.portraits:
            changes = [{words.removeprefix("Not "): float(v)} for words, v in EDITS.items()]
            made = edit(run, portrait, changes)
            pictures = {"photograph": made.seen / 255, "average face": made.before}
            for at, words in enumerate(EDITS):
                left, top, right, bottom = made.part
                pictures[words] = made.edited(at)[:, top:bottom, left:right] / 255
            for words, picture in pictures.items():
                columns.setdefault(words, []).append(_small(picture, drawings.SIDE))
            notes.append(self._named(made.inferred[ATTRIBUTES]).replace("\n", ", ") or "nothing")
        return {words: torch.stack(each) for words, each in columns.items()}, notes


@torch.no_grad()
def _posterior(run: Run, w: Tensor) -> Latent:
    q = run.model.posterior(Batch({ATTRIBUTES: w}))
    assert q is not None, "a JMVAE-kl has an encoder for attributes alone"
    return q


def _small(picture: Tensor, side: int) -> Tensor:
    """Brings a picture ``(3, H, W)`` in [0, 1] to a square of so many pixels."""
    mode = "area" if picture.shape[-1] > side else "nearest"
    return F.interpolate(picture[None], (side, side), mode=mode)[0]


def principal(points: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[float]]:
    """Projects z ``(n, Z)`` of all conditions on their first two principal components.

    Returns:
        By condition ``(n, 2)``, and which shares of the variance the two have.
    """
    everything = torch.cat([*points.values()]).double().cpu()
    centre = everything.mean(0)
    _, values, axes = torch.linalg.svd(everything - centre, full_matrices=False)
    shares = (values.square() / values.square().sum())[:2].tolist()
    found = {name: (z.double().cpu() - centre) @ axes[:2].mT for name, z in points.items()}
    return found, shares


def _page(
    reproduction: Reproduction,
    found: Sequence[Cell],
    constants: Sequence[table.Floor],
    looked: Found,
    judged: str,
    count: int,
) -> str:
    effort, study = reproduction.effort, reproduction.study
    figures = "\n\n".join(
        f"![{words}]({name})" for name, words in FIGURES.items() if exists(reproduction.out / name)
    )
    return f"""# CelebA: Table 2 and Figures 6 to 9

M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation between
different modalities", IPSJ Journal 59(3), 2018, section 4.6, made again with

```sh
{command(reproduction)}
```

on {machine(reproduction)}. x is a face of 64×64 pixels, w its 40 attributes.

## Table 2

{table.table(study, found, files=True, floors=constants).markdown()}
Nats; mean over {found[0].rows:,} test pictures of the mean of {SAMPLES} logs (equations 11, A.1
and A.2), ± its standard error over pictures. JMVAE and the hierarchy sample iteratively,
T = {effort.iterations}. Pixels are standardised each by itself on the training split, p(x|z) has
variance 1, and log densities are summed over pixels and averaged over the three colours, as in the
paper: a full sum would be three times as much. The best constant is the mean of the training split,
and no model can be above the line of no error at all. The same in [CSV](table-2.csv),
[JSON](table-2.json) and [LaTeX](table-2.tex).
{beyond(reproduction)}
What is and what is not comparable: {_comparable(reproduction)}

## What the paper states, and what should be seen

{judged}
## Attributes told from faces

Here and below, runs that sample iteratively are left out: it would take them hours.

{_inferred(looked)}
Per cent, balanced accuracy over {count:,} test pictures; an attribute is told where it is likelier
than it usually is. The classifier is trained on real faces and sees the same pictures.

## Attributes recognised in faces generated from them

{_recognised(looked)}
Per cent, balanced accuracy of the classifier over {count:,} average faces, each from the attributes
of a test picture; and over the test pictures themselves.

One attribute set, and all others left as they are in test pictures, which may speak against it:

{_generated(looked)}
Per cent of {count:,} average faces with the attribute, and of as many without it, in which the
classifier sees what was asked for. At 1 an attribute is as on as in the data, at 2 twice as much.

## Sharpness

{_sharp(looked)}
Variance of the Laplacian of grey values, and Fréchet distance from the training pictures on
features of the classifier, of {count:,} faces each.

## Edits

{_edited(looked)}
x + x'_mean − x_mean of {count:,} test pictures, in which one attribute is changed to what the
classifier does not see in them: the other 39 are held as they were inferred, as in the paper, or
follow as they go together in what the model generates (`--follow` of `mmgen edit`). Asked: in how
many per cent it then sees the change. Others: by how much its balanced accuracy of the other 39
changes, in points.

## Figures

{figures}

## What was trained

{trained(reproduction)}
Weights are those with the lowest validation loss.
"""


FIGURES = {
    "figure-6.png": "Faces from attributes",
    "figure-7.png": "JMVAE-kl without and with a critic",
    "figure-8a.png": "Average faces and random ones",
    "figure-8b.png": "z given attributes",
    "figure-9.png": "Photographs edited",
}


def _comparable(reproduction: Reproduction) -> str:
    splits = read_dataset(reproduction.data).splits
    rows = sum(split.count for split in splits.values())
    return (
        f"{rows:,} pictures ({splits['train'].count:,} to train on) against 191,899 in the paper, "
        "faces found by another detector, another split, and other statistics of the pixels. "
        "Likelihoods of different pictures differ; the order of models, and the distance from the "
        "constant, can be held against each other."
    )


def _per_cent(share: float) -> str:
    return number(100 * share, 3, decimals=1)


def _inferred(looked: Found) -> str:
    told = {
        p.row: {i.attribute: (i.model, i.classifier) for i in each.inferred}
        for p, each in looked
        if each.inferred
    }
    text = _shares(told, {}, "classifier") or "No run tells attributes from faces.\n"
    seen = {name for each in told.values() for name in each}
    left_out = [name for name in INFERRED if told and name not in seen]
    return text + (f"\nIn no test picture, or in all: {listed(left_out)}.\n" if left_out else "")


def _recognised(looked: Found) -> str:
    recognised = {
        p.row: {r.attribute: (r.generated, r.real) for r in each.recognised}
        for p, each in looked
        if each.recognised
    }
    groups = {f"mean of {listed(GENERATED)}": GENERATED}
    text = _shares(recognised, groups, "test pictures")
    return text or "No run generates faces from attributes.\n"


def _shares(
    measured: Mapping[str, Mapping[str, tuple[float, float]]],
    groups: Mapping[str, Sequence[str]],
    beside: str,
) -> str:
    """Returns a line an attribute, a column a run, means, and what the first has beside its own."""
    first, *others = measured.values() or [{}]
    # What all have: a run that was measured on other rows may lack some.
    common = [name for name in first if all(name in each for each in others)]
    named = [name for name in INFERRED if name in common]
    if not named:
        return ""
    lines = {**{name: [name] for name in named}, "mean of these": named, "mean of all": common}
    lines |= {words: [n for n in names if n in common] for words, names in groups.items()}
    rows = []
    for words, names in lines.items():
        shares = [mean(each[name][0] for name in names) for each in measured.values()]
        shares.append(mean(first[name][1] for name in names))
        rows.append((words, *map(_per_cent, shares)))
    return Table(("", *measured, beside), "l" + "r" * (len(measured) + 1), rows).markdown()


def _generated(looked: Found) -> str:
    return _by_attribute(
        {
            p.row: {(g.attribute, g.strength): (g.on, g.off) for g in each.generated}
            for p, each in looked
            if each.generated
        },
        ("with", "without"),
    )


def _edited(looked: Found) -> str:
    return _by_attribute(
        {
            f"{p.row}, {words}": {
                (e.attribute, e.strength): (e.asked, e.others)
                for e in each.edited
                if e.follow == follow
            }
            for p, each in looked
            if each.edited
            for follow, words in ((0, "held"), (1, "following"))
        },
        ("asked", "others"),
    )


def _by_attribute(
    measured: Mapping[str, Mapping[tuple[str, float], tuple[float, float]]],
    what: tuple[str, str],
) -> str:
    """Returns a line an attribute and strength, two columns a run, and the means."""
    first, *others = measured.values() or [{}]
    common = [key for key in first if all(key in each for each in others)]
    if not common:
        return "No run does this.\n"
    lines: list[tuple[str, str, list[tuple[str, float]]]] = [
        (attribute, number(strength), [(attribute, strength)]) for attribute, strength in common
    ]
    lines += [
        ("mean", number(s), [key for key in common if key[1] == s])
        for s in dict.fromkeys(strength for _, strength in common)
    ]
    rows = [
        (
            *(words, strength),
            *(
                _per_cent(mean(each[key][side] for key in keys))
                for each in measured.values()
                for side in (0, 1)
            ),
        )
        for words, strength, keys in lines
    ]
    headings = ("", "set to ±", *(f"{row}: {word}" for row in measured for word in what))
    return Table(headings, "lr" + "rr" * len(measured), rows).markdown()


def _sharp(looked: Found) -> str:
    rows: list[tuple[str, ...]] = []
    for planned, each in looked:
        real = [s for s in each.sharp if s.of == "test pictures"]
        if not rows:  # the same for all
            rows += [("", s.of, number(s.laplacian, 3), number(s.frechet, 3)) for s in real]
        rows += [
            (planned.row, s.of, number(s.laplacian, 3), number(s.frechet, 3))
            for s in each.sharp
            if s not in real
        ]
    return Table(("", "faces", "Laplacian", "Fréchet"), "llrr", rows).markdown()
