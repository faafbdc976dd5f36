"""Runs a notebook and writes it with what came out: examples/tour.ipynb.

    python tools/run_notebook.py [examples/tour.ipynb] [--output OUT]

Needs models/efficientnet_lite0.onnx, which ``python tools/make_models.py`` builds. What is written
holds no time, no path and no version, so that it changes only when the results do; pictures become
JPEGs, so that it stays small.
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
TOUR = REPOSITORY / "examples" / "tour.ipynb"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
QUALITY = 85
SECONDS = 300
"""That a cell may take."""


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path, nargs="?", default=TOUR)
    parser.add_argument("--output", type=Path, help="where to write it; over itself without")
    arguments = parser.parse_args()
    notebook = run(arguments.notebook)
    nbformat.write(notebook, arguments.output or arguments.notebook)


def run(path: Path) -> Any:
    """Return a notebook, run in its folder from nothing, with its outputs.

    A cell that fails is an error.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    place = {"metadata": {"path": str(path.resolve().parent)}}
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources=place, record_timing=False
    ).execute()
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            data = output.get("data", {})
            if "image/png" in data:
                data["image/jpeg"] = as_jpeg(data.pop("image/png"))
    return notebook


def as_jpeg(png: str) -> str:
    """Return a PNG as a JPEG, both in base64."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.save(buffer, "jpeg", quality=QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    main()
