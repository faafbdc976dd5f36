"""The page in a real Chromium: what people see, do and hear, by value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from onnx_gradcam.report import write_report
from tests.report.browsing import (
    COLUMNS,
    FOCUSED,
    PHONE,
    Opened,
    cards,
    firsts,
    names,
    short,
    wait_for_names,
)
from tests.report.examples import EVIL_LABELS, EVIL_NAME, OPTIONS, write_many, write_results

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

pytestmark = pytest.mark.browser


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
    sizes = tab.evaluate(
        "[...document.querySelectorAll('#gallery img')].map((i) => i.naturalWidth)"
    )
    assert min(sizes) > 10, "the pictures are decoded"


def test_search_class_score_and_reset(tab: Tab, mine: list[dict[str, Any]]) -> None:
    tab.get_by_label("Search in paths").fill("/0003 images")
    tab.get_by_text("1 of 7 images").wait_for()
    wait_for_names(tab, ["0003.png"])
    tab.get_by_label("Search in paths").fill("no such")
    tab.get_by_text("No image matches.").wait_for()
    tab.get_by_role("button", name="Show all images").click()
    tab.get_by_text("7 images", exact=True).wait_for()
    number = mine[1]["class"]
    option = tab.locator("#class option").filter(has_text=mine[1]["class_name"]).first
    value = option.get_attribute("value")
    tab.get_by_label("Class").select_option(value)
    wanted = [row for row in mine if row["class"] == number]
    wait_for_names(tab, [short(row) for row in wanted])
    expected = [pytest.approx(row["score"], rel=6e-3) for row in wanted]
    assert [float(text) for text in tab.locator("#gallery .score").all_inner_texts()] == expected
    tab.get_by_role("button", name="Reset").click()
    tab.get_by_text("7 images", exact=True).wait_for()
    middle = sorted(row["score"] for row in firsts(mine))[3]
    tab.get_by_label("Lowest score").fill(str(middle - 1e-6))
    tab.get_by_text("4 of 7 images").wait_for()
    above = [short(row) for row in firsts(mine) if row["score"] >= middle - 1e-6]
    assert names(tab) == above


ORDERS: dict[str, Any] = {
    "score, highest first": lambda row: -row["score"],
    "score, lowest first": lambda row: row["score"],
    "entropy, widest first": lambda row: -row["entropy"],
    "entropy, narrowest first": lambda row: row["entropy"],
    "peak at the border first": lambda row: not row["border_peak"],
    "order in the batch": lambda row: row["image"],
}


def test_sorting(tab: Tab, mine: list[dict[str, Any]]) -> None:
    seen = set()
    for words, key in ORDERS.items():
        tab.get_by_label("Sort by").select_option(words)
        expected = [short(row) for row in sorted(firsts(mine), key=key)]
        wait_for_names(tab, expected)
        seen.add(tuple(expected))
    assert len(seen) >= 5


def test_sorting_by_drift(tab: Tab) -> None:
    tab.get_by_label("Sort by").select_option("drift, largest first")
    tab.wait_for_function("document.getElementById('sort').value === 'drift'")
    tab.wait_for_timeout(100)
    texts = tab.locator("#gallery .badges").all_inner_texts()
    drifts = [float(text.split("drift")[1].split()[0]) for text in texts if "drift" in text]
    assert len(drifts) >= 5
    assert drifts == sorted(drifts, reverse=True)
    assert drifts[0] > drifts[-1]


def test_kinds(tab: Tab, mine: list[dict[str, Any]]) -> None:
    border = [short(row) for row in firsts(mine) if row["border_peak"]]
    assert border
    tab.get_by_role("radio", name="Peak at the border").check()
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
    cards(tab).first.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(FOCUSED) == "0002.png"
    tab.keyboard.press("ArrowLeft")
    assert tab.evaluate(FOCUSED) == "0001.png"
    tab.keyboard.press("End")
    assert tab.evaluate(FOCUSED) == "0006.png"
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowDown")
    below = int(tab.evaluate(FOCUSED)[:4])
    assert below == min(tab.evaluate(COLUMNS), 6)
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
    tab.wait_for_function(f"{FOCUSED} === '0001.png'")  # the focus is where one was last
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
    scrolled = tab.evaluate(
        """[...document.querySelectorAll("#runs, .scroll")].every(
            (e) => e.tabIndex === 0 && e.getAttribute("aria-label"))"""
    )
    assert scrolled, "what scrolls can be reached by keys, and has a name"


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
    tab.evaluate(
        "() => { try { document.body.innerHTML = '<img src=x>'; } catch (e) { window.kept = 1; } }"
    )
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
    duration = page.tab.evaluate(
        "getComputedStyle(document.querySelector('.card')).transitionDuration"
    )
    assert duration == "0s"
    page.context.close()


def test_a_phone(browser: Browser, file: Path) -> None:
    page = Opened(browser, file, viewport=PHONE, has_touch=True, is_mobile=True)
    tab = page.tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.evaluate(COLUMNS) == 2
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
    assert tab.evaluate(FOCUSED) == "2999.png"
    box = tab.locator(":focus").bounding_box()
    assert box is not None
    assert 0 <= box["y"] <= 800 - box["height"] + 1
    assert tab.evaluate(count) < 100
    tab.evaluate("window.scrollTo(0, 0)")
    tab.wait_for_timeout(100)
    assert tab.evaluate(FOCUSED) == "2999.png", "the focus is not lost by scrolling"
    assert tab.locator("#gallery li").first.get_attribute("aria-posinset") == "1"
    tab.keyboard.press("Home")
    tab.keyboard.press("PageDown")
    assert int(tab.evaluate(FOCUSED)[:4]) > 5
    assert page.complaints == []
    page.context.close()


def test_a_batch_of_failures_alone(browser: Browser, tmp_path: Path) -> None:
    results = write_results(tmp_path, count=0)
    write_report(results)
    page = Opened(browser, results / "report.html")
    assert page.tab.locator("#count").inner_text() == "0 images"
    page.tab.get_by_text("1 image failed").click()
    assert "not an image" in page.tab.locator("#failures td").last.inner_text()
    assert page.complaints == []
    page.context.close()
