"""The benchmark of GPUs, where there is none: all that a CPU can run, and what fails alone."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NO_CPU = {"16_mixed", "graphs", "rounding_tf32", "step_cnn_bn_eager", "step_mlp_eager", "step_tf32"}

pytestmark = pytest.mark.slow


def gpu(folder: Path, *words: str, benchmarks: Path = ROOT / "benchmarks") -> Any:
    """What the dry run says, its exit code, and what it has written."""
    arguments = [sys.executable, str(benchmarks / "gpu.py"), "device=cpu", "dry_run=true", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    path = folder / "gpu.json"
    return done, json.loads(path.read_text()) if path.exists() else None


def test_a_dry_run_reaches_every_item(tmp_path: Path) -> None:
    done, written = gpu(tmp_path, "minutes=25", "patience=600")
    assert done.returncode == 0, done.stdout + done.stderr
    items = written["items"]
    states = {name: entry["state"] for name, entry in items.items()}
    assert {name for name, state in states.items() if state == "needs a GPU"} == NO_CPU
    rest = {name: entry for name, entry in items.items() if name not in NO_CPU}
    assert {entry["state"] for entry in rest.values()} == {"passed", "measured"}
    assert {"operators", "repeat_deterministic", "resume", "step_mlp", "sweep"} <= rest.keys()
    assert written["machine"]["versions"]["torch"]
    table = done.stdout.splitlines()
    for name, entry in items.items():
        start = next(i for i, line in enumerate(table) if line.startswith(f"{name} "))
        assert entry["state"] in table[start]
        assert bool(entry["figures"]) == (name in rest)
        for i, figure in enumerate(entry["figures"], start + 1):
            assert figure in table[i]


BROKEN = {  # a function, and what it does in place of its work
    "rounding": ['yield Figure("before", 1.0)', 'raise ValueError("broken on purpose")'],
    "one_step": ['yield Figure("too large", 2.0, "", 1.0)', 'yield Figure("after", 0.5)', "return"],
    "many_steps": ['yield Figure("not a number", float("nan"), "", 1.0)', "return"],
    "repeat": ["import os", "os.abort()", "yield"],
    "agreement": ["command('dataset', 'nonsense=1')", "yield"],
    "mixed": ["time.sleep(3600)", "yield"],
}


def test_what_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    benchmarks = tmp_path / "benchmarks"
    shutil.copytree(ROOT / "benchmarks", benchmarks, ignore=shutil.ignore_patterns("__pycache__"))
    checks = (benchmarks / "gpu_checks.py").read_text()
    for name, lines in BROKEN.items():
        body = "".join(f"    {line}\n" for line in lines)
        start = checks.index("\n", checks.index(f"\ndef {name}(") + 1) + 1
        checks = checks[:start] + body + checks[start:]
    (benchmarks / "gpu_checks.py").write_text(checks)

    names = "device,rounding,operators,one_step,many_steps,repeat,agreement,bf16_mixed,augmentation"
    done, written = gpu(tmp_path, f"only={names}", "patience=40", benchmarks=benchmarks)
    assert done.returncode == 1
    items = written["items"]
    assert list(items) == names.split(",")
    errors = {name: entry["error"] for name, entry in items.items() if entry["state"] == "failed"}
    assert errors.pop("agreement").startswith("RuntimeError: dataset nonsense=1: error: nonsense=1")
    assert errors == {
        "rounding": "ValueError: broken on purpose",
        "one_step": "beyond the limit: too large",
        "many_steps": "beyond the limit: not a number",
        "repeat": "ended with exit code -6",
        "bf16_mixed": "out of time",
    }
    assert items["rounding"]["figures"]["before"]["value"] == 1
    assert "broken on purpose" in items["rounding"]["traceback"]
    assert items["one_step"]["figures"].keys() == {"too large", "after"}
    assert {items[name]["state"] for name in ("device", "operators")} == {"passed"}
    assert items["augmentation"]["state"] == "measured"
    for error in errors.values():
        assert error in done.stdout


def test_what_there_is_no_time_for_is_skipped(tmp_path: Path) -> None:
    done, written = gpu(tmp_path, "only=operators,step_mlp", "minutes=0.0001")
    assert done.returncode == 1
    assert {entry["state"] for entry in written["items"].values()} == {"skipped"}
    assert done.stdout.count("no time was left") == 2


def test_an_interrupted_one_prints_what_it_has(tmp_path: Path) -> None:
    words = ["device=cpu", "only=device,one_step,step_mlp", "minutes=25", "patience=600"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        path = tmp_path / "gpu.json"
        while (
            not path.exists()
            or json.loads(path.read_text())["items"]["one_step"]["state"] != "running"
        ):
            assert process.poll() is None
            time.sleep(0.1)
        process.terminate()
        table, _ = process.communicate()
    assert process.returncode == 1
    states = {name: one["state"] for name, one in json.loads(path.read_text())["items"].items()}
    assert states == {"device": "passed", "one_step": "failed", "step_mlp": "skipped"}
    assert "one_step              failed out of time" in table


def test_mistakes_are_told(tmp_path: Path) -> None:
    done, written = gpu(tmp_path, "only=operators,nonsense")
    assert done.returncode == 1
    assert "nonsense is not one of device, resume, " in done.stderr
    assert written is None
