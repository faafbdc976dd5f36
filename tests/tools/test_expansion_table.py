"""The page lists every expansion that there is."""

from __future__ import annotations

from tools.expansion_table import PAGE, page, table


def test_the_page_holds_the_table_of_today() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run python -m tools.expansion_table"
    assert "`com.microsoft::FusedConv` | Y = activation(Conv(X, W, B) + Z)." in table()
    assert "None" not in table()
