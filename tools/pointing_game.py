"""Play the pointing game: does the heat map's maximum fall on the object of the class?

In: models/ (the demonstration model and the tiny one) and the annotated photos of the folder that
ONNX_GRADCAM_SHARED names (default: shared/ beside the repository). Out: docs/pointing-game.md.

``python tools/pointing_game.py`` needs the package with its extras ``cpu`` and ``export``, and
models/efficientnet_lite0.onnx, which ``python tools/make_models.py`` builds.

Source: arXiv 1608.00507, section 4.2 (there with a tolerance of 15 pixels, here with none).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# run as a script, Python has put tools/ on the path, not the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx_gradcam
from onnx_gradcam.errors import OnnxGradCamError
from onnx_gradcam.evaluation.annotations import mask_on_input
from tools.pointing_targets import (
    Target,
    annotated_targets,
    mosaic_targets,
    photo_targets,
)

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = REPOSITORY / "models"
SHARED = Path(os.environ.get("ONNX_GRADCAM_SHARED") or REPOSITORY.parent / "shared")
DETAILS_UP_TO = 50
"""Longer games have a summary only."""


@dataclass(frozen=True)
class Result:
    """How one heat map did; shares are within 0 to 1.

    Attributes:
        target: what was to be found.
        label: the class that was explained.
        hit: the maximum is on the object.
        centre: the centre of the model's input is on the object.
        energy: the share of the heat map's sum that is on the object.
        area: the share of the model's input that the object covers: what chance gives.
        hit_other: the maximum is on the object of the other class; None where there is none.
    """

    target: Target
    label: str
    hit: bool
    centre: bool
    energy: float
    area: float
    hit_other: bool | None


def play(explainer: Any, target: Target, method: str) -> Result:
    """Explain the target's class and see where the heat map points.

    Args:
        explainer: an `onnx_gradcam.runtime.explainer.Explainer` with preprocessing and labels.
        target: the object.
        method: name of the CAM method.
    """
    classes: list[str | int] = [*target.labels] or [-1]
    explained = explainer.explain_image(target.photo, classes, method)
    best = int(explained.class_scores.argmax())
    cam = explained.cams[best]
    mask = mask_on_input(target.mask, explained.geometry)
    other = None if target.other is None else mask_on_input(target.other, explained.geometry)
    point = np.unravel_index(cam.argmax(), cam.shape)
    total = float(cam.sum())
    return Result(
        target=target,
        label=explained.class_names[best],
        hit=total > 0 and bool(mask[point]),
        centre=bool(mask[mask.shape[0] // 2, mask.shape[1] // 2]),
        energy=float(cam[mask].sum()) / total if total > 0 else 0.0,
        area=float(mask.mean()),
        hit_other=None if other is None else total > 0 and bool(other[point]),
    )


def _percent(values: Sequence[bool | float]) -> str:
    return f"{100 * float(np.mean(values)):.0f} %"


def _count(values: Sequence[bool]) -> str:
    return f"{sum(values)} of {len(values)}"


def summary(results: Sequence[Result]) -> list[str]:
    """Return the table of the groups in Markdown, in the order they come in, and of all."""
    lines = [
        "| objects | on the object | on the other object | image centre on it | heat on the object"
        " | area of the object |",
        "|---|---|---|---|---|---|",
    ]
    groups = list(dict.fromkeys(result.target.group for result in results))
    for group in [*groups, None] if len(groups) > 1 else groups:
        rows = [result for result in results if group in {None, result.target.group}]
        others = [result.hit_other for result in rows if result.hit_other is not None]
        cells = [
            group or "**together**",
            _count([result.hit for result in rows]),
            _count(others) if others else "",
            _count([result.centre for result in rows]),
            _percent([result.energy for result in rows]),
            _percent([result.area for result in rows]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def details(results: Sequence[Result]) -> list[str]:
    """Return one row for each object in Markdown; nothing for more than `DETAILS_UP_TO`."""
    if len(results) > DETAILS_UP_TO:
        return []
    lines = ["", "| photo | class | on the object | centre | heat | area |"]
    lines.append("|---|---|---|---|---|---|")
    for result in results:
        hit = "yes" if result.hit else "on the other" if result.hit_other else "no"
        cells = [result.target.name, result.label, hit, "yes" if result.centre else "no"]
        cells += [_percent([result.energy]), _percent([result.area])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def report(method: str, results: Mapping[str, Sequence[Result]], notes: str) -> str:
    """Return the page: for each game the summary, then each object."""
    lines = ["# Pointing game", "", notes.format(method=method).strip()]
    for game, found in results.items():
        lines += ["", f"## {game}", "", *summary(found), *details(found)]
    return "\n".join(lines) + "\n"


NOTES = """
Does the maximum of the heat map (`{method}`, exported with the layer that `auto` picks) fall on the
object whose class is explained? Written by `python tools/pointing_game.py`.

- *On the object*: the highest pixel of the heat map, at the size of the model's input, is within
  the object's box or mask. No tolerance.
- *On the other object*: where a photo holds objects of several classes, each one's class is
  explained in turn, and this counts the maxima that fall on a wrong one.
- *Image centre on it*: the same for the centre of the input, a heat map that knows nothing. Objects
  are often in the middle, so a hit rate means something only above this.
- *Heat on the object*: the share of the heat map's sum that lies on the object, mean over the
  objects. A heat map that is the same everywhere would have the *area of the object*.
- Boxes and masks are carried through resize and centre crop: each pixel of the input asks the
  annotation at the point of the photo that its centre came from.

The annotated photos are few, and most of their objects are large and in the middle: on these alone
the game proves little. The mosaics (four photos of four classes in a square, as for the Focus
score, arXiv 2109.15035) have no middle: each of the four classes is explained, chance is one in
four, and the network has to tell the classes apart.

The photos are not part of the repository, but for the demonstration's. Elephants: the class of the
three elephant classes with the highest score. The bird is no ImageNet class: the highest score is
explained. The boxes of the pets were drawn by hand for this game; the classes of the two dogs are
the breeds that the model names first. The demonstration photos (models/photos, boxes drawn by hand)
were chosen because the heat maps of their objects lie apart: they show what the method can do, not
how often. The shapes are the 24 pictures in models/tiny_shapes, drawn apart from those of the
training and not chosen by how they do.
"""


def open_model(model: Path, folder: Path, builder: str, **description: Any) -> Any:
    """Export a model into `folder` and load it.

    Raises:
        OnnxGradCamError: it is not there, or cannot be exported or loaded.
    """
    exported = folder / model.with_suffix(".cam.onnx").name
    onnx_gradcam.export_model(model, exported, gradient_builder=builder, **description)
    return onnx_gradcam.load(exported, device="cpu")


def run(photos: Path, method: str, builder: str) -> dict[str, list[Result]]:
    """Return the results by game.

    Raises:
        OnnxGradCamError: a model or photo is not there or cannot be read.
        OSError: an annotation is not there.
    """
    tiny = MODELS / "tiny_shapes"
    names = MODELS / "imagenet_classes.txt"
    with tempfile.TemporaryDirectory() as scratch:
        imagenet = open_model(
            MODELS / "efficientnet_lite0.onnx",
            Path(scratch),
            builder,
            preprocess="efficientnet-lite",
            labels=names,
        )
        shapes = open_model(
            MODELS / "tiny_shapes.onnx",
            Path(scratch),
            builder,
            preprocess=tiny / "preprocessing.json",
            labels=tiny / "labels.txt",
        )
        games: dict[str, tuple[Any, Iterable[Target]]] = {
            "EfficientNet-Lite0, annotated photos": (imagenet, photo_targets(photos)),
            "EfficientNet-Lite0, mosaics": (
                imagenet,
                mosaic_targets(photos / "imagenet", imagenet.labels),
            ),
            "EfficientNet-Lite0, demonstration photos": (
                imagenet,
                annotated_targets(MODELS / "photos", "{count} in the photo (boxes)"),
            ),
            "Tiny shapes": (shapes, annotated_targets(tiny, "{count} in the picture (boxes)")),
        }
        return {
            name: [play(explainer, target, method) for target in targets]
            for name, (explainer, targets) in games.items()
        }


def main() -> int:
    """Play, print the summaries and write the page; return the exit status."""
    parser = argparse.ArgumentParser(description="Play the pointing game.")
    parser.add_argument("--method", default="gradcam", help="CAM method (default: gradcam)")
    parser.add_argument("--gradient-builder", default="auto", help="as for export")
    parser.add_argument("--photos", type=Path, default=SHARED / "photos", help="annotated photos")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "pointing-game.md")
    arguments = parser.parse_args()
    try:
        results = run(arguments.photos, arguments.method, arguments.gradient_builder)
    except (OnnxGradCamError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, found in results.items():
        print("\n".join([name, *summary(found), ""]))
    arguments.output.write_text(report(arguments.method, results, NOTES), encoding="utf-8")
    print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
