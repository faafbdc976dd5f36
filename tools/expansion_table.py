"""Write the table in docs/expansion.md: every operator that has an expansion, and its definition.

Run it with ``python -m tools.expansion_table``.
"""

from __future__ import annotations

from pathlib import Path

from onnx_gradcam.export.expansion import rules
from onnx_gradcam.export.expansion.registry import expansion_table

PAGE = Path(__file__).parents[1] / "docs" / "expansion.md"
START, END = "| operator |", "\n\n"


def table() -> str:
    """Return the table; a definition is the first line of the rule's docstring."""
    assert rules.MODULES, "importing them fills the table"
    lines = ["| operator | definition |", "|---|---|"]
    for row in expansion_table():
        definition = (row.rule.__doc__ or "").strip().splitlines()[0]
        operator = f"{row.domain or 'ai.onnx'}::{row.op_type}"
        lines.append(f"| `{operator}` | {definition.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """Return the page with the table of today in the place of the former one."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
