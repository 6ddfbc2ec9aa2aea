"""docs/tutorial.ipynb: its cells run, in under two minutes."""

import re
import time

import pytest
from conftest import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_the_tutorial_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    started = time.perf_counter()
    where = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(notebook, timeout=120, resources=where).execute()
    assert time.perf_counter() - started < 120
    outputs = [output for cell in done.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    told = "".join(output.get("text", "") for output in outputs)
    (score,) = re.findall(r"^score ([\d.]+)$", told, flags=re.MULTILINE)
    assert float(score) > 2  # the odd row is odd
    assert re.search(r"^square [\d.]+ ", told, flags=re.MULTILINE)  # and the heavy one a square
