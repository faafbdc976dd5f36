from __future__ import annotations

import base64
import hashlib
import html
import re
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

from onnx_gradcam.report import page as pages
from onnx_gradcam.report import write_report
from tests.report.examples import EVIL_LABELS, EVIL_NAME, read_page, write_results

ROOT = Path(__file__).parents[2]
FOLDER = files("onnx_gradcam.report") / "page"


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results in which all that can be chosen tries to get out."""
    folder = tmp_path_factory.mktemp("evil")
    results = write_results(folder, count=3, labels=EVIL_LABELS, evil=True)
    write_report(results, folder / "page.html")
    return folder / "page.html"


def test_what_comes_from_results_cannot_leave_its_element(evil: Path) -> None:
    text = evil.read_text(encoding="utf-8")
    scripts = re.findall(r"<script\b", text)
    assert len(scripts) == text.count("</script>") == 5, "facts, arrays, maps, code, pictures"
    for word in ("<img src=x", "<svg", "<!-- <script>", "<script>x"):
        assert word not in text
    assert "<title>Heat maps: &lt;script&gt;x</title>" in text
    page = read_page(evil)
    assert {name for _, name in page.facts["classes"]} <= set(EVIL_LABELS)
    assert any(path.endswith(EVIL_NAME) for path in page.facts["paths"])
    assert page.facts["failures"][0][0].endswith(f"broken{EVIL_NAME}")


def test_the_policy_allows_the_one_script_and_style_and_nothing_else(evil: Path) -> None:
    text = evil.read_text(encoding="utf-8")
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert found is not None
    policy = dict(
        directive.strip().split(" ", 1) for directive in html.unescape(found[1]).split(";")
    )
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    hashes = {
        name: base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        for name, part in (("script-src", script), ("style-src", style))
    }
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'sha256-{hashes['script-src']}'",
        "style-src": f"'sha256-{hashes['style-src']}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


def test_the_page_asks_nobody_for_anything(evil: Path) -> None:
    text = evil.read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,", "#gallery"]
    assert "@import" not in text
    assert "url(" not in text


@pytest.mark.parametrize("name", [pages.STYLE, *pages.SCRIPTS])
def test_no_file_ends_its_element_or_makes_markup_of_text(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    for word in (
        "</",
        "<!--",
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
    ):
        assert word not in text
    assert len(text.splitlines()) < 400


def test_every_file_of_the_folder_is_in_the_page() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {"page.html", pages.STYLE, *pages.SCRIPTS}


def test_pictures_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PICTURES_PER_PIECE", 2)
    made = b"".join(pages.page("t", {}, b"", b"", [b"one", b"", b"three"])).decode()
    found = re.findall(r'id="pictures-(\d)">(.*?)</script>', made, re.DOTALL)
    assert found == [("0", "b25l\n"), ("1", "dGhyZWU=")]


def test_a_wheel_holds_the_files_of_the_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    names = {"page.html", pages.STYLE, *pages.SCRIPTS}
    assert {f"onnx_gradcam/report/page/{name}" for name in names} <= held
