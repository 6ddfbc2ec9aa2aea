"""The paper's second experiment: what is planned, measured of faces, judged and drawn."""

import io
import json
import math
import subprocess
import sys
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch
from torch.distributions import Normal

from mmgen import build
from mmgen.data.store import read_dataset
from mmgen.errors import DataError, RunError
from mmgen.evaluation.coherence import classifier
from mmgen.experiment import Experiment
from mmgen.run import load
from mmgen.training import session
from mmgen_image.files import read_picture
from mmgen_suzuki2018.celeba import CELEBA, COLUMNS, PAPER, RUNS, drawings, floors, page
from mmgen_suzuki2018.celeba.claims import claims, seen
from mmgen_suzuki2018.celeba.faces import (
    INFERRED,
    Edited,
    Faces,
    Generated,
    Looked,
    Recognised,
    Sharp,
    balanced,
    judge,
    laplacian_variance,
    look,
)
from mmgen_suzuki2018.folder import Reproduction
from mmgen_suzuki2018.table import Cell, cells, table

NAMES = (*INFERRED, "Pale_Skin", "Big_Nose")
SIDE = 16


def blocks(on, noise):
    """A picture of 4×4 squares, of which one for each attribute is bright if it is on."""
    squares = np.full(16, 70.0)
    squares[: len(NAMES)] = np.where(on, 220, 70)
    pixels = squares.reshape(4, 4).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
    pixels = np.stack([pixels] * 3, -1) + noise.normal(0, 8, (SIDE, SIDE, 3))
    return PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Writes CelebA's layout with pictures that show their attributes in the plainest way."""
    folder = tmp_path_factory.mktemp("celeba")
    noise, counts = np.random.default_rng(0), (200, 30, 60)
    names = [f"{number:06}.jpg" for number in range(1, sum(counts) + 1)]
    on = noise.random((len(names), len(NAMES))) < 0.4
    lines = [
        f"{n} {' '.join(str(2 * int(o) - 1) for o in row)}"
        for n, row in zip(names, on, strict=True)
    ]
    (folder / "list_attr_celeba.txt").write_text(
        f"{len(names)}\n{'  '.join(NAMES)}\n" + "\n".join(lines)
    )
    splits = [split for split, count in enumerate(counts) for _ in range(count)]
    (folder / "list_eval_partition.txt").write_text(
        "\n".join(f"{name} {split}" for name, split in zip(names, splits, strict=True)) + "\n"
    )
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as file:
        for name, row in zip(names, on, strict=True):
            content = io.BytesIO()
            blocks(row, noise).save(content, "PNG")  # a JPEG would blur the squares
            file.writestr(f"img_align_celeba/{name}", content.getvalue())
    return folder


@pytest.fixture(scope="module")
def data(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "data"
    words = ["data", "celeba", root, "--size", SIDE, "--out", out]
    subprocess.run([sys.executable, "-m", "mmgen", *map(str, words)], check=True)
    return out


@pytest.fixture(scope="module")
def looked_at(data, tmp_path_factory):
    """Trains a small JMVAE-kl on them, and the classifier."""
    folder = tmp_path_factory.mktemp("run")
    config = folder / "tiny.toml"
    config.write_text(
        f"[data]\npath = {json.dumps(str(data))}\n"
        '[modalities.image]\nscale = "standardised"\nstandard_deviation = 1.0\n'
        "average_colours = true\nconvolution_channels = [16, 32]\n"
        "[modalities.attributes]\nencoder_widths = [64]\ndecoder_widths = [64]\n"
        '[model]\nkind = "jmvae-kl"\nlatent = 16\n'
        "[train]\nepochs = 40\nbatch_size = 25\nlearning_rate = 2e-3\n"
        'warmup_epochs = 40\ndevice = "cpu"\n',
        encoding="utf-8",
    )
    prepared = session.prepare(Experiment.read(config))
    session.start(prepared, folder / "run")
    list(session.train(prepared, folder / "run"))
    run, dataset = load(folder / "run", device="cpu"), read_dataset(data)
    return run, dataset, judge(run, dataset)


# What is planned.


@pytest.mark.parametrize("planned", [p for p in RUNS if not p.weights], ids=lambda p: p.name)
def test_every_run_has_the_papers_nets(planned, data, tmp_path):
    file = tmp_path / "planned.toml"
    file.write_text(CELEBA.configuration(planned, data, 50, {}), encoding="utf-8")
    experiment = Experiment.read(file)
    registry = build.registry()
    image = {"kind": "image", "channels": 3, "height": 64, "width": 64}
    attributes = {"kind": "attributes", "names": [f"a{n}" for n in range(40)]}
    modalities = build.modalities(experiment, registry, {"image": image, "attributes": attributes})
    model = build.sketch(experiment, modalities, registry)
    train = experiment.train
    assert (train.epochs, train.warmup) == (50, 20)
    assert (train.batch_size, train.learning_rate) == (64, 1e-4)
    assert model.latent == 128
    count = sum(p.numel() for p in model.parameters())
    if planned.name == "jmvae-kl":
        assert count == 19_099_115  # 19.1 M in the paper's own sizes
    if planned.name == "jmvae-kl-gan":
        critic = sum(p.numel() for p in model.critic.parameters())
        assert count - critic == 19_099_115
        assert [m.out_channels for m in model.critic if isinstance(m, torch.nn.Conv2d)] == [
            *(64, 128, 256, 256)
        ]
    assert modalities["image"].scale == "standardised"
    assert modalities["image"].average_colours


def test_the_table_has_all_models_in_both_directions():
    rows = [p for p in RUNS if p.row in PAPER]
    assert {p.row for p in rows} == set(PAPER)
    assert len(rows) == 7
    for quantity, targets, *_ in COLUMNS:
        assert {p.row for p in rows if p.generates(targets)} == set(PAPER), quantity


def reproduction(tmp_path, **changes):
    settings = {"study": CELEBA, "profile": "fast", "epochs": 1, **changes}
    return Reproduction(out=tmp_path / "out", data=tmp_path / "data", **settings)


def test_some_runs_alone_are_made_and_measured(tmp_path):
    here = reproduction(tmp_path, only=("jmvae-kl",))
    assert [p.name for p in here.runs] == ["jmvae-kl"]
    assert [job.name for job in here.trainings()] == ["jmvae-kl"]
    commands = {job.name: job.command for job in here.likelihoods()}
    assert set(commands) == {"jmvae-kl", "jmvae-kl-cool"}
    cool = commands["jmvae-kl-cool"]
    assert str(here.run("jmvae-kl")) in cool  # the same weights, measured otherwise
    assert cool[cool.index("--temperature") + 1] == "0.6"
    assert cool[cool.index("--out") + 1] != commands["jmvae-kl"][-1]
    here.begin()
    assert [p.name for p in (here.out / "configs").iterdir()] == ["jmvae-kl.toml"]


def test_an_unknown_run_or_portrait_is_told(mmgen, tmp_path):
    words = ("reproduce", "celeba", "--data", tmp_path, "--out", tmp_path / "out")
    code, _, err = mmgen(*words, "--only", "jmvae-lk")
    assert code == 2
    assert "--only jmvae-lk: there are" in err
    assert "did you mean 'jmvae-kl'?" in err.replace("\n", " ")
    code, _, err = mmgen(*words, "--portrait", tmp_path / "me.jpg")
    assert code == 2
    assert "me.jpg: there is no such file" in err.replace("\n", "")
    code, _, err = mmgen(*words)
    assert code == 2
    assert "list_attr_celeba.txt" in err
    assert not (tmp_path / "out").exists()


def test_other_data_and_portraits_of_nothing_are_told_before_anything_is_trained(
    mmgen, data, small_glyphs, tmp_path
):
    words = ("reproduce", "celeba", "--out", tmp_path / "out", "--profile", "fast")
    code, _, err = mmgen(*words, "--data", small_glyphs)
    assert code == 2
    assert "is not CelebA: it has no Male, Smiling" in err.replace("\n", " ")
    (tmp_path / "me.jpg").write_text("hello", encoding="utf-8")
    code, _, err = mmgen(*words, "--data", data, "--portrait", tmp_path / "me.jpg")
    assert code == 2
    assert "me.jpg" in err
    assert not [*(tmp_path / "out").glob("runs/*")]


# What is measured.


def test_balanced_accuracy_counts_both_sides_alike():
    truth = torch.tensor([[1, 0], [1, 0], [0, 0], [0, 0]]) > 0
    seen_ = torch.tensor([[1, 0], [0, 0], [0, 1], [0, 0]]) > 0
    found = balanced(seen_, truth)
    assert found[0] == (0.5 + 1) / 2
    assert found[1].isnan()  # never on: there is no telling


def test_the_variance_of_the_laplacian_of_known_pictures():
    flat = torch.full((1, 3, 8, 8), 0.3)
    ramp = torch.linspace(0, 1, 8).expand(1, 3, 8, 8)
    assert laplacian_variance(flat) == pytest.approx(0, abs=1e-9)
    assert laplacian_variance(ramp) == pytest.approx(0, abs=1e-9)
    board = (torch.arange(8) + torch.arange(8)[:, None]) % 2
    # Each inner pixel differs by 255 from its four neighbours: ±4·255, half of each.
    edges = laplacian_variance(board.float().expand(1, 3, 8, 8))
    assert edges == pytest.approx((4 * 255) ** 2)


def test_what_is_in_plain_pictures_is_found(looked_at):
    run, dataset, judged = looked_at
    found = look(run, dataset, dataset.splits["test"], judged, iterations=None)
    assert {i.attribute for i in found.inferred} == set(NAMES)
    assert min(i.classifier for i in found.inferred) > 0.9
    assert sum(i.model for i in found.inferred) / len(NAMES) > 0.9
    assert all(min(g.on, g.off) > 0.8 for g in found.generated)
    assert {r.attribute for r in found.recognised} == set(NAMES)
    assert min(r.generated for r in found.recognised) > 0.9
    assert {e.attribute for e in found.edited} == set(INFERRED)
    strong = [e for e in found.edited if e.strength == 2 and e.follow == 0]
    assert len(found.edited) == 4 * len(INFERRED)
    assert sum(e.asked for e in strong) / len(strong) > 0.8
    assert sum(e.others for e in strong) / len(strong) < 0.1
    sharp = {s.of: s for s in found.sharp}
    assert set(sharp) == {"test pictures", "from attributes", "reconstructions", "from nothing"}
    assert min(sharp.values(), key=lambda s: s.frechet).of == "test pictures"
    # p(x | z) is the mean: the noise of each pixel is not in it.
    assert sharp["reconstructions"].laplacian < sharp["test pictures"].laplacian


def test_an_edit_that_changes_nothing_leaves_the_pictures(looked_at):
    run, dataset, judged = looked_at
    faces = Faces(run, dataset.splits["test"], judged, None)
    w = faces.tell()[0]
    average = faces.drawn(faces.average(w))
    same = faces.change(w, "Male", w[:, faces.at("Male")], average)
    assert torch.equal(same, faces.x)
    assert not torch.equal(faces.change(w, "Male", 2.0, average), faces.x)
    changed = faces.set(w, "Male", 2.0) != w
    assert changed.any(0).tolist() == [name == "Male" for name in NAMES]
    with pytest.raises(DataError, match="there is no attribute Mael"):
        faces.at("Mael")


def test_the_classifier_is_read_at_even_odds(looked_at):
    run, dataset, judged = looked_at
    train = dataset.splits["train"].load()["attributes"].double().mean(0)
    torch.testing.assert_close(judged.log_odds.double().sigmoid(), train, rtol=1e-5, atol=1e-6)
    faces = Faces(run, dataset.splits["test"], judged, None)
    with torch.no_grad():
        logits = judged.classifier.net(faces.x)
    assert torch.equal(judged.sees(faces.x), logits > judged.log_odds)
    assert judged.features(faces.x).shape == (60, classifier.HIDDEN)


def test_the_floor_is_the_likelihood_of_the_mean(looked_at):
    run, dataset, judged = looked_at
    rows = dataset.splits["test"]
    (words, constant), (_, exact) = floors.floors(run, dataset, rows)
    assert words == "best constant"
    faces = Faces(run, rows, judged, None)
    train = Faces(run, dataset.splits["train"], judged, None)
    pictures = Normal(train.x.double().mean(0), 1.0).log_prob(faces.x.double())
    expected = pictures.sum((1, 2, 3)).mean().item() / 3  # averaged over colours
    assert constant[0] == pytest.approx(expected, rel=1e-6)
    told = Normal(train.w.double().mean(0), 1.0).log_prob(faces.w.double()).sum(1).mean()
    assert constant[1] == pytest.approx(told.item(), rel=1e-6)
    assert constant[2:] == constant[:2]
    assert exact[:2] == pytest.approx([-n * math.log(2 * math.pi) / 2 for n in (SIDE**2, 12)])


def test_principal_components_are_those_of_largest_variance():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 5, generator=generator, dtype=torch.float64)
    z *= torch.tensor([0.1, 3.0, 0.1, 1.0, 0.1])
    points, shares = page.principal({"a": z[:100], "b": z[100:]})
    assert points["a"].shape == (100, 2)
    everything = torch.cat([*points.values()])
    covariance = torch.cov(everything.T)
    assert covariance[0, 1].abs() < 1e-9
    total = torch.cov(z.T).trace()
    assert [v / total for v in covariance.diagonal()] == pytest.approx(shares)
    assert shares[0] > 0.8


# What is judged.


def paper_cells(rows=PAPER):
    return [
        Cell(row, heading, nats, 1.0, "q(z | x)", row, 100, nats)
        for row in rows
        for (heading, *_), nats in zip(COLUMNS, PAPER[row], strict=True)
    ]


def test_the_papers_own_numbers_bear_out_what_it_states():
    judged = claims(paper_cells(), (-5812.0, -47.64, -5812.0, -47.64))
    wrong = [c.words for c in judged if not c.holds]
    # Its own column of faces from attributes is below a picture that is always the same.
    assert wrong == ["log p(x|w): JMVAE-kl is above the best constant picture"]
    assert len(judged) == 13


def test_statements_are_of_rows_that_are_there():
    judged = claims(paper_cells(["JMVAE-kl"]), (None,) * 4)
    assert [c.words.partition(": ")[2] for c in judged] == [
        "JMVAE-kl reaches the paper's JMVAE-kl"
    ] * 4
    assert claims([], (None,) * 4) == []


def looked(recognised, frechet):
    return Looked(
        inferred=[],
        recognised=[
            Recognised(attribute=name, generated=share, real=1)
            for name, share in (("Male", recognised), ("Smiling", 1), ("Bald", 0))
        ],
        generated=[Generated(attribute="Male", strength=1, on=0, off=0)],
        sharp=[
            Sharp(of=of, laplacian=1.0, frechet=value, pictures=9)
            for of, value in (("test pictures", 0.1), ("from attributes", frechet))
        ],
        edited=[Edited(attribute="Male", strength=1, follow=0, asked=0.9, others=0.01)],
    )


def test_a_row_of_two_directions_has_what_each_of_them_does():
    names = ("cvae-attributes-to-image", "cvae-image-to-attributes")
    one, other = (next(p for p in RUNS if p.name == name) for name in names)
    nothing = Looked(inferred=[], recognised=[], generated=[], sharp=[], edited=[])
    for order in ([(one, looked(0.7, 9.0)), (other, nothing)], [(other, nothing)]):
        text = page._generated(order)
        assert ("CVAE: with" in text) == (len(order) == 2)
        assert ("| Male |" in page._recognised(order)) == (len(order) == 2)
    # Runs that were measured of other attributes are compared in those of both.
    fewer = looked(0.5, 9.0)
    del fewer.recognised[0]
    text = page._recognised([(one, looked(0.7, 9.0)), (RUNS[0], fewer)])
    assert "| Smiling |" in text
    assert "| Male |" not in text


def test_a_critic_is_judged_by_what_is_recognised_and_how_near_faces_are():
    judged = {c.words: c for c in seen({"A": looked(0.7, 9.0), "B": looked(0.9, 4.0)})}
    assert [c.holds for c in judged.values()] == [False, True, True]
    assert [*judged][-1] == "from attributes: B is nearer to real faces than A"
    assert judged[next(iter(judged))].evidence == "85.0%"
    assert len(seen({"A": looked(0.7, 9.0)})) == 1


def test_a_model_of_one_direction_leaves_cells_open():
    found = [c for c in paper_cells(["CVAE", "CMMA"]) if c.row == "CMMA" or "x|" in c.quantity]
    lines = table(CELEBA, found, files=True, floors=[("floor", (-1.0, None, -1.0, -2.0))])
    assert lines.rows[0] == ("CVAE", "−6,825 ± 1", "–", "−4,031 ± 1", "–")
    assert lines.rows[-1] == ("floor", "−1.000", "–", "−1.000", "−2.000")


def test_a_measurement_that_lacks_a_column_is_named(tmp_path):
    file = tmp_path / "likelihoods.json"
    file.write_text('{"likelihoods": []}', encoding="utf-8")
    planned = [p for p in RUNS if p.name == "cvae-attributes-to-image"]
    with pytest.raises(RunError, match=r"CVAE: log p\(x\|w\) is in no likelihoods.json"):
        cells(CELEBA, {planned[0].name: file}, planned)


# What is drawn.


def test_figures_are_drawn(tmp_path):
    faces = torch.rand(7, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    spots = {c: torch.randn(20, 2) for c in ("Base", "Male", "Not Male")}
    for file in (
        drawings.figure_6({"A": faces, "B": faces}, ["one\ntwo"] * 7, tmp_path / "6.png"),
        drawings.figure_7({"A": faces, "B": faces}, tmp_path / "7.png"),
        drawings.figure_8a({"Base": faces[:5], "Male": faces[2:]}, tmp_path / "8a.png"),
        drawings.figure_8b(spots, [0.5, 0.25], tmp_path / "8b.png"),
        drawings.figure_9({"photograph": faces, "Male": faces}, ["Bald"] * 7, tmp_path / "9.png"),
    ):
        assert len(set(read_picture(str(file), (3, 60, 80)).flatten().tolist())) > 10


@pytest.mark.ci
def test_the_fast_profile_goes_from_pictures_to_the_page(data, tmp_path):
    out = tmp_path / "out"
    PIL.Image.new("RGB", (SIDE, SIDE), "red").save(tmp_path / "red.png")
    words = ["reproduce", "celeba", "--data", data, "--out", out, "--profile", "fast"]
    words += ["--only", "jmvae-kl", "--only", "jmvae-kl-gan", "--only", "cmma-attributes-to-image"]
    words += ["--portrait", tmp_path / "red.png", "--no-photographs"]
    command = [sys.executable, "-m", "mmgen", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Table 2" in done.stdout
    content = json.loads((out / "table-2.json").read_text(encoding="utf-8"))
    assert len(content["cells"]) == 4 * 3 + 2  # three rows of both directions, one of one
    assert [floor["of"] for floor in content["floors"]] == ["best constant", "no error at all"]
    text = (out / "README.md").read_text(encoding="utf-8")
    for name in page.FIGURES:
        assert f"({name})" in text
        assert (out / name).stat().st_size > 3_000
    assert "| JMVAE-kl + GAN | from nothing |" in text
    weights = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/*")}
    subprocess.run(command, capture_output=True, check=True)  # nothing is left to do
    assert {p: p.stat().st_mtime_ns for p in weights} == weights
