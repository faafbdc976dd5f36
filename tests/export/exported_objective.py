"""An export for an objective, and the part behind A as a session of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from onnx_gradcam.contract import ExportMetadata
from onnx_gradcam.export.pipeline import export_model
from tests.export.objective_models import objective_model
from tests.export.objective_seeds import IMAGES

Outputs = dict[str, np.ndarray[Any, Any]]


class Exported:
    """An exported file, and the part behind A as a session of its own."""

    def __init__(self, folder: Path, body: str, opset: int = 17, **options: Any) -> None:
        path = folder / "exported.onnx"
        self.report = export_model(
            objective_model(body, opset), path, gradient_builder="reverse", **options
        )
        model = onnx.load(path)
        props = {p.key: p.value for p in model.metadata_props}
        self.metadata = ExportMetadata.from_props(props)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        target, score = self.metadata.target, self.metadata.score_tensor
        tail = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(objective_model(body, opset)))
        self.tail = onnxruntime.InferenceSession(
            tail.extract_model([target], [score]).SerializeToString(),
            providers=["CPUExecutionProvider"],
        )

    def run(self, **seeds: Any) -> Outputs:
        names = [output.name for output in self.session.get_outputs()]
        feeds = {"image": IMAGES, **{f"cam_{n}": np.asarray(v) for n, v in seeds.items()}}
        return dict(zip(names, self.session.run(None, feeds), strict=True))

    def scores(self, activations: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the score tensor at changed activations, float64."""
        feeds = {self.metadata.target: activations.astype(np.float32)}
        return np.asarray(self.tail.run([self.metadata.score_tensor], feeds)[0], np.float64)
