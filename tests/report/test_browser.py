"""The page in a real Chromium: what people see and hear, by value."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnx_gradcam.batch.rows import restored_map
from onnx_gradcam.cam.postprocess import heat_maps
from onnx_gradcam.render import overlay
from onnx_gradcam.report import write_report
from tests.batch.examples import rows
from tests.report.examples import EVIL_LABELS, EVIL_NAME, OPTIONS, write_many, write_results
from tools.chromium import VARIABLE, chromium, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator
    from playwright.sync_api import Page as Tab

pytestmark = pytest.mark.browser

WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None and VARIABLE in os.environ:
        pytest.fail(f"{VARIABLE} names no program: {os.environ[VARIABLE]}")
    if program is None:
        pytest.skip("no Chromium: install chromium or google-chrome")
    if VARIABLE not in os.environ:
        pytest.importorskip("playwright.sync_api", reason="no Playwright to drive Chromium with")
    with chromium(program) as started:
        yield started


@pytest.fixture(scope="module")
def file(results: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "report.html"
    write_report(results, place, [other])
    return place


class Opened:
    """A page in a tab, and all that it asked for or complained of."""

    def __init__(self, browser: Browser, file: Path, **how: Any) -> None:
        how.setdefault("viewport", WIDE)
        self.context = browser.new_context(**how)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(10_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(file.as_uri())


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Opened]:
    page = Opened(browser, file)
    yield page
    assert page.complaints == []
    page.context.close()


@pytest.fixture
def tab(opened: Opened) -> Tab:
    return opened.tab


@pytest.fixture(scope="module")
def mine(results: Path) -> list[dict[str, Any]]:
    return [row for row in rows(results) if row["error"] is None]


def firsts(mine: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in mine if row["rank"] == 0]


def names(tab: Tab) -> list[str]:
    return tab.locator("#gallery .path").all_inner_texts()


def short(row: dict[str, Any]) -> str:
    return Path(row["path"]).name


def cards(tab: Tab) -> Locator:
    return tab.locator("#gallery button.card")


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("size", [(7, 7), (96, 72), (5, 31)])
def test_heat_maps_are_those_of_python(
    tab: Tab, rectified: bool, size: tuple[int, int]
) -> None:
    random = np.random.default_rng(5)
    raw = np.stack([random.normal(0, 3, (7, 7)), np.full((7, 7), -1.0), 1e-6 * random.random((7, 7))])
    raw = raw.astype(np.float32)
    raw[0, 2, 3] = np.nan
    expected = heat_maps(raw, size, rectify=rectified)
    assert expected[0].max() > 0.99
    for one, heat in zip(raw, expected, strict=True):
        values = [None if np.isnan(value) else float(value) for value in one.ravel()]
        found = tab.evaluate(
            """([values, height, width, rectified]) => Array.from(heatMap(
                {height: 7, width: 7, values: values.map((v) => v === null ? NaN : v)},
                height, width, rectified))""",
            [values, *size, rectified],
        )
        np.testing.assert_allclose(np.reshape(found, size), heat, atol=2e-5)


def test_half_precision_numbers(tab: Tab) -> None:
    bits = [0, 1, 0x3FF, 0x400, 0x3C00, 0xBC00, 0x7BFF, 0x3555, 0x8001]
    found = tab.evaluate("(bits) => bits.map(float16)", bits)
    assert found == np.array(bits, np.uint16).view(np.float16).astype(float).tolist()
    assert tab.evaluate("Number.isNaN(float16(0x7e00)) && float16(0xfc00) === -Infinity")


def test_colours_are_those_of_overlays(tab: Tab) -> None:
    heat = np.linspace(0, 1, 97, dtype=np.float32)
    pixels = tab.evaluate(
        """(heat) => { const pixels = new Uint8ClampedArray(4 * heat.length);
            paint(pixels, heat, JSON.parse(textOf("facts")).colors); return Array.from(pixels); }""",
        heat.tolist(),
    )
    rgba = np.reshape(pixels, (97, 4)).astype(np.float64)
    photo = np.full((1, 97, 3), 90, np.uint8)
    opacity = 0.65 * rgba[:, 3:] / 255
    found = photo[0] * (1 - opacity) + rgba[:, :3] * opacity
    expected = overlay(photo, heat[None])[0].astype(np.float64)
    np.testing.assert_allclose(found, expected, atol=1.5)
    assert np.abs(expected - 90).max() > 60


def test_a_picture_shows_the_map_of_its_row(tab: Tab, mine: list[dict[str, Any]]) -> None:
    """The hottest pixel of the drawn canvas lies where the table says the peak is."""
    for place, row in enumerate(firsts(mine)):
        if row["note"]:
            continue
        found = tab.evaluate(
            """(place) => { const canvas = document.querySelectorAll("#gallery canvas")[place];
                const {width, height} = canvas;
                const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
                return [width, height, Array.from(data)]; }""",
            place,
        )
        width, height, data = found
        assert max(width, height) == 96
        raw = restored_map(row)
        assert raw is not None
        heat = heat_maps(raw[None], (height, width))[0]
        rise = np.clip(heat / 0.6, 0, 1)
        expected = np.rint(255 * rise * rise * (3 - 2 * rise))
        alpha = np.reshape(data, (height, width, 4))[..., 3]
        assert np.abs(alpha - expected).max() <= 1
        assert alpha.max() == 255


def test_nothing_is_asked_for(opened: Opened) -> None:
    cards(opened.tab).first.click()
    opened.tab.locator("#detail img").first.wait_for()
    others = [url for url in opened.requests if not url.startswith("data:")]
    assert others == [opened.tab.url]


def test_the_cards(tab: Tab, mine: list[dict[str, Any]]) -> None:
    assert tab.locator("#count").inner_text() == "7 images"
    assert names(tab) == [short(row) for row in firsts(mine)]
    row = firsts(mine)[0]
    label = cards(tab).first.get_by_role("img").get_attribute("alt")
    assert label is not None
    assert label.startswith(f"heat map of {row['class_name']}, score ")
    assert float(label.split("score ")[1].split(",")[0]) == pytest.approx(row["score"], rel=6e-3)
    assert label.endswith(f"peak at column {row['peak_x']}, row {row['peak_y']}")
    sizes = tab.evaluate("[...document.querySelectorAll('#gallery img')].map((i) => i.naturalWidth)")
    assert min(sizes) > 10, "the pictures are decoded"


def test_search_class_score_and_reset(tab: Tab, mine: list[dict[str, Any]]) -> None:
    tab.get_by_label("Search in paths").fill("000 3")
    tab.get_by_text("1 of 7 images").wait_for()
    assert names(tab) == ["0003.png"]
    tab.get_by_label("Search in paths").fill("no such")
    tab.get_by_text("No image matches.").wait_for()
    tab.get_by_role("button", name="Show all images").click()
    tab.get_by_text("7 images", exact=True).wait_for()
    number = mine[1]["class"]
    option = tab.locator("#class option").filter(has_text=mine[1]["class_name"]).first
    value = option.get_attribute("value")
    tab.get_by_label("Class").select_option(value)
    wanted = [row for row in mine if row["class"] == number]
    tab.wait_for_function(f"document.querySelectorAll('#gallery .card').length === {len(wanted)}")
    assert names(tab) == [short(row) for row in wanted]
    expected = [pytest.approx(row["score"], rel=6e-3) for row in wanted]
    assert [float(text) for text in tab.locator("#gallery .score").all_inner_texts()] == expected
    tab.get_by_role("button", name="Reset").click()
    tab.get_by_text("7 images", exact=True).wait_for()
    middle = sorted(row["score"] for row in firsts(mine))[3]
    tab.get_by_label("Lowest score").fill(str(middle - 1e-6))
    tab.get_by_text("4 of 7 images").wait_for()
    above = [short(row) for row in firsts(mine) if row["score"] >= middle - 1e-6]
    assert names(tab) == above


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("score, highest first", lambda row: -row["score"]),
        ("score, lowest first", lambda row: row["score"]),
        ("entropy, widest first", lambda row: -row["entropy"]),
        ("entropy, narrowest first", lambda row: row["entropy"]),
        ("peak at the border first", lambda row: not row["border_peak"]),
        ("order in the batch", lambda row: row["image"]),
    ],
)
def test_sorting(tab: Tab, mine: list[dict[str, Any]], words: str, key: Any) -> None:
    tab.get_by_label("Sort by").select_option("score, lowest first")
    tab.get_by_label("Sort by").select_option(words)
    expected = [short(row) for row in sorted(firsts(mine), key=key)]
    tab.wait_for_timeout(50)
    assert names(tab) == expected


def test_sorting_by_drift(tab: Tab) -> None:
    tab.get_by_label("Sort by").select_option("drift, largest first")
    tab.wait_for_timeout(50)
    texts = tab.locator("#gallery .badges").all_inner_texts()
    drifts = [float(text.split("drift")[1].split()[0]) for text in texts if "drift" in text]
    assert len(drifts) >= 5
    assert drifts == sorted(drifts, reverse=True)
    assert drifts[0] > drifts[-1]


def test_kinds(tab: Tab, mine: list[dict[str, Any]]) -> None:
    border = [short(row) for row in firsts(mine) if row["border_peak"]]
    assert border
    tab.locator("#kinds").get_by_text("Peak at the border").click()
    tab.get_by_text(f"{len(border)} of 7 images").wait_for()
    assert names(tab) == border


def test_one_slider_for_all(tab: Tab) -> None:
    slider = tab.locator("#controls .opacity-slider")
    assert slider.input_value() == "65"
    slider.fill("20")
    style = "[...document.querySelectorAll('canvas.heat')].map((c) => getComputedStyle(c).opacity)"
    assert set(tab.evaluate(style)) == {"0.2"}
    cards(tab).first.click()
    tab.locator("#detail .opacity-slider").fill("90")
    assert set(tab.evaluate(style)) == {"0.9"}
    assert slider.input_value() == "90"


def test_keys(tab: Tab) -> None:
    focused = "document.activeElement.querySelector('.path')?.textContent"
    cards(tab).first.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(focused) == "0002.png"
    tab.keyboard.press("ArrowLeft")
    assert tab.evaluate(focused) == "0001.png"
    tab.keyboard.press("End")
    assert tab.evaluate(focused) == "0006.png"
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowDown")
    below = int(tab.evaluate(focused)[:4])
    assert below == tab.evaluate(
        "Math.min(6, new Set([...document.querySelectorAll('.item')].map((i) => i.style.transform.split(',')[0])).size)"
    )
    width = tab.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert width == "3px", "the focus can be seen"
    tab.keyboard.press("Home")
    tab.keyboard.press("Enter")
    dialog = tab.get_by_role("dialog")
    dialog.wait_for()
    assert dialog.get_by_role("heading", level=2).inner_text().endswith("0000.png")
    tab.keyboard.press("ArrowRight")
    assert dialog.get_by_role("heading", level=2).inner_text().endswith("0001.png")
    tab.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert tab.evaluate(focused) == "0001.png", "the focus is where one was last"
    assert tab.evaluate("document.querySelectorAll('.card[tabindex=\"0\"]').length") == 1


def test_one_image_in_large(tab: Tab, mine: list[dict[str, Any]]) -> None:
    cards(tab).nth(2).click()
    dialog = tab.get_by_role("dialog")
    sections = dialog.locator("section")
    assert sections.count() == 2
    assert [sections.nth(i).locator("figure").count() for i in range(2)] == [3, 2]
    assert dialog.locator("h3").all_inner_texts() == [
        "results gradcam · model.cam.onnx",
        "eigen eigencam · model.cam.onnx",
    ]
    wanted = [row for row in mine if short(row) == "0002.png"]
    figures = sections.first.locator("figure")
    assert figures.locator("strong").all_inner_texts() == [row["class_name"] for row in wanted]
    row = wanted[0]
    text = figures.first.inner_text()
    assert f"column {row['peak_x']}, row {row['peak_y']}" in text
    assert f"{row['box_width']} × {row['box_height']} at {row['box_x']}, {row['box_y']}" in text
    assert "Drift from eigen" in text
    picture = figures.first.locator(".picture").bounding_box()
    box = figures.first.locator(".box").bounding_box()
    heat = figures.first.locator("canvas").bounding_box()
    assert picture is not None
    assert box is not None
    assert heat is not None
    scale = picture["width"] / row["width"]
    assert box["x"] - picture["x"] == pytest.approx(row["box_x"] * scale, abs=0.6)
    assert box["width"] == pytest.approx(row["box_width"] * scale, abs=0.6)
    assert heat["x"] - picture["x"] == pytest.approx(row["crop_x"] * scale, abs=0.6)
    assert heat["height"] == pytest.approx(row["crop_height"] * scale, abs=0.6)
    dialog.get_by_label("Peak and box").uncheck()
    assert not figures.first.locator(".box").is_visible()
    dialog.get_by_role("button", name="Next image").click()
    assert dialog.locator("#place").inner_text() == "4 of 7"


def test_failures_and_the_card(tab: Tab) -> None:
    tab.get_by_text("1 image failed").click()
    cells = tab.locator("#failures td").all_inner_texts()
    assert cells[0].endswith("broken.png")
    assert "not an image" in cells[1]
    tab.get_by_text("About these results").click()
    card = tab.locator("#cards").inner_text()
    for word in ("model.cam.onnx", "reverse 1", "SHA-256 before the export", "eigencam"):
        assert word in card


def test_landmarks_and_names(tab: Tab) -> None:
    for role, count in (("banner", 1), ("search", 1), ("main", 1), ("contentinfo", 1)):
        assert tab.get_by_role(role).count() == count, role  # type: ignore[arg-type]
    assert tab.get_by_role("list", name="Images").get_by_role("listitem").count() == 7
    first = tab.locator("#gallery li").first
    assert (first.get_attribute("aria-posinset"), first.get_attribute("aria-setsize")) == ("1", "7")
    unnamed = tab.evaluate(
        """[...document.querySelectorAll("input, select")].filter(
            (e) => !e.labels.length && !e.getAttribute("aria-label")).length"""
    )
    assert unnamed == 0
    assert tab.locator("#count").get_attribute("role") == "status"


def test_nothing_gets_out_of_its_text(browser: Browser, tmp_path: Path) -> None:
    results = write_results(tmp_path, OPTIONS, count=2, labels=EVIL_LABELS, evil=True)
    write_report(results, tmp_path / "page.html", [results])
    page = Opened(browser, tmp_path / "page.html")
    tab = page.tab
    cards(tab).first.click()
    tab.get_by_role("button", name="Close").click()
    tab.get_by_text("1 image failed").click()
    tab.get_by_text("About these results").click()
    assert tab.evaluate("window.hacked") is None
    assert page.complaints == []
    assert EVIL_NAME in names(tab)
    shown = {text.rsplit(" (", 1)[0] for text in tab.locator("#class option").all_inner_texts()}
    assert shown & set(EVIL_LABELS)
    assert tab.locator("#detail svg, body > img, #cards img").count() == 0
    # what a page could be made to add all the same is stopped by its policy
    tab.evaluate("() => { try { document.body.innerHTML = '<img src=x>'; } catch (e) { window.kept = 1; } }")
    assert tab.evaluate("window.kept") == 1
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system(browser: Browser, file: Path, scheme: Any) -> None:
    page = Opened(browser, file, color_scheme=scheme)
    channel = page.tab.evaluate(
        "Number(getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/)[0])"
    )
    assert (channel > 200) == (scheme == "light")
    assert (channel < 50) == (scheme == "dark")
    page.context.close()


def test_less_motion_where_it_is_wished(browser: Browser, file: Path) -> None:
    page = Opened(browser, file, reduced_motion="reduce")
    duration = page.tab.evaluate("getComputedStyle(document.querySelector('.card')).transitionDuration")
    assert duration == "0s"
    page.context.close()


def test_a_phone(browser: Browser, file: Path) -> None:
    page = Opened(browser, file, viewport=PHONE, has_touch=True, is_mobile=True)
    tab = page.tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    columns = "new Set([...document.querySelectorAll('.item')].map((i) => i.style.transform.split(',')[0])).size"
    assert tab.evaluate(columns) == 2
    assert not tab.get_by_label("Search in paths").is_visible()
    tab.get_by_text("Search, filter, sort").tap()
    assert tab.get_by_label("Search in paths").is_visible()
    cards(tab).first.tap()
    tab.get_by_role("dialog").wait_for()
    assert tab.evaluate("document.getElementById('runs').scrollWidth") <= 360
    assert page.complaints == []
    page.context.close()


def test_thousands_of_images_take_few_elements(browser: Browser, tmp_path: Path) -> None:
    write_report(write_many(tmp_path / "many", 3000), tmp_path / "page.html")
    page = Opened(browser, tmp_path / "page.html")
    tab = page.tab
    tab.get_by_text("3,000 images", exact=True).wait_for()
    count = "document.querySelectorAll('.card').length"
    assert 20 < tab.evaluate(count) < 100
    cards(tab).first.focus()
    tab.keyboard.press("End")
    focused = "document.activeElement.querySelector('.path')?.textContent"
    assert tab.evaluate(focused) == "2999.png"
    box = tab.locator(":focus").bounding_box()
    assert box is not None
    assert 0 <= box["y"] <= 800 - box["height"] + 1
    assert tab.evaluate(count) < 100
    tab.evaluate("window.scrollTo(0, 0)")
    tab.wait_for_timeout(100)
    assert tab.evaluate(focused) == "2999.png", "the focus is not lost by scrolling"
    assert tab.locator("#gallery li").first.get_attribute("aria-posinset") == "1"
    tab.keyboard.press("Home")
    tab.keyboard.press("PageDown")
    assert int(tab.evaluate(focused)[:4]) > 5
    assert page.complaints == []
    page.context.close()
