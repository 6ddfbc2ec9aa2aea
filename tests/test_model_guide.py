"""docs/model-guide.md: its code is a model that works, its commands run, its words mmgen's."""

import re

import pytest
from conftest import ROOT
from environments import Environment

from mmgen.errors import MmgenError
from mmgen.registry.loading import load
from mmgen.scaffold import Scaffold
from mmgen.testing import MODEL_CHECKS, Setup
from mmgen.testing.model import toys

GUIDE = (ROOT / "docs" / "model-guide.md").read_text(encoding="utf-8")
TEMPLATE = Scaffold.named("mmgen-mine", "model").files()["mmgen_mine/__init__.py"]


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)


CODE = "".join(f"{part}\n" for part in fences("python"))


@pytest.fixture(scope="module")
def telbo(tmp_path_factory):
    """The class of the guide's file."""
    file = tmp_path_factory.mktemp("guide") / "telbo.py"
    file.write_text(CODE)
    return load([file], environ={"MMGEN_PLUGINS": ""}).model("telbo")


def test_the_code_is_short_and_of_three_encoders_for_two_modalities(telbo):
    assert len([line for line in CODE.splitlines() if line.strip()]) <= 60
    model = Setup(telbo).build(toys.mixed(2))
    assert model.subsets == [("word",), ("point",), ("word", "point")]
    x = toys.observed(toys.mixed(2), 5)
    assert model.posterior(x.select(["word"])).symbol == "q(z | word)"
    terms = [term.name for term in model(x)]
    assert terms == [
        *("reconstruction/word", "reconstruction/point", "kl/prior"),
        *("alone/word", "alone/word/kl", "alone/point", "alone/point/kl"),
    ]


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
def test_the_code_keeps_the_contract(telbo, check):
    check(Setup(telbo))


@pytest.mark.ci
def test_the_commands_lead_from_nothing_to_a_trained_model_with_a_report(tmp_path):
    scripts = fences("sh")
    assert len(scripts) == 2
    (tmp_path / "telbo.py").write_text(CODE)
    out = Environment(tmp_path / "environment").sh("".join(scripts), tmp_path)
    assert f"{len(MODEL_CHECKS)} checks of the contract" in GUIDE
    assert len(re.findall(r"^  ok +\w+$", out, flags=re.MULTILINE)) == 2 * len(MODEL_CHECKS)
    assert "mine, any of image, label, attributes from any; 3 encoder nets" in out
    assert "telbo, any of image, label, attributes from any; 6 encoder nets" in out
    assert "image: 16 pictures in three.png" in out
    assert "q(z | label)" in out
    page = (tmp_path / "runs" / "telbo" / "report.html").read_text()
    assert "telbo" in page
    assert "ELBO" in page


def test_every_file_that_is_written_is_told():
    for file in Scaffold.named("mmgen-mine", "model").files():
        assert f"| `{file}` |" in GUIDE


def test_every_check_is_told_in_its_own_words():
    for check in MODEL_CHECKS:
        words = check.__doc__.splitlines()[0]
        assert "|" not in words
        assert f"| `{check.__name__.removeprefix('check_')}` | {words} |" in GUIDE


# What the guide quotes: the template's text, what a careless author makes of it.
WEIGHT = "weight: Annotated[float, Field(ge=0, le=MOST)] = 1.0"
Q = 'q = gaussian(self.encoder(x)[0], "q(z | x)")\n        z = q.rsample()'
TERM = "reconstruction(n, log_p)"
LAST = 'prior_kl(kl, "KL to N(0, I)", weight=self.weight)'
CAUSES = {
    "unknown hook 'mmgen_model' in plugin": ("mmgen_models", "mmgen_model"),
    "class Mine is abstract: it lacks posterior": ("def posterior", "def infer"),
    "kind 'jmvae' is also provided by models (mmgen": ('[str] = "mine"', '[str] = "jmvae"'),
    "Settings has a field kind, which names the model": (WEIGHT, 'kind: str = "x"'),
    "Settings is no class of ModelSettings": ("Settings(ModelSettings)", "Settings"),
}
CHECKED = {
    "the docstring of Settings does not explain weight": (
        "            weight: w,",
        "            w,",
    ),
    "give a number per row, (B,)": (TERM, "reconstruction(n, log_p.mean())"),
    "has one value for all rows, which changes with them": (
        TERM,
        "reconstruction(n, log_p.mean().expand(x.rows))",
    ),
    "gets no gradient from the loss of its group": (
        f"{Q}\n        terms",
        f"{Q.replace('rsample', 'sample')}\n        q = q.detach()\n        terms",
    ),
    "of a log-likelihood the weight is −1": (TERM, "reconstruction(n, log_p, weight=1.0)"),
    "mark those that are no part of a bound on log p(x) with bound=False": ("(kl, ", "(kl / 2, "),
    "return None where no encoder was trained": (" if {*x} == {*self.names} else None", ""),
    "make tensors with device=self.like.device": (
        "[*terms, ",
        "[*terms[1:], reconstruction('x', terms[0].value + torch.zeros(x.rows)), ",
    ),
    "ByModality, not in a ModuleDict": (
        "        self.weight = settings.weight\n",
        "        self.weight = settings.weight\n"
        "        self.nets = torch.nn.ModuleDict({n: torch.nn.Identity() for n in self.names})\n",
    ),
    "count nothing in plain attributes": (
        "        kl = divergence(",
        "        self.weight *= 0.99\n        kl = divergence(",
    ),
}
ASKED = {
    "model.wieght: unknown key; did you mean 'weight'?": {"wieght": 2},
    "no plugin provides model kind 'mina'; did you mean 'mine'?": {"kind": "mina"},
    "model.weight: Input should be greater than or equal to 0, not -1": {"weight": -1},
}


def careless(folder, old: str, new: str) -> str:
    """Writes the template with a mistake in it."""
    assert old in TEMPLATE
    file = folder / "careless.py"
    file.write_text(
        TEMPLATE.replace(old, new).replace("from mmgen.", "import torch\nfrom mmgen.", 1)
    )
    return str(file)


@pytest.mark.parametrize("message", CAUSES)
def test_a_plugin_that_cannot_be_loaded_has_the_cause_that_is_quoted(message, tmp_path):
    record = load([careless(tmp_path, *CAUSES[message])], environ={}).records[-1]
    assert record.status == "broken"
    assert message in record.cause


@pytest.mark.parametrize("message", CHECKED)
def test_a_model_that_breaks_the_contract_is_told_what_is_quoted(message, tmp_path):
    cls = load([careless(tmp_path, *CHECKED[message])], environ={}).model("mine")
    assert any(message in told for told in failures(cls))


def failures(cls):
    """Yields what checks say of a model, in their order, until it is enough."""
    for check in MODEL_CHECKS:
        try:
            check(Setup(cls))
        except AssertionError as error:
            yield str(error)


@pytest.mark.parametrize("message", ASKED)
def test_an_experiment_that_cannot_be_is_told_what_is_quoted(message, tmp_path):
    registry = load([careless(tmp_path, WEIGHT, WEIGHT)], environ={})
    with pytest.raises(MmgenError) as caught:
        registry.model_settings({"kind": "mine", **ASKED[message]})
    assert message in str(caught.value)


def test_every_message_of_the_guide_is_tried():
    tables = GUIDE[GUIDE.index("## Common mistakes") :]
    quoted = [row.split(" | ")[-1].strip("| ") for row in tables.splitlines() if row[:2] == "| "]
    quoted = [text.strip("` ") for text in quoted if text.startswith("`")]
    assert quoted == [*CAUSES, *CHECKED, *ASKED]
