"""The options that `explain` and `batch` share: which classes, by which method, on which device."""

from __future__ import annotations

from typing import Any

import click

from onnx_gradcam.cli.arrays import read_settings
from onnx_gradcam.cli.options import adding

_OPTIONS = (
    click.option(
        "--class",
        "classes",
        metavar="NAME|INDEX",
        multiple=True,
        help="A class to explain; repeat it for several.",
    ),
    click.option(
        "--top-k",
        type=click.IntRange(min=1),
        metavar="K",
        help="Explain the K highest scores; 1 unless a class is named.",
    ),
    click.option(
        "--method",
        metavar="NAME",
        help="The CAM method; onnx-gradcam methods lists them.  [default: gradcam, or the one that"
        " the file holds alone]",
    ),
    click.option(
        "--eigen-smooth",
        is_flag=True,
        help="Less noise: the first principal component of the map's summands.",
    ),
    click.option(
        "--aug-smooth",
        is_flag=True,
        help="Smoother maps: the average over six versions of each image; takes six runs.",
    ),
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="NAME|NUMBER",
        help="A target layer of the file, numbers from 0; repeat it for several. Without it all.",
    ),
    click.option(
        "--fuse-layers",
        type=click.Choice(["mean", "max"]),
        default="mean",
        show_default=True,
        help="How the heat maps of several target layers become one.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="Of a method that draws at random.",
    ),
    click.option(
        "--set",
        "settings",
        metavar="NAME=VALUE",
        multiple=True,
        help="A setting of the method, --set masks=4000 of rise; onnx-gradcam methods lists them.",
    ),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:N",
        help="Where to run; cuda is an error where it does not come up.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="How many threads to use; the number of cores unless given.",
    ),
)


how_options = adding(_OPTIONS)
"""Adds them to a command."""


def explain_options(
    eigen_smooth: bool,
    aug_smooth: bool,
    layers: tuple[str, ...],
    fuse_layers: str,
    seed: int,
    settings: tuple[str, ...],
) -> dict[str, Any]:
    """Return what was chosen as `ExplainOptions`."""
    return {
        "eigen_smooth": eigen_smooth,
        "aug_smooth": aug_smooth,
        "layers": layers or None,
        "fuse_layers": fuse_layers,
        "seed": seed,
        "settings": read_settings(settings),
    }
