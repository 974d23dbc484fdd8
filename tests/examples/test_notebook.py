"""The notebook runs from its first cell to its last, and every cell shows what it is there for."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "study.ipynb"


def shown(cell: Any) -> set[str]:
    """The kinds of output of a cell, as `image/png`; of what it prints, `stdout` or `stderr`."""
    kinds = [one.get("data", one.get("name", one.output_type)) for one in cell.outputs]
    return {name for kind in kinds for name in ([kind] if isinstance(kind, str) else kind)}


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter
def test_it_runs(tmp_path: Path) -> None:
    notebook: Any = nbformat.read(NOTEBOOK, 4)
    stored = list(map(shown, code(notebook)))
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": tmp_path}}).execute()
    # Bars of what takes more than a second come and go with the speed of the machine.
    for now, then in zip(map(shown, code(notebook)), stored, strict=True):
        assert then <= now <= then | {"stdout"}
    # Pictures of images and augmentations; curves, confusions, mistakes, t-SNE.
    assert [sum("image/png" in kinds for kinds in stored), "error" in set().union(*stored)] == [
        6,
        0,
    ]
    [training, *_] = [cell for cell in code(notebook) if "fmnist_pl.train(" in cell.source]
    printed = "".join(one.get("text", "") for one in training.outputs)
    assert "epoch 3/3" in printed
    assert "batch/s" in printed  # a bar
    assert (tmp_path / "runs" / "notebook" / "augmentation" / "report.html").exists()


def test_its_outputs_are_of_one_run_in_order() -> None:
    counts = [cell.execution_count for cell in code(nbformat.read(NOTEBOOK, 4))]
    assert counts == list(range(1, len(counts) + 1))
