"""Write convolutional features with scikit-learn heads as ONNX, for `tools/producers.py`.

    python -m venv conv && conv/bin/pip install onnx onnxruntime scikit-learn skl2onnx
    conv/bin/python tools/producer_sklearn.py FOLDER

The features are a small convolutional network with random weights; each head is fitted on the
features of random images and converted by skl2onnx, then both are merged into one model.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper, parser

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.producer_note import Note, write_note  # noqa: E402

Array = NDArray[Any]
OPSET, ML_OPSET, WIDTH = 17, 3, 16

FEATURES = """
<ir_version: 8, opset_import: ["" : 17]>
features (float[N,3,32,32] image) => (float[N,16] features)
<float[16,3,3,3] w0, float[16,16,3,3] w1> {
  c0 = Conv<strides=[2,2],pads=[1,1,1,1]>(image, w0)
  r0 = Relu(c0)
  c1 = Conv<pads=[1,1,1,1]>(r0, w1)
  r1 = Relu(c1)
  pooled = GlobalAveragePool(r1)
  features = Flatten(pooled)
}"""


def heads() -> dict[str, tuple[str, Any, int, dict[str, Any]]]:
    """Return name -> (description, classifier, number of classes, options of the conversion)."""
    linear = import_module("sklearn.linear_model")
    svm = import_module("sklearn.svm")
    pipeline = import_module("sklearn.pipeline").make_pipeline
    scaler = import_module("sklearn.preprocessing").StandardScaler
    pca = import_module("sklearn.decomposition").PCA
    mlp = import_module("sklearn.neural_network").MLPClassifier
    forest = import_module("sklearn.ensemble").RandomForestClassifier
    bayes = import_module("sklearn.naive_bayes").GaussianNB
    rest = import_module("sklearn.multiclass").OneVsRestClassifier
    tensors = {"zipmap": False}
    logistic = linear.LogisticRegression
    return {
        "logistic": ("LogisticRegression, ZipMap", logistic(), 5, {}),
        "logistic_tensors": ("LogisticRegression, tensors", logistic(), 5, tensors),
        "logistic_binary": ("LogisticRegression, two classes", logistic(), 2, tensors),
        "logistic_raw": (
            "LogisticRegression, raw scores",
            logistic(),
            5,
            tensors | {"raw_scores": True},
        ),
        "scaled": (
            "StandardScaler, LogisticRegression",
            pipeline(scaler(), logistic()),
            5,
            tensors,
        ),
        "pca": (
            "StandardScaler, PCA, LogisticRegression, ZipMap",
            pipeline(scaler(), pca(6), logistic()),
            5,
            {},
        ),
        "rest": ("OneVsRestClassifier(LogisticRegression)", rest(logistic()), 5, tensors),
        "sgd": ("SGDClassifier(log_loss)", linear.SGDClassifier(loss="log_loss"), 5, tensors),
        "ridge": ("RidgeClassifier", linear.RidgeClassifier(), 5, tensors),
        "linear_svc": ("LinearSVC", svm.LinearSVC(), 5, {}),
        "mlp": ("MLPClassifier", mlp((12,), max_iter=30), 5, tensors),
        "svc": ("SVC(probability)", svm.SVC(probability=True), 5, tensors),
        "forest": ("RandomForestClassifier", forest(5, max_depth=3), 5, tensors),
        "bayes": ("GaussianNB", bayes(), 5, tensors),
    }


def main(folder: Path) -> int:
    """Write all files; those that fail are named on stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    import_module("warnings").simplefilter("ignore")
    features = _features()
    samples = _run(features, np.random.default_rng(1).normal(size=(200, 3, 32, 32)))
    producer = f"skl2onnx {version('skl2onnx')}, scikit-learn {version('scikit-learn')}"
    for name, (what, head, classes, options) in heads().items():
        path = folder / f"sklearn_{name}.onnx"
        try:
            onnx.save(_merged(features, _converted(head, samples, classes, options)), path)
        except Exception:
            traceback.print_exc()
            print(f"FAILED {name}", file=sys.stderr, flush=True)
        else:
            write_note(path, Note(producer, f"CNN + {what}", "scikit-learn heads"))
            print(path, flush=True)
    return 0


def _features() -> onnx.ModelProto:
    model = parser.parse_model(FEATURES)
    rng = np.random.default_rng(0)
    for value in model.graph.value_info:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        weights = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        model.graph.initializer.append(
            numpy_helper.from_array(weights.astype(np.float32), value.name)
        )
    del model.graph.value_info[:]
    return model


def _run(model: onnx.ModelProto, images: Array) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values: Array = session.run(None, {"image": images.astype(np.float32)})[0]
    return values


def _converted(head: Any, samples: Array, classes: int, options: dict[str, Any]) -> onnx.ModelProto:
    """Fit the head to classes that the features tell apart, and convert it."""
    centres = samples[:classes]
    labels = ((samples[:, None] - centres) ** 2).sum(-1).argmin(1)
    head.fit(samples, labels)
    skl2onnx = import_module("skl2onnx")
    types = import_module("skl2onnx.common.data_types")
    converted: onnx.ModelProto = skl2onnx.to_onnx(
        head,
        initial_types=[("features", types.FloatTensorType([None, WIDTH]))],
        options=_options(head, options),
        target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
    )
    return converted


def _options(head: Any, options: dict[str, Any]) -> dict[int, dict[str, Any]] | None:
    """Return the options by the classifier they are for: the last step of a pipeline."""
    last = head.steps[-1][1] if hasattr(head, "steps") else head
    return {id(last): options} if options else None


def _merged(features: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    for opset in head.opset_import:
        if opset.domain == "":
            opset.version = OPSET  # the lowest that its operators need stands there
    head.ir_version = features.ir_version
    head = compose.add_prefix(head, "head_")
    merged: onnx.ModelProto = compose.merge_models(
        features, head, io_map=[("features", "head_features")]
    )
    merged.producer_name = "skl2onnx"
    del merged.opset_import[:]  # merging lists the domains of both
    merged.opset_import.append(helper.make_opsetid("", OPSET))
    merged.opset_import.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    return merged


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
