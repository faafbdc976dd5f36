"""How faithful are the heat maps? Metrics of published papers, in NumPy.

Each metric is one function of a classifier (any callable images -> scores), images, classes and
maps; `evaluate` runs them on an exported file. Everything is seeded: the same input gives the same
numbers.
"""

from onnx_gradcam.evaluation.adcc import adcc, coherency, complexity
from onnx_gradcam.evaluation.annotations import Annotations, read_annotations
from onnx_gradcam.evaluation.confidence import masked_confidence
from onnx_gradcam.evaluation.curves import deletion, insertion
from onnx_gradcam.evaluation.evaluate import evaluate
from onnx_gradcam.evaluation.localisation import energy_in_mask, pointing_game
from onnx_gradcam.evaluation.metrics import METRICS, Metric, Settings
from onnx_gradcam.evaluation.randomisation import model_randomisation
from onnx_gradcam.evaluation.report import Evaluation
from onnx_gradcam.evaluation.road import road
from onnx_gradcam.evaluation.samples import Sample, read_samples
from onnx_gradcam.evaluation.sensitivity import max_sensitivity
from onnx_gradcam.evaluation.sparseness import sparseness
from onnx_gradcam.evaluation.subject import BASELINES

__all__ = [
    "BASELINES",
    "METRICS",
    "Annotations",
    "Evaluation",
    "Metric",
    "Sample",
    "Settings",
    "adcc",
    "coherency",
    "complexity",
    "deletion",
    "energy_in_mask",
    "evaluate",
    "insertion",
    "masked_confidence",
    "max_sensitivity",
    "model_randomisation",
    "pointing_game",
    "read_annotations",
    "read_samples",
    "road",
    "sparseness",
]
