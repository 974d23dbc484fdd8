"""The page as a reader sees it. Needs Debian's chromium."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from fmnist_pl.report.summary import Summary, write_report

pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-quic"]

Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, study: Summary) -> Iterator[Opened]:
    """Opens the report; afterwards nothing may have been complained of or asked of the network."""
    complaints: list[str] = []

    def opened(width: int = 1280, report: Path = study.out / "report.html", **options: str) -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("data:", report.as_uri()))
                else complaints.append(request.url)
            ),
        )
        page.goto(report.as_uri(), wait_until="networkidle")
        return page

    yield opened
    for context in browser.contexts:
        context.close()
    assert complaints == []


def test_every_picture_loads(opened: Opened) -> None:
    page = opened()
    widths = page.eval_on_selector_all("img", "images => images.map(i => i.naturalWidth)")
    # Curves, eight matrices, classes, mistakes and map of the best model; then its thumbnails.
    assert len(widths) > 12
    assert min(widths) > 0
    assert page.eval_on_selector_all("img", "images => images.every(image => image.alt)")
    assert page.locator("svg.trace polyline").count() == 40


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_page_is_no_wider_than_the_screen(opened: Opened, width: int) -> None:
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    text = page.locator("p").first.bounding_box()
    assert text
    assert text["width"] > width / 2.5


def test_tables_sort(opened: Opened) -> None:
    page = opened()
    table = page.get_by_role("group", name="Results table")
    button = table.get_by_role("button", name="here").last  # test accuracy

    def column() -> list[float]:
        cells = table.locator("tbody tr td:nth-child(7)").all_inner_texts()
        return [float(cell.split()[0]) for cell in cells]

    unsorted = column()
    button.click()
    assert column() == sorted(unsorted, reverse=True)
    assert button.locator("..").get_attribute("aria-sort") == "descending"
    button.click()
    assert column() == sorted(unsorted)
    table.get_by_role("button", name="Model").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
    assert names[0] == "cnn"
    parameters = page.get_by_role("group", name="Size and time")
    parameters.get_by_role("button", name="Parameters").click()  # numbers with commas
    assert parameters.locator("tbody td:nth-child(2)").first.inner_text() == "222,214"


def test_sorting_leaves_what_is_not_known_at_the_end(opened: Opened) -> None:
    table = opened().get_by_role("group", name="Test accuracy by weights")
    button = table.get_by_role("button", name="fresh batch norm")
    for _ in range(2):
        button.click()
        cells = table.locator("tbody td:nth-child(4)").all_inner_texts()
        assert cells[-4:] == ["-"] * 4
        assert "-" not in cells[:4]


def brightness(page: Page, what: str) -> float:
    """Of a colour of the page's body, 0 to 255."""
    colour = page.evaluate(f"getComputedStyle(document.body).{what}")
    red, green, blue = (int(part) for part in colour.strip("rgb()").split(","))
    return (red + green + blue) / 3


def test_follows_the_readers_colours(opened: Opened) -> None:
    for scheme, sign in (("light", 1), ("dark", -1)):
        page = opened(color_scheme=scheme)
        assert sign * (brightness(page, "backgroundColor") - brightness(page, "color")) > 150


def test_prints(opened: Opened) -> None:
    page = opened(color_scheme="dark")
    folded = page.get_by_text("Two kinds of luck are at work.")
    page.get_by_text("How the verdicts are reached").click()
    assert not folded.is_visible()
    document = page.pdf(format="A4")
    assert folded.is_visible()
    assert document.startswith(b"%PDF")
    assert 5 <= document.count(b"/Type /Page\n") <= 25
    page.emulate_media(media="print")
    assert brightness(page, "backgroundColor") == 255


def test_page_without_runs(opened: Opened, tmp_path: Path) -> None:
    write_report([tmp_path], tmp_path)
    page = opened(390, tmp_path / "report.html")
    assert page.get_by_text("No runs in these folders yet.").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_names_do_nothing(opened: Opened, made_up, tmp_path: Path) -> None:
    name = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    classes = {f"{name}{i}": [i] for i in range(10)}
    for seed in (0, 1):
        made_up.run(
            tmp_path / f"run{seed}", made_up.config("mlp", seed, name=name, classes=classes)
        )
    write_report([tmp_path], tmp_path)
    page = opened(390, tmp_path / "report.html")
    assert page.title() == "Fashion-MNIST: results of the sweep"
    assert page.get_by_text(name).first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
