"""`onnx-gradcam methods`: the CAM methods, where they come from and what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnx_gradcam.cli.output import examples, show_report

if TYPE_CHECKING:
    from onnx_gradcam.cam import Method


@click.command(
    "methods",
    short_help="List the CAM methods, their papers and needs.",
    epilog=examples("onnx-gradcam methods"),
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the CAM methods: name, paper, and what each needs beside the activations.

    A method with a star goes with --eigen-smooth; settings with their defaults stand in brackets.
    """
    from onnx_gradcam.cam import get_method, method_names

    show_report(MethodList([get_method(name) for name in method_names()]), as_json=as_json)


@dataclass(frozen=True)
class MethodList:
    """The methods, as a report."""

    methods: Sequence[Method]

    def to_dict(self) -> dict[str, Any]:
        """Return the report, JSON-ready."""
        return {
            "methods": [
                {
                    "name": method.name,
                    "title": method.title,
                    "paper": method.paper,
                    "needs": list(method.needs),
                    "eigen_smooth": method.smooths,
                    "settings": dict(method.settings),
                }
                for method in self.methods
            ]
        }

    def summary(self) -> str:
        """Return a line for each method, as text for people."""
        rows = [
            (f"{m.name}{'*' * m.smooths}", ", ".join(m.needs) or "-", _cited(m))
            for m in self.methods
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows]
        return "\n".join([*lines, "* goes with --eigen-smooth"])


def _cited(method: Method) -> str:
    """Return where a method is from, and what can be set of it."""
    settings = ", ".join(f"{name}={value}" for name, value in method.settings.items())
    return f"{method.title}, {method.paper}" + (f" ({settings})" if settings else "")
