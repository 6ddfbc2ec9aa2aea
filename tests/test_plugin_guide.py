"""docs/plugin-guide.md: its commands run, its code is the plugin's, its messages are mmgen's."""

import re

import pytest
from conftest import ROOT
from environments import Environment

from mmgen.errors import MmgenError
from mmgen.registry.loading import load
from mmgen.scaffold import Scaffold
from mmgen.testing import CHECKS, check_plugin

GUIDE = (ROOT / "docs" / "plugin-guide.md").read_text(encoding="utf-8")
TEMPLATE = Scaffold.named("mmgen-audio").files()["mmgen_audio/__init__.py"]


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.ci
def test_the_commands_lead_from_nothing_to_a_trained_fourth_modality(tmp_path):
    scripts = fences("sh")
    assert len(scripts) == 2
    out = Environment(tmp_path / "environment").sh("".join(scripts), tmp_path)
    assert re.search(
        r"^audio +mmgen-audio +0\.1\.0 +ok +modalities: audio", out, flags=re.MULTILINE
    )
    assert f"{len(CHECKS)} checks of the contract" in GUIDE
    assert len(re.findall(r"^  ok +\w+$", out, flags=re.MULTILINE)) == len(CHECKS)
    assert "audio: 16 pictures in three.png" in out
    assert "jmvae-kl, any of audio, label, attributes, image from any" in out
    assert (tmp_path / "three.png").exists()
    assert (tmp_path / "runs" / "audio" / "figures" / "audio_from_label.png").exists()


def test_the_code_is_the_whole_vector_plugin_in_order():
    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if line]

    plugin = ROOT / "plugins" / "mmgen_vector" / "__init__.py"
    assert lines("".join(fences("python"))) == lines(plugin.read_text(encoding="utf-8"))


def test_the_entry_point_is_the_one_that_is_written():
    project = Scaffold.named("mmgen-audio").files()["pyproject.toml"]
    for fence in fences("toml"):
        assert fence.strip() in project


def test_every_file_that_is_written_is_told():
    for file in Scaffold.named("mmgen-audio").files():
        assert f"| `{file}` |" in GUIDE


def test_every_check_is_told_in_its_own_words():
    for check in CHECKS:
        words = check.__doc__.splitlines()[0].replace("``", "`")
        assert f"| `{check.__name__.removeprefix('check_')}` | {words} |" in GUIDE


# What the guide quotes: the template's text, what a careless author makes of it.
CAUSES = {
    "it has no function such as mmgen_modalities() marked @hookimpl": ("@hookimpl\n", ""),
    "unknown hook 'mmgen_modalites' in plugin": ("mmgen_modalities", "mmgen_modalites"),
    "mmgen_modalities() must return a list of classes, not": ("return [Audio]", "return Audio"),
    "class Audio does not declare kind: ClassVar[str] = ...": ("kind: ClassVar[str]", "kinds: str"),
    "class Audio is abstract: it lacks encoder": ("def encoder", "def encode"),
    "class Audio is written for api_version 2, but this mmgen has 1": (
        "api_version: ClassVar[int] = 1",
        "api_version: ClassVar[int] = 2",
    ),
    "A non-annotated attribute was detected: `length = 64`": (
        'length: int = Field(64, ge=2, description="numbers in a signal")',
        "length = 64",
    ),
    "kind 'image' is also provided by image (mmgen": ('[str] = "audio"', '[str] = "image"'),
}
RETURN = "return blocks.Likelihood(net, lambda mean: blocks.gaussian(mean, self.noise))"
NORMAL = "torch.distributions.Normal(mean, {}, validate_args=False)"
FAMILY = "blocks.gaussian(mean, self.noise)"
CHECKED = {
    "no example can be built; give fields without a default examples": (
        'length: int = Field(64, ge=2, description="numbers in a signal")',
        "length: int",
    ),
    "give a torch Distribution, as blocks.Likelihood": (RETURN, "return net"),
    "see torch.distributions.Independent": (FAMILY, NORMAL.format("self.noise + 0 * mean")),
    "give (B, features), flattened": (
        "return blocks.mlp(self.length, self.widths)",
        "return nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Linear(self.length, 8))",
    ),
    "leaves the likelihood's support": (FAMILY, "blocks.bernoulli(mean)"),
    "are probabilities handed over as logits": (
        FAMILY,
        "blocks.continuous_bernoulli(mean.sigmoid())",
    ),
    "got scale outside": (
        FAMILY,
        f"torch.distributions.Independent({NORMAL.format('mean')}, 1, validate_args=False)",
    ),
    "draw all with generator=generator": (", generator=generator)", ")"),
    "raise ValueError and say what is allowed": ("raise ValueError", "raise LookupError"),
    "make tensors with device=x.device": (FAMILY, FAMILY.replace("mean", "mean + OFF")),
    "make every layer inside encoder() or decoder(), not once for all": (
        "return blocks.mlp(self.length, self.widths)",
        "return nn.Sequential(ONCE)",
    ),
    "clamp it": ("return (~ink)", "return 2 * (~ink)"),
}
CONSTANTS = "\nOFF = torch.zeros(64)\nONCE = nn.Linear(64, 8)\n"
ASKED = {
    "modalities.audio.lenght: unknown key; did you mean 'length'?": {"lenght": 9},
    "no plugin provides modality kind 'adio'; did you mean 'audio'?": {"kind": "adio"},
    "modalities.audio.length: Input should be greater than or equal to 2, not 1": {"length": 1},
}


def careless(folder, old: str, new: str) -> str:
    """Writes the template with a mistake in it."""
    assert old in TEMPLATE
    file = folder / "careless.py"
    file.write_text(TEMPLATE.replace(old, new) + CONSTANTS)
    return str(file)


@pytest.mark.parametrize("message", CAUSES)
def test_a_plugin_that_cannot_be_loaded_has_the_cause_that_is_quoted(message, tmp_path):
    record = load([careless(tmp_path, *CAUSES[message])], environ={}).records[-1]
    assert record.status == "broken"
    assert message in record.cause


@pytest.mark.parametrize("message", CHECKED)
def test_a_plugin_that_breaks_the_contract_is_told_what_is_quoted(message, tmp_path):
    [results] = check_plugin(careless(tmp_path, *CHECKED[message])).values()
    failed = [result.message for result in results if not result.passed]
    assert [text for text in failed if message in text], failed


@pytest.mark.parametrize("message", ASKED)
def test_an_experiment_that_cannot_be_is_told_what_is_quoted(message, tmp_path):
    file = careless(tmp_path, "64", "64")
    with pytest.raises(MmgenError) as caught:
        load([file]).create("audio", {"kind": "audio", **ASKED[message]})
    assert message in str(caught.value)


def test_every_message_of_the_guide_is_tried():
    tables = GUIDE[GUIDE.index("## Common mistakes") :]
    quoted = [row.split(" | ")[-1].strip("| ") for row in tables.splitlines() if row[:2] == "| "]
    quoted = [text.strip("` ") for text in quoted if text.startswith("`")]
    tried = [text.strip("` ") for text in [*CAUSES, *CHECKED, *ASKED]]
    assert quoted == tried
