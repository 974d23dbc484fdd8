"""What a user has in a folder of their own, with the package installed from its wheel."""

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
FILES = {
    "mine/model/line.yaml": "name: line\nnet: {_target_: ours.nets.Line, units: 12}\n",
    "mine/augment/dark.yaml": "name: dark\nops: [{ours.ops.Darken: {most: 0.5}}]\n",
    "mine/data/blots.yaml": "defaults: [folder]\nname: blots\nroot: pictures\n",
    "mine/optimizer/nadam.yaml": "_target_: torch.optim.NAdam\nlr: 0.002\n",
    "ours/nets.py": """\
from torch import nn

class Line(nn.Module):
    def __init__(self, num_classes: int, units: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(784, units), nn.ReLU())
        self.head = nn.Linear(units, num_classes)
""",
    "ours/ops.py": """\
from dataclasses import dataclass

from fmnist_pl.data.augment import Op, uniform
from fmnist_pl.options.fields import option

@dataclass
class Darken(Op):
    most: float = option(0.5, "At most this share.", ge=0, le=1)

    def draw(self, n, generator):
        return ((1 - self.most * uniform(n, generator=generator)).float(),)

    def apply(self, images, *drawn):
        return images * drawn[0][:, None, None, None]
""",
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with files of a user's own, images of two classes, and the unpacked wheel."""
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*wheel, "-w", tmp_path / "dist", ROOT], check=True)
    [path] = (tmp_path / "dist").glob("*.whl")
    ZipFile(path).extractall(tmp_path / "installed")
    folder = tmp_path / "folder"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    noise = np.random.default_rng(0)
    for name, rows in (("top", slice(4, 14)), ("bottom", slice(14, 24))):
        place = folder / "pictures" / name
        place.mkdir(parents=True)
        for i in range(70):
            image = np.zeros((28, 28), np.uint8)
            image[2:26, 4:24] = 60
            image[rows, 4:24] = noise.integers(150, 255, (10, 20))
            Image.fromarray(image).save(place / f"{i}.png")
    return folder


def command(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{folder.parent / 'installed'}"}
    return subprocess.run(
        [sys.executable, "-m", f"fmnist_pl.{name}", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_sweep_of_net_operation_and_data_set_of_ones_own_ends_in_its_report(
    outside: Path,
) -> None:
    found = [sys.executable, "-c", "import fmnist_pl; print(fmnist_pl.__file__)"]
    environment = {**os.environ, "PYTHONPATH": f"{outside.parent / 'installed'}"}
    where = subprocess.run(found, cwd=outside, env=environment, capture_output=True, text=True)
    assert "installed" in where.stdout

    words = ["model=line,mlp", "seed=0,1", "augment=dark", "data=blots", "optimizer=nadam"]
    words += ["trainer.max_epochs=6", "embeddings=none", "pictures=false", "hydra.sweep.dir=sweep"]
    done = command(outside, "train", "-m", "--config-dir=mine", *words)
    assert done.returncode == 0, done.stderr
    results = {
        path.parent.name: json.loads(path.read_text()) for path in outside.rglob("result.json")
    }
    assert len(results) == 4
    assert {result["model"] for result in results.values()} == {"line", "mlp"}
    assert all(result["test/acc"] > 0.9 for result in results.values())
    assert "line" in (outside / "sweep" / "report.html").read_text()

    [checkpoint] = (outside / "sweep").glob("line-0*/checkpoints/last.ckpt")
    words = [f"checkpoint={checkpoint}", "data.root=pictures"]
    refused = command(outside, "evaluate", *words)
    assert refused.returncode == 1
    assert "ours.nets.Line" in refused.stderr
    assert "trust_code=true" in refused.stderr
    trusted = command(outside, "evaluate", *words, "trust_code=true")
    assert trusted.returncode == 0, trusted.stderr
    assert "20 test images" in trusted.stdout
    shown = command(
        outside, "predict", f"checkpoint={checkpoint}", "images=pictures/top", "trust_code=true"
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("top") > 100
