"""A model of one file, of which mmgen knows nothing: it trains, resumes, generates, is measured.

And what makes that so: no part of the core asks what class or kind a model is.
"""

import ast
import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import torch
from conftest import ROOT, small

from mmgen import models
from mmgen.experiment import Experiment
from mmgen.run import load
from mmgen.subsets import proper
from mmgen.training import session
from mmgen.training.loop import Step

FILE = Path(__file__).parent / "foreign_model.py"
NAMES = ("image", "label", "attributes")


@pytest.fixture(scope="module")
def prepare(small_glyphs):
    """Prepares the same small run of the foreign model, as often as asked."""

    def prepared(epochs=2):
        words = [*small(small_glyphs, epochs), "model.kind=factor-vae", "train.batch_size=50"]
        experiment = Experiment.read(ROOT / "examples" / "glyphs.toml", words)
        return session.prepare(experiment, [str(FILE)])

    return prepared


@pytest.fixture(scope="module")
def run(prepare, tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("foreign") / "run"
    prepared = prepare()
    session.start(prepared, out)
    list(session.train(prepared, out))
    return out


def test_the_model_is_a_file_of_few_lines():
    code = [line for line in FILE.read_text().splitlines() if line.strip()]
    assert len(code) <= 60


def test_it_learns_and_both_of_its_groups_do(run):
    first, last = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert last["validation"]["loss"] < first["validation"]["loss"]
    assert {"tc", "critic", "loss/critic", "kl/prior", "reconstruction/image"} <= {*last["train"]}
    weights = {name for name, _ in load(run, plugin_modules=[FILE]).model.named_parameters()}
    assert {name.partition(".")[0] for name in weights} == {"critic", "decoders", "encoder"}


def test_it_resumes_bit_for_bit(run, prepare, tmp_path):
    cut = prepare()
    session.start(cut, tmp_path / "cut")
    for item in session.train(cut, tmp_path / "cut"):
        if isinstance(item, Step) and (item.epoch, item.batch) == (2, 3):
            break
    session.save(cut, tmp_path / "cut")
    again = prepare()
    assert session.resume(again, tmp_path / "cut")
    list(session.train(again, tmp_path / "cut"))
    for file in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (run / file).read_bytes()


@pytest.mark.parametrize("given", [(), *proper(NAMES)], ids="+".join)
def test_it_generates_every_direction(run, given):
    loaded = load(run, plugin_modules=[FILE], device="cpu")
    values = {"image": torch.rand(1, 28, 28), "label": "A", "attributes": "bold"}
    left = [n for n in NAMES if n not in given]
    for size in range(1, 1 + len(left)):
        for targets in combinations(left, size):
            asked = {n: values[n] for n in given}
            drawn = loaded.generate(asked, targets, 2, iterations=2 if given else None, seed=1)
            assert {*drawn} == {*targets}
            for name in targets:
                assert drawn[name].mean.shape == (2, *loaded.modalities[name].shape)
                assert drawn[name].mean.isfinite().all()


def test_every_verb_takes_it(mmgen, run, tmp_path):
    plugin = ("-p", FILE)
    code, out, _ = mmgen(*plugin, "plugins", "--json")
    assert code == 0
    assert any(r["models"] == ["factor-vae"] and r["status"] == "ok" for r in json.loads(out))

    words = ("--given", "label=A", "--targets", "attributes", "-n", 2, "--iterations", 2)
    code, out, err = mmgen(*plugin, "generate", run, *words)
    assert (code, "attributes: " in out) == (0, True), err

    table = tmp_path / "likelihoods.json"
    words = ("--rows", 10, "-n", 2, "--importance", 5, "--iterations", 2, "-o", table)
    assert mmgen(*plugin, "evaluate", run, *words)[0] == 0
    assert "q(z | x)" in table.read_text()

    table = tmp_path / "coherence.json"
    words = ("--given", "image", "--targets", "label", "--rows", 20, "-n", 1, "-o", table)
    assert mmgen(*plugin, "coherence", run, *words)[0] == 0
    assert "accuracy" in table.read_text()

    code, out, _ = mmgen(*plugin, "growth", "--modalities", "2-3", "--model", "factor-vae")
    assert (code, "factor-vae" in out) == (0, True)

    words = (ROOT / "examples" / "glyphs.toml", "model.kind=factor-vae", "model.gamma=3")
    code, out, _ = mmgen(*plugin, "train", *words, "--data", dataset(run), "--dry-run")
    assert code == 0
    assert "factor-vae" in out
    assert "critic" in out


def dataset(run: Path) -> Path:
    return Path(json.loads((run / "experiment.json").read_text())["data"]["path"])


def test_its_pictures_and_its_report_are_made(mmgen, run):
    code, _, err = mmgen("-p", FILE, "report", run)
    assert code == 0, err
    page = (run / "report.html").read_text()
    assert "TC(z)" in page
    assert "factor-vae" in page


def test_a_wrong_setting_of_its_own_is_told_with_the_nearest(mmgen, run):
    words = (ROOT / "examples" / "glyphs.toml", "model.kind=factor-vae", "model.gama=3")
    code, _, err = mmgen("-p", FILE, "train", *words, "--data", dataset(run), "--dry-run")
    assert code == 2
    assert "model.gama: unknown key; did you mean 'gamma'?" in err


def test_one_modality_alone_is_refused_before_the_model_is_built(mmgen, run):
    words = (ROOT / "examples" / "glyphs.toml", "model.kind=factor-vae", "data.modalities=image")
    code, _, err = mmgen("-p", FILE, "train", *words, "--data", dataset(run), "--dry-run")
    assert code == 2
    assert "a joint model needs at least two modalities" in err


# What makes that so.

APART = {"models"}
"""The models themselves."""

CORE = [p for p in sorted((ROOT / "mmgen").rglob("*.py")) if not APART & {*p.parts}]
KINDS = {cls.kind for cls in models.mmgen_models()}
CLASSES = {cls.__name__ for cls in models.mmgen_models()} | {"Conditional"}

RECOMMENDED = re.compile(r"model\.kind=[a-z-]+")
"""What a message may say to type."""

DEFAULT = ("template.py", "jmvae-kl")
"""The kind of a configuration that names none, which is written before torch is imported."""


def documentation(tree: ast.Module) -> set[int]:
    """Returns which strings are docstrings, by id."""
    nodes = [n for n in ast.walk(tree) if isinstance(getattr(n, "body", None), list)]
    statements = [s for node in nodes for s in node.body if isinstance(s, ast.Expr)]
    return {id(s.value) for s in statements}


def named_models(tree: ast.Module) -> list[str]:
    """Returns what a module says of concrete models."""
    told = documentation(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            text = RECOMMENDED.sub("", node.value)
            found += [kind for kind in KINDS if re.search(rf"(?<![\w-]){kind}(?![\w-])", text)]
        elif isinstance(node, ast.Name | ast.Attribute | ast.alias):
            name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
            name = name or getattr(node, "name", "")
            found += [name] if name in CLASSES else []
        if isinstance(node, ast.Attribute) and node.attr == "given":
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else owner
            found += ["model.given"] if owner == "model" else []
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_core_names_no_model(path):
    found = named_models(ast.parse(path.read_text(encoding="utf-8")))
    allowed = [DEFAULT[1]] if path.name == DEFAULT[0] else []
    assert [name for name in found if name not in allowed] == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("isinstance(m, CVAE)", ["CVAE"]),
        ("import mmgen.models.cvae as c; isinstance(m, c.CVAE)", ["CVAE"]),
        ("from mmgen.models import JMVAE", ["JMVAE"]),
        ("run.model.given", ["model.given"]),
        ("model.given or ()", ["model.given"]),
        ("kind == 'cvae'", ["cvae"]),
        ("f'hierarchical, L = {x}'", ["hierarchical"]),
        ("print('Try model.kind=hierarchical')", []),
        ("model.directions.given", []),
        ("'''The docstring tells of jmvae.'''", []),
        ("'hierarchical_nets'", []),
    ],
)
def test_the_walk_finds_names_of_models(code, found):
    assert named_models(ast.parse(code)) == found
