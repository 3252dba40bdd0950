"""The notebook of the documentation runs from beginning to end."""

import os
from pathlib import Path

import pytest

nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")  # of the extra `docs`
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "600")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "quickstart.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    runs = [cell for cell in notebook.cells if cell.cell_type == "code" and "train.main(" in cell.source]
    assert [cell.outputs[-1]["data"]["text/plain"] for cell in runs] == ["0", "0", "0"]  # exit codes
    assert not [cell.source for cell in runs if any("error:" in output.get("text", "") for output in cell.outputs)]
