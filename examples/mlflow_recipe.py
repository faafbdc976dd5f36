"""An exported file in MLflow: log it with its signature, load it back, predict and make heat maps.

    python examples/mlflow_recipe.py model.cam.onnx photo.jpg

Needs mlflow (or mlflow-skinny with sqlalchemy and alembic) and onnx-gradcam with [cpu,export]. Runs
go to the tracking store that MLflow is set to; `MLFLOW_TRACKING_URI=sqlite:///mlflow.db` keeps them
in a file. What MLflow does with optional inputs and providers: docs/serving.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import onnxruntime
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

import onnx_gradcam
from onnx_gradcam.runtime import Explainer

FILE = "model.onnx"
"""What `mlflow.onnx` calls the file in the model's folder."""

ELEMENTS = {"float": "float32", "double": "float64"}
"""Element types that NumPy calls otherwise."""


def tensor(node: Any) -> TensorSpec:
    """Return the specification of an input or output; sizes that are open are -1."""
    name = node.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(np.dtype(ELEMENTS.get(name, name)), shape, node.name)


def signature(path: Path) -> ModelSignature:
    """Return all inputs and outputs of a file, the class too.

    MLflow drops inputs that a signature leaves out, with a warning. So the class must be in it, and
    thereby every request must give one: -1 is the highest score.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    optional = [n for n in session.get_overridable_initializers() if n.name.startswith("cam_")]
    return ModelSignature(
        Schema([tensor(node) for node in (*session.get_inputs(), *optional)]),
        Schema([tensor(node) for node in session.get_outputs()]),
    )


def log(path: Path, name: str = "classifier") -> str:
    """Log an exported file in a run of its own, and return its address, ``models:/m-...``.

    The file stays as it is, byte for byte; one beyond 2 GB needs ``save_as_external_data=True``,
    with which MLflow writes it anew.
    """
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(
            onnx.load(path),
            name=name,
            signature=signature(path),
            save_as_external_data=False,
            onnx_execution_providers=["CPUExecutionProvider"],
            pip_requirements=[
                f"onnx=={onnx.__version__}",
                f"onnxruntime=={onnxruntime.__version__}",
            ],
        )
    return str(logged.model_uri)


def load(address: str) -> Explainer:
    """Return an explainer of a logged file."""
    folder = Path(mlflow.artifacts.download_artifacts(address))
    return onnx_gradcam.load(folder / FILE, device="cpu")


def main() -> None:
    """Log a file, then predict and explain a photo with what was logged."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("exported", type=Path)
    parser.add_argument("photo", type=Path)
    arguments = parser.parse_args()
    address = log(arguments.exported)
    print("logged", address)

    explainer = load(address)
    image = explainer.prepare(arguments.photo).image
    served = mlflow.pyfunc.load_model(address)
    answer = served.predict({explainer.image_input.name: image, "cam_class": np.array([-1])})
    print("predicted class", int(answer["cam_classes"][0]), "with MLflow's own wrapper")

    explanation = explainer.explain_image(arguments.photo)
    row, column = np.unravel_index(explanation.cams[0].argmax(), explanation.cams[0].shape)
    print(f"{explanation.class_names[0]}: hottest at x = {column}, y = {row} of the model's input")


if __name__ == "__main__":
    main()
