"""A run as TensorBoard shows it in a browser. Needs Debian's chromium."""

import csv
import io
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fmnist_pl.options.schema import Config
from fmnist_pl.training.folder import run
from tests.conftest import CLASS_NAMES

pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-quic"]
FLAGS += ["--disable-component-update", "--disable-sync"]
FLAGS += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a GPU
PATIENCE = 60_000  # milliseconds
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, configured: Callable[..., Config]) -> Path:
    """Of the only run of a sweep."""
    folder = tmp_path_factory.mktemp("sweep") / "mlp-0"
    overrides = ("model=mlp", "trainer.max_epochs=2", "trainer.limit_train_batches=300")
    run(configured(*overrides, "embeddings=test"), folder)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={folder.parent}"]
    command += ["--host=127.0.0.1", "--port=0", "--load_fast=false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        announced = next(line for line in process.stderr if " at http" in line)
        yield announced.partition(" at ")[2].split()[0]
        process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Callable[[str], Page]]:
    def opened(tab: str) -> Page:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.goto(f"{address}#{tab}")
        return page

    yield opened
    for context in browser.contexts:
        context.close()


def open_categories(page: Page) -> None:
    headings = page.locator("tf-category-paginated-view button.heading")
    headings.first.wait_for()
    for heading in headings.all():
        if heading.get_attribute("open-button") is None:
            heading.click()


@pytest.mark.parametrize("tag", ["train/acc", "val/loss"])
def test_scalars(opened: Callable[[str], Page], folder: Path, tag: str) -> None:
    with (folder / "metrics.csv").open() as file:
        *_, last = csv.DictReader(file)
    page = opened("scalars")
    open_categories(page)
    chart = page.locator("tf-scalar-card", has_text=f"tag: {tag}").locator("vz-line-chart2")
    chart.scroll_into_view_if_needed()
    chart.locator(".main path").first.wait_for(state="attached")
    box = chart.bounding_box()
    assert box
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"])
    row = page.locator("table:visible tbody tr").first
    _, name, _, value, step, *_ = row.locator("td").all_inner_texts()
    assert (name, step) == ("mlp-0", last["epoch"])
    assert float(value) == pytest.approx(float(last[tag]), rel=1e-3)


def test_images(opened: Callable[[str], Page], folder: Path) -> None:
    names = sorted(path.stem for path in (folder / "figures").glob("*.png"))
    assert len(names) >= 6
    page = opened("images")
    open_categories(page)
    loaders = page.locator("tf-image-loader")
    expect(loaders).to_have_count(len(names))
    shown = loaders.evaluate_all("loaders => loaders.map(loader => [loader.tag, loader.run])")
    assert sorted(shown) == [[name, "mlp-0"] for name in names]
    for loader in loaders.all():
        loader.scroll_into_view_if_needed()
        expect(loader.locator("img")).to_have_js_property("complete", True)
        assert loader.locator("img").evaluate("img => img.naturalWidth") > 300


def test_hparams(opened: Callable[[str], Page], folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    page = opened("hparams")
    cells = page.locator("vaadin-grid-cell-content")
    cells.get_by_text("mlp-0", exact=True).wait_for()
    for name in ("test/acc", "test/loss", "val/acc"):
        expect(cells.get_by_text(name, exact=True)).to_have_count(1)
        expect(cells.get_by_text(f"{result[name]:#.5g}", exact=True)).to_have_count(1)


def test_projector(opened: Callable[[str], Page], folder: Path) -> None:
    page = opened("projector").frame_locator("iframe").frame_locator("iframe")
    expect(page.locator("span.numDataPoints")).to_have_text("10000")
    expect(page.locator("span.dim")).to_have_text("128")

    page.locator("vz-projector-data-panel paper-dropdown-menu").first.click()
    page.locator("paper-item:visible").filter(has_text="test-tsne").click()
    expect(page.locator("span.dim")).to_have_text("3")
    expect(page.locator("span.numDataPoints")).to_have_text("10000")

    page.locator("#colorby").click()
    page.locator("#colorby paper-item").filter(has_text="Name").click()
    legend = page.locator("vz-projector-legend .item")
    expect(legend).to_have_count(10)
    lines = {tuple(text.split("\n")) for text in legend.all_inner_texts()}
    assert lines == {(name, "1000") for name in CLASS_NAMES}

    scene = Image.open(io.BytesIO(page.locator("#scatter canvas").first.screenshot()))
    pixels = np.asarray(scene.convert("RGB")).reshape(-1, 3)
    colours = Counter(map(tuple, pixels[np.ptp(pixels, axis=1) > 30]))
    assert sum(count > 500 for count in colours.values()) >= 8  # grounds of the thumbnails
    assert (pixels < 60).all(1).sum() > 5000  # the pieces of clothing on them

    page.locator("vz-projector-inspector-panel input").first.fill("Trouser")
    expect(page.get_by_text("1000 matches.")).to_be_visible()
    page.locator("vz-projector-inspector-panel .list a").first.click()
    with np.load(folder / "embeddings" / "test.npz") as arrays:
        first = int((arrays["labels"] == 1).argmax())
        prediction = CLASS_NAMES[arrays["predictions"][first]]
    expect(page.locator("vz-projector-metadata-card")).to_contain_text(
        re.compile(rf"Class\s*1\s*Name\s*Trouser\s*Prediction\s*{prediction}")
    )
    thumbnail = page.locator(".nn-list .sprite-image").first
    assert "sprite_image?run=mlp-0&name=test-tsne" in str(thumbnail.get_attribute("style"))
