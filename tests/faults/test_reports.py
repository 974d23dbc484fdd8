"""Odd names of classes, from the command line to the page; folders with odd files in them.

Elsewhere: runs in every state, of other versions, and sweeps of none or one (`tests/report/`);
names in the projector's table (`test_projector.py`).
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.faults.commands import Command
from tests.faults.conftest import MLP

ODD = {
    "<script>alert(1)</script>": [0, 1, 2, 3],
    "a\ttab, a \"quote\" and a 'quote'": [4, 5, 6],
    r"$\frac{ & \n ü ß " + "x" * 90: [7, 8, 9],
}


def test_odd_names_of_classes_go_all_the_way(tmp_path: Path) -> None:
    own = tmp_path / "conf" / "experiment" / "odd.yaml"
    own.parent.mkdir(parents=True)
    options = {"classes": ODD, "name": "<b>run</b>"}
    content = json.dumps(options, ensure_ascii=False)  # which is YAML, too
    own.write_text(f"# @package _global_\n{content}\n")
    overrides = ("--config-dir=conf", *MLP, "experiment=odd", "trainer.fast_dev_run=true")
    Command(
        "train", *overrides, "embeddings=test", "pictures=true", "hydra.run.dir=run", cwd=tmp_path
    ).succeeds()
    folder = tmp_path / "run"
    assert list(json.loads((folder / "result.json").read_text())["classes"]) == list(ODD)
    table = (folder / "embeddings" / "test.tsv").read_text().splitlines()
    assert len(table) == 10_001
    assert {line.count("\t") for line in table} == {2}
    assert len(list((folder / "figures").glob("*.png"))) == 6

    Command("report", "run", cwd=tmp_path).succeeds()
    page = (folder / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>run</b>" not in page

    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    for name, *arguments in (("evaluate", "folder=out"), ("predict", "images=test:0-20")):
        command = Command(name, checkpoint, *arguments, cwd=tmp_path)
        command.succeeds()
        assert "\t" not in command.out


@pytest.mark.parametrize("runs", [0, 1])
def test_a_folder_of_odd_files_is_reported(runs: int, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    if runs:
        shutil.copytree(undisturbed, folder / "mlp-0")
    (folder / "config.yaml.txt").write_text("mine")
    (folder / "round").symlink_to(folder)
    for name in ("folders", "binary", "huge"):
        (folder / name).mkdir()
    (folder / "folders" / "config.yaml").mkdir()
    (folder / "binary" / "config.yaml").write_bytes(bytes(range(256)))
    (folder / "huge" / "config.yaml").write_text("[" * 100_000)
    before = {path.name for path in folder.iterdir()}
    command = Command("report", "sweep", cwd=tmp_path)
    command.succeeds()
    for said in ("foreign: folders: holds no run", "unreadable: binary", "unreadable: huge"):
        assert said in command.out
    made = {path.name for path in folder.iterdir()} - before
    assert made == {"summary.csv", "summary.md", "report.html"}
    assert ("mlp    1/1" in command.out) == bool(runs)
