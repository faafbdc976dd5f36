from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from onnx_gradcam.report import write_report
from tests.batch.examples import batch, rows
from tests.report.browsing import Opened
from tests.report.examples import OPTIONS, write_results
from tools.chromium import VARIABLE, chromium, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of seven images, and one image that fails."""
    return write_results(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def other(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images by another method."""
    folder = tmp_path_factory.mktemp("other") / "eigen"
    model, images = results.parent / "model.cam.onnx", results.parent / "images"
    batch(model, images, folder, replace(OPTIONS, method="eigencam", top_k=2))
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program, named = find_chromium(), os.environ.get(VARIABLE)
    if program is None and named:
        pytest.fail(f"{VARIABLE} names no program: {named}")
    if program is None:
        pytest.skip("no Chromium: install chromium or google-chrome")
    if not named:
        pytest.importorskip("playwright.sync_api", reason="no Playwright to drive Chromium with")
    with chromium(program) as started:
        yield started


@pytest.fixture(scope="session")
def file(results: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "report.html"
    write_report(results, place, [other])
    return place


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Opened]:
    page = Opened(browser, file)
    yield page
    assert page.complaints == []
    page.context.close()


@pytest.fixture
def tab(opened: Opened) -> Tab:
    return opened.tab


@pytest.fixture(scope="session")
def mine(results: Path) -> list[dict[str, Any]]:
    return [row for row in rows(results) if row["error"] is None]
