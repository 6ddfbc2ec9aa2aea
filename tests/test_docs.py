"""Docs that cannot lie: files, settings, commands and overrides that they name do exist."""

import re
from pathlib import Path

import pytest
from conftest import ROOT
from pydantic import BaseModel

from mmgen import build, settings
from mmgen.command import OWN
from mmgen.distribution import COMMANDS
from mmgen.experiment import Experiment
from mmgen.registry.discovery import installed, words
from mmgen.testing import CHECKS

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\":]+)\"", page.read_text())
    for link in (a or b for a, b in links):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_verbs_exist(mmgen, page):
    known = {*OWN, *words(COMMANDS, installed(None))}
    fences = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    calls = r"^(?:\$ )?mmgen (\w+)"  # not of a plugin that is written on the page
    verbs = [v for fence in fences for v in re.findall(calls, fence, flags=re.MULTILINE)]
    assert set(verbs) <= known
    for verb in set(verbs):
        assert mmgen(verb, "--help")[0] == 0


def test_every_setting_is_documented_where_it_is_declared():
    models = [cls.Settings for cls in build.registry().models.values()]
    sections = [
        value
        for value in [*vars(settings).values(), Experiment, *models]
        if isinstance(value, type) and issubclass(value, settings.Section)
    ]
    assert len(sections) > 12
    for section in sections:
        text = "\n".join(cls.__doc__ or "" for cls in section.__mro__ if cls is not BaseModel)
        for name in section.model_fields:
            assert re.search(rf"^\s+{name}: ", text, flags=re.MULTILINE), (
                f"{section.__name__}.{name} is not in the class's docstring"
            )


def test_every_model_is_documented():
    text = Path(ROOT / "docs" / "models.md").read_text()
    for kind in build.registry().models:
        assert f"`{kind}`" in text


def test_the_modality_of_the_readme_keeps_the_contract(mmgen, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (code,) = (block for block in blocks if "mmgen_modalities" in block)
    (tmp_path / "temperature.py").write_text(code)
    words = ("-p", tmp_path / "temperature.py", "plugins", "check", "temperature")
    code, out, _ = mmgen(*words)
    assert code == 0
    assert f"{len(CHECKS)} conformance checks" in (ROOT / "README.md").read_text()
    assert out.count("ok ") == len(CHECKS)
