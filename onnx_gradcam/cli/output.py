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
    text = (
        json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if as_json else report.summary()
    )
    click.echo(text)
