"""The options that say what is explained, for the commands that look at a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from onnx_gradcam.contract import OBJECTIVES

_OPTIONS = [
    click.option(
        "--objective",
        type=click.Choice(OBJECTIVES),
        default=OBJECTIVES[0],
        show_default=True,
        help="What is explained: the score of a class before softmax, its probability, both sides"
        " of a single logit, a mask or a box of a class, or the similarity to an embedding.",
    ),
    click.option(
        "--class-axis",
        type=int,
        metavar="AXIS",
        help="Axis of the classes in a segmenter's or detector's score, if the one found is wrong.",
    ),
    click.option(
        "--class-channels",
        metavar="START:STOP",
        help="Which channels of a detector's score are classes: 4: behind four of the box.",
    ),
]


def objective_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command with ``--objective``, ``--class-axis`` and ``--class-channels``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
