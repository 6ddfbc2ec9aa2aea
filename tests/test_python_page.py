"""docs/python.md: its code runs, and what it says comes out does."""

import re

from conftest import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs_and_gives_what_it_says(trained, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "glyphs").symlink_to(trained)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    told = 0
    for fence in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE):
        for line in filter(None, fence.splitlines()):
            code, _, result = line.partition("  # → ")
            if result:
                told += 1
                assert str(eval(code, names)) == result, line
            else:
                exec(code, names)
    assert told >= 10


def test_the_page_is_found_from_the_readme():
    assert "docs/python.md" in (ROOT / "README.md").read_text(encoding="utf-8")
