"""docs/source-guide.md: its code is written to files, and its commands are run on them."""

import json
import re
import shlex
import tomllib

from conftest import ROOT

from mmgen.distribution import COMMANDS, GROUP, SOURCES
from mmgen.registry.loading import load

GUIDE = (ROOT / "docs" / "source-guide.md").read_text(encoding="utf-8")


def fences(language):
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)


def test_the_code_and_the_commands_of_the_guide_work(mmgen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people = [{"name": f"p{i}", "sex": "mf"[i % 2], "height": 1.5 + i / 97} for i in range(40)]
    (tmp_path / "people.jsonl").write_text("\n".join(map(json.dumps, people)))
    names = ("spirals.py", "lines.py", "typical.py")
    for name, code in zip(names, fences("python"), strict=True):
        assert f"`{name}`" in GUIDE
        (tmp_path / name).write_text(code, encoding="utf-8")
    said = []
    for line in "".join(fences("sh")).splitlines():
        verb, *words = shlex.split(line)
        assert verb == "mmgen"
        code, out, err = mmgen(*words)
        assert code == 0, (line, err)
        said.append(out)
    assert "The arms' names." in said[0]
    assert said[1] == "data/spirals: 500 train, 50 validation, 50 test; modalities point, arm\n"
    assert "Points on 2 spirals, with noise 0.1." in said[2]
    assert said[4] == "data/people: 32 train, 4 validation, 4 test; modalities sex, vector\n"
    assert "Print what a run generates from nothing, on average." in said[5]
    assert re.fullmatch(r"x -?\d+(\.\d+)?, y -?\d+(\.\d+)?\n", said[6]), said[6]
    records = load(names, environ={}).records[-3:]
    assert [(r.status, r.sources, r.commands) for r in records] == [
        ("ok", ("spirals",), ()),
        ("ok", ("lines",), ()),
        ("ok", (), ("typical",)),
    ]


def test_the_groups_of_the_guide_are_those_that_are_read():
    [text] = fences("toml")
    assert [*tomllib.loads(text)["project"]["entry-points"]] == [GROUP, SOURCES, COMMANDS]
