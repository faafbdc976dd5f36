"""Measures a report of many images in Chromium: size, time to open, memory. For docs/report.md.

    python tools/measure_report.py [--images 5000] [--classes 3]

The images are pieces of models/photos with random maps of 7 x 7; nothing is explained.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

# run as a script, Python has put tools/ on the path, not the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from onnx_gradcam.batch.manifest import write_manifest
from onnx_gradcam.batch.parts import ResultFolder
from onnx_gradcam.batch.rows import stored_map, thumbnail
from onnx_gradcam.batch.schema import Row, table_of
from onnx_gradcam.batch.worker import ShardResult
from onnx_gradcam.report import write_report
from onnx_gradcam.runtime.photo import Photo, read_photo
from tools.chromium import chromium, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

PHOTOS = Path(__file__).resolve().parents[1] / "models" / "photos"
SIDE = 192
PIECE = (240, 320)
PER_PART = 1000
LABELS = [f"class of objects {number}" for number in range(200)]


def main() -> None:
    """Write results, report on them, open the page and print what it takes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=3)
    arguments = parser.parse_args()
    program = find_chromium()
    if program is None:
        sys.exit("no Chromium: install chromium or google-chrome")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "results"
        write_results(place, arguments.images, arguments.classes)
        began = time.monotonic()
        summary = write_report(place, limit=arguments.images)
        written = time.monotonic() - began
        print(f"page: {summary.size / 1e6:.1f} MB, written in {written:.1f} s")
        with chromium(program) as browser:
            print(f"Chromium {browser.version}")
            for name, value in measured(browser.new_page(), summary.file).items():
                print(f"{name}: {value}")


def write_results(folder: Path, images: int, classes: int) -> None:
    """Write a folder of results as `run_batch` does."""
    with closing(ResultFolder(folder)) as results:
        for number, start in enumerate(range(0, images, PER_PART)):
            count = min(PER_PART, images - start)
            rows = [row for image in range(start, start + count) for row in _rows(image, classes)]
            results.commit(ShardResult(number, "", table_of(rows), count, 0))
    manifest = {
        "format": 1,
        "model": {"file": "none.onnx"},
        "options": {"method": "gradcam"},
        "sources": {},
        "complete": True,
    }
    write_manifest(folder, manifest)


def _rows(image: int, classes: int) -> Iterator[Row]:
    random = np.random.default_rng(image)
    height, width = PIECE
    for rank in range(classes):
        index = int(random.integers(len(LABELS)))
        row: Row = {
            **{"image": image, "path": f"photos/{image // 100:03d}/{image:06d}.jpg", "rank": rank},
            **{"height": height, "width": width, "class": index, "class_name": LABELS[index]},
            **{"score": float(random.random()), "entropy": float(random.random())},
            **{"peak_x": int(random.integers(width)), "peak_y": int(random.integers(height))},
            **{"box_x": 20, "box_y": 30, "box_width": 100, "box_height": 90, "area": 9000},
            **{"crop_x": 40.0, "crop_y": 0.0, "crop_width": 240.0, "crop_height": 240.0},
            **{"border_peak": bool(random.random() < 0.2)},
            **stored_map(random.random((7, 7), np.float32)),
        }
        if rank == 0:
            row["thumbnail"] = _piece(random)
        yield row


def _piece(random: np.random.Generator) -> bytes:
    photos = _photos()
    photo = photos[int(random.integers(len(photos)))]
    top, left = (
        int(random.integers(whole - part)) for whole, part in zip(photo.shape, PIECE, strict=False)
    )
    return thumbnail(photo[top : top + PIECE[0], left : left + PIECE[1]], SIDE)


@cache
def _photos() -> list[Photo]:
    return [read_photo(path) for path in sorted(PHOTOS.glob("*.jpg"))]


def measured(tab: Page, file: Path) -> dict[str, str]:
    """Return what opening a page and working with it takes, in words."""
    tab.goto(file.as_uri())
    tab.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    tab.wait_for_timeout(500)
    times = tab.evaluate(
        """() => ({
            paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
            shown: performance.getEntriesByName("gallery shown")[0].startTime,
            whole: performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd,
        })"""
    )
    opened = _memory(tab)
    steps = tab.evaluate(SCROLL)
    sort = tab.evaluate(SORT)
    return {
        "first contentful paint": f"{times['paint']:.0f} ms",
        "gallery shown": f"{times['shown']:.0f} ms",
        "all pictures here": f"{times['whole']:.0f} ms",
        "memory of the tab once opened": opened,
        "memory of the tab scrolled through": _memory(tab),
        "median and longest frame of scrolling": f"{steps[0]:.0f}, {steps[1]:.0f} ms",
        "sort by entropy and show": f"{sort:.0f} ms",
    }


SCROLL = """async () => {
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const times = [];
    const height = document.documentElement.scrollHeight;
    for (let at = 0; at < height; at += Math.max(height / 300, 200)) {
        const began = performance.now();
        window.scrollTo(0, at);
        await frame();
        await frame();
        times.push((performance.now() - began) / 2);
    }
    times.sort((a, b) => a - b);
    return [times[times.length >> 1], times[times.length - 1]];
}"""

SORT = """async () => {
    const began = performance.now();
    document.getElementById("sort").value = "entropyDown";
    document.getElementById("controls").dispatchEvent(new Event("change", {bubbles: true}));
    await new Promise((done) => setTimeout(done, 0));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    return performance.now() - began;
}"""


def _memory(tab: Page) -> str:
    """Return the heap of the script and, where it can be read, the memory of the process."""
    session = tab.context.new_cdp_session(tab)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"]
    browser = tab.context.browser
    assert browser is not None
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    sizes = [_private(int(each["id"])) for each in processes if each["type"] == "renderer"]
    return f"{max(sizes) / 1e6:.0f} MB, {heap / 1e6:.0f} MB of it heap of the script"


def _private(process: int) -> int:
    """Return the bytes of memory that a process shares with no other."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    parts = re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", text, re.MULTILINE)
    return 1024 * sum(map(int, parts))


if __name__ == "__main__":
    main()
