from __future__ import annotations

from pathlib import Path

from onnx_gradcam.batch.schema import COLUMNS

PAGE = Path(__file__).parents[2] / "docs" / "batch.md"


def test_every_column_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    listed = text.split("<!-- columns -->")[1].split("<!-- /columns -->")[0].strip().splitlines()
    expected = [f"| `{n}` | {c.type.strip('_')} | {c.meaning} |" for n, c in COLUMNS.items()]
    assert listed[2:] == expected
