"""The worker on openvino_xai: Recipro-CAM, which needs no gradient and gives other maps.

It runs the head once for each cell of the map, all classes at once, one image at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from tools.bench.protocol import Task
from tools.bench.subjects import TOKENS
from tools.bench.worker import Array, Prepare, Prepared

LARGEST_MASKS = 4_000_000_000
"""In bytes."""


def reciprocam(task: Task) -> Prepare:
    """Return Recipro-CAM of the target layer, as a model with a map for each class.

    Transformers have it at the library's own choice of a layer.
    """
    openvino = import_module("openvino")
    core = openvino.Core()
    model = core.read_model(task.model)
    model.reshape([1, *task.shape])
    methods = openvino_xai("recipro_cam")
    options: dict[str, Any] = {"prepare_model": False}
    if task.form == TOKENS:
        method = methods.ViTReciproCAM(model, **options)
    else:
        node = next(
            node
            for node in model.get_ordered_ops()
            if any(task.tensor in output.get_names() for output in node.outputs())
        )
        refuse_masks(node.get_output_partial_shape(0))
        method = methods.ReciproCAM(model, target_layer=node.get_friendly_name(), **options)
    settings = {"INFERENCE_NUM_THREADS": task.threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(method.prepare_model(load_model=False), "CPU", settings)
    return lambda images: Prepared({"openvino_xai": partial(explain, compiled, images)})


def refuse_masks(shape: Any) -> None:
    """Refuse a feature map whose masks, one of its size for each of its cells, fill the machine.

    Raises:
        MemoryError: they would.
    """
    _, channels, height, width = (size.get_length() for size in shape)
    size = channels * (height * width) ** 2 * 4
    if size > LARGEST_MASKS:
        raise MemoryError(f"Recipro-CAM would keep {size / 1e9:.0f} GB of masks for this layer")


def explain(compiled: Any, images: Array) -> Array:
    """Return maps of the class of the highest score, at the images' size, ``(N, H, W)``."""
    maps = []
    for image in images:
        found: Mapping[str, Array] = compiled(image[None])
        best = int(found["logits"].argmax())
        maps.append(cv2.resize(found["saliency_map"][0, best], image.shape[:0:-1]))
    return np.stack(maps)


def openvino_xai(name: str) -> Any:
    """Return a module of openvino_xai, which looks for parts of OpenVINO where they once were.

    It would import torch where that is installed; without, it takes half a gigabyte less.
    """
    sys.modules["torch"] = None  # type: ignore[assignment]  # so that importing it fails
    openvino = import_module("openvino")
    old = ModuleType("openvino.runtime")
    vars(old).update({k: v for k, v in vars(openvino).items() if not k.startswith("__")})
    openvino.runtime = old  # type: ignore[attr-defined]
    sys.modules["openvino.runtime"] = old
    for part in ("opset10", "utils", "utils.data_helpers", "utils.data_helpers.wrappers"):
        sys.modules[f"openvino.runtime.{part}"] = import_module(f"openvino.{part}")
    old.opset10 = sys.modules["openvino.runtime.opset10"]  # type: ignore[attr-defined]
    return import_module(f"openvino_xai.methods.white_box.{name}")
