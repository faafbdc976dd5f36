"""The tour runs, and what it shows is what is committed."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "examples" / "tour.ipynb"
MODEL = ROOT / "models" / "efficientnet_lite0.onnx"


def outputs(file: Path) -> list[dict[str, str]]:
    """Return what came out, by kind; each time the same keys in the same order."""
    found = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            content = output.get("data") or {"stream": output["text"]}
            found.append({kind: "".join(content[kind]) for kind in sorted(content)})
    return found


def without_digits(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", text)


def picture(data: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    found = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    return cv2.resize(found, (60, 30), interpolation=cv2.INTER_AREA).astype(np.float32)


@pytest.mark.skipif(not MODEL.is_file(), reason="built by python tools/make_models.py")
def test_the_tour_shows_what_is_committed(tmp_path: Path) -> None:
    again = tmp_path / "tour.ipynb"
    command = [sys.executable, "tools/run_notebook.py", "--output", str(again)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    committed, found = outputs(TOUR), outputs(again)
    assert [list(one) for one in found] == [list(one) for one in committed]
    assert sum("image/jpeg" in one for one in found) == 5
    for before, after in zip(committed, found, strict=True):
        for kind in before.keys() & {"stream", "text/plain"}:
            assert without_digits(after[kind]) == without_digits(before[kind])
        if "image/jpeg" in before:  # fonts may be others
            old, new = picture(before["image/jpeg"]), picture(after["image/jpeg"])
            assert np.abs(old - new).mean() < 6
            assert old.std() > 20
    assert "tripod (score 11.4, rank 1 of 1000); reflex camera" in found[1]["text/plain"]


def test_the_committed_tour_is_small_and_holds_no_paths() -> None:
    text = TOUR.read_text(encoding="utf-8")
    assert len(text) < 700_000
    notebook = json.loads(text)
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    spoken = "".join(
        value for one in outputs(TOUR) for k, value in one.items() if k != "image/jpeg"
    )
    assert not re.search(r"(?<![\w+])/(tmp|home|work|Users)/", spoken)
    assert all("<script" not in one.get("text/html", "") for one in outputs(TOUR))
