"""How reports reach stdout."""

from __future__ import annotations

import json
from typing import Any, Protocol

import click


class Report(Protocol):
    """What every report of this package can do."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report, JSON-ready."""

    def summary(self) -> str:
        """Return the report as text for people."""


def show_report(report: Report, *, as_json: bool) -> None:
    """Print a report on stdout, as JSON or as text."""
    click.echo(as_json_text(report.to_dict()) if as_json else report.summary())


def as_json_text(content: dict[str, Any]) -> str:
    """Return indented JSON; names keep their own letters."""
    return json.dumps(content, indent=2, ensure_ascii=False)


def examples(*commands: str) -> str:
    """Return examples for the end of a command's help, one a line."""
    keep_lines = "\b"  # click's mark for a paragraph that is not wrapped
    return "\n".join([keep_lines, "Examples:", *(f"  {command}" for command in commands)])
