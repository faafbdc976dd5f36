"""Draws reports: docs/pictures/report.jpg (images) and docs/pictures/report-image.jpg (one image).

    python tools/report_pictures.py

Needs models/efficientnet_lite0.onnx, which ``python tools/make_models.py`` builds, the extra
[batch], Playwright and a Chromium. The images are the drawings of models/tiny_shapes and the photos
of models/photos.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# run as a script, Python has put tools/ on the path, not the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx_gradcam
from onnx_gradcam.batch import BatchOptions, run_batch
from onnx_gradcam.batch.engine import LocalEngine
from onnx_gradcam.batch.sources import Sources
from onnx_gradcam.pipeline import Division
from onnx_gradcam.report import write_report
from tools.chromium import chromium, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = REPOSITORY / "models"
PICTURES = REPOSITORY / "docs" / "pictures"
WINDOW: Any = {"width": 1180, "height": 640}
QUALITY = 82


def main() -> None:
    """Export, explain, report, and take pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=PICTURES)
    arguments = parser.parse_args()
    program = find_chromium()
    if program is None:
        sys.exit("no Chromium: install chromium or google-chrome")
    os.chdir(REPOSITORY)  # paths in the pictures are those of the repository
    with tempfile.TemporaryDirectory() as folder, chromium(program) as browser:
        for name, scheme, make, act in SHOTS:
            context = browser.new_context(viewport=WINDOW, color_scheme=scheme)
            tab = context.new_page()
            tab.goto(make(Path(folder)).as_uri())
            act(tab)
            tab.wait_for_timeout(300)
            picture = arguments.output / name
            how: Any = {"type": "jpeg", "quality": QUALITY} if picture.suffix == ".jpg" else {}
            tab.screenshot(path=picture, **how)
            print(picture)
            context.close()


def shapes(folder: Path) -> Path:
    """Return a report on drawings of shapes."""
    recipe = MODELS / "tiny_shapes" / "preprocessing.json"
    exported = _export("tiny_shapes", folder, recipe, MODELS / "tiny_shapes" / "labels.txt")
    results = folder / "shapes"
    _explain(exported, "models/tiny_shapes", results, BatchOptions())
    return write_report(results).file


def photos(folder: Path) -> Path:
    """Return a report on photos by several methods."""
    labels = MODELS / "imagenet_classes.txt"
    exported = _export("efficientnet_lite0", folder, "efficientnet-lite", labels)
    classes = ("tripod", "reflex camera")
    results = [folder / method for method in ("gradcam", "layercam")]
    for place in results:
        options = BatchOptions(classes=classes, method=place.name)
        _explain(exported, "models/photos/cameraman.jpg", place, options)
    return write_report(results[0], against=results[1:]).file


def _export(name: str, folder: Path, preprocess: str | Path, labels: Path) -> Path:
    exported = folder / f"{name}.cam.onnx"
    model = MODELS / f"{name}.onnx"
    onnx_gradcam.export_model(model, exported, preprocess=preprocess, labels=labels)
    return exported


def _explain(exported: Path, images: str, results: Path, options: BatchOptions) -> None:
    explainer = onnx_gradcam.load(exported, device="cpu")
    engine = LocalEngine(explainer, options, Division(1))
    run_batch(exported, explainer, engine, Sources((images,)), results, options)


def _nothing(_tab: Page) -> None:
    pass


def _open_first(tab: Page) -> None:
    tab.locator("#gallery .card").first.click()


Shot = tuple[str, Any, Callable[[Path], Path], Callable[["Page"], None]]
SHOTS: Sequence[Shot] = (
    ("report.jpg", "light", shapes, _nothing),
    ("report-image.jpg", "dark", photos, _open_first),
)
"""File, colours, what it shows, and what is done with the page before."""

if __name__ == "__main__":
    main()
