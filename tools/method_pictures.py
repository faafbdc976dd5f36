"""Draws one photo by many CAM methods: docs/pictures/methods.jpg.

    python tools/method_pictures.py [--class tripod] [--photo models/photos/cameraman.jpg]

Needs models/efficientnet_lite0.onnx, which ``python tools/make_models.py`` builds. `make pictures`
runs it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

# run as a script, Python has put tools/ on the path, not the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

import onnx_gradcam
from onnx_gradcam.render import panel
from onnx_gradcam.runtime import read_photo

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = REPOSITORY / "models"
METHODS = (
    *("gradcam", "gradcam++", "layercam", "finercam", "shapleycam", "eigencam"),
    *("kpcacam", "ablationcam", "reciprocam", "smoothgradcam++", "scorecam"),
    *("occlusion", "rise", "randomcam"),
)
QUALITY = 88
SCALE = 0.7


def main() -> None:
    """Export, explain by each method, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--class", dest="label", default="tripod")
    parser.add_argument("--photo", type=Path, default=MODELS / "photos" / "cameraman.jpg")
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "docs" / "pictures" / "methods.jpg"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.cam.onnx"
        onnx_gradcam.export_model(
            MODELS / "efficientnet_lite0.onnx",
            exported,
            preprocess="efficientnet-lite",
            labels=MODELS / "imagenet_classes.txt",
            weights=True,
            second_order=True,
        )
        explainer = onnx_gradcam.load(exported, device="cpu")
        cams = []
        for method in METHODS:
            found = explainer.explain_image(arguments.photo, arguments.label, method)
            note = found.notes[0] and f"\nempty: {found.notes[0]}"
            cams.append((found.photo_cams()[0], method + note))
    drawn = panel(read_photo(arguments.photo), cams, arguments.label)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    bgr = np.ascontiguousarray(drawn[..., ::-1])
    bgr = np.asarray(cv2.resize(bgr, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA))
    cv2.imwrite(str(arguments.output), bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    print(arguments.output, drawn.shape)


if __name__ == "__main__":
    main()
