"""An exported file behind MLServer: requests of the KServe V2 protocol in, heat maps out.

    mlserver start examples/serve_v2

The names, shapes and types of inputs and outputs are in README.md beside this file. Requests are
decoded and answered on a pool of threads, which share one `Explainer`; what does not fit in the
queue is refused at once. A request that is wrong is an error of its own, in one line.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.errors import InferenceError, MLServerError
from mlserver.types import (
    Datatype,
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    RequestInput,
    ResponseOutput,
    TensorData,
)
from mlserver.utils import get_model_uri

import onnx_gradcam
from onnx_gradcam.batch.regions import peak_of, region_of
from onnx_gradcam.runtime.preprocess import CropGeometry

PHOTO, CLASS = "photo", "cam_class"

NUMBERS: Mapping[Datatype, type[np.generic]] = {
    Datatype.BOOL: np.bool_,
    Datatype.UINT8: np.uint8,
    Datatype.INT8: np.int8,
    Datatype.INT32: np.int32,
    Datatype.INT64: np.int64,
    Datatype.FP16: np.float16,
    Datatype.FP32: np.float32,
    Datatype.FP64: np.float64,
}
"""Types of tensors that are understood."""

TYPES = {np.dtype(dtype): name for name, dtype in NUMBERS.items()}

OUTPUTS: Mapping[str, tuple[Datatype, list[int]]] = {
    "scores": (Datatype.FP32, [-1, -1]),
    "classes": (Datatype.INT64, [-1]),
    "labels": (Datatype.BYTES, [-1]),
    "class_scores": (Datatype.FP32, [-1]),
    "cams": (Datatype.FP32, [-1, -1, -1]),
    "peaks": (Datatype.INT64, [-1, 2]),
    "boxes": (Datatype.INT64, [-1, 4]),
    "areas": (Datatype.INT64, [-1]),
    "notes": (Datatype.BYTES, [-1]),
}
"""Name -> type and shape; the first axis is that of the images."""

OF_PROTOCOL = frozenset({"content_type", "headers", "binary_data_output", "timeout", "priority"})
"""Parameters of requests that clients and MLServer add themselves."""

BUSY = 503


@dataclass(frozen=True)
class Limits:
    """What ``parameters.extra`` of model-settings.json may say.

    Attributes:
        threads: requests that are answered at a time, the number of cores.
        queue: requests that wait or are answered; more are refused.
        most_images: in one request.
        methods: CAM methods that a request may ask for; some take thousands of runs.
    """

    threads: int = 2
    queue: int = 64
    most_images: int = 16
    methods: Sequence[str] = ("gradcam",)

    @classmethod
    def of(cls, extra: Mapping[str, Any] | None) -> Limits:
        """Return the limits in a mapping.

        Raises:
            ValueError: a key that is none of them.
        """
        known = {field.name for field in fields(cls)}
        strange = sorted(set(extra or {}) - known)
        if strange:
            raise ValueError(
                f"unknown setting {strange[0]!r}; known are {', '.join(sorted(known))}"
            )
        return cls(**(extra or {}))


class CamRuntime(MLModel):
    """One exported file of an image classifier."""

    async def load(self) -> bool:
        """Open the file and run it once, so that the first request is not a slow one.

        Raises:
            ValueError: the file does not take images of two axes, or a setting is unknown.
        """
        given = self.settings.parameters
        self._limits = Limits.of(given.extra if given else None)
        options = onnxruntime.SessionOptions()  # docs/servers.md says why these
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        path = Path(await get_model_uri(self.settings))
        self._explainer = onnx_gradcam.load(path, device="cpu", session_options=options)
        image = self._explainer.image_input
        if image.spatial_axes != 2:
            raise ValueError(f"{path} takes no pictures but {image.describe()}")
        self._pool = ThreadPoolExecutor(self._limits.threads)
        self._waiting = 0
        shape = [-1 if size is None else size for size in image.shape]
        self.inputs = [
            MetadataTensor(name=image.name, datatype=TYPES[image.dtype], shape=shape),
            MetadataTensor(name=PHOTO, datatype=Datatype.BYTES, shape=[-1]),
            MetadataTensor(name=CLASS, datatype=Datatype.INT64, shape=[-1]),
        ]
        self.outputs = [
            MetadataTensor(name=name, datatype=datatype, shape=size)
            for name, (datatype, size) in OUTPUTS.items()
        ]
        self._explainer.explain(np.zeros([size or 224 for size in image.shape], image.dtype))
        return True

    async def unload(self) -> bool:
        """Let go of the threads."""
        self._pool.shutdown(wait=True)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the answer to a request.

        Raises:
            MLServerError: more requests than the queue holds (503), or one that is wrong (400).
        """
        if self._waiting >= self._limits.queue:
            raise MLServerError(f"busy: {self._waiting} requests are waiting; try again", BUSY)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._answer, payload)
        finally:
            self._waiting -= 1

    def _answer(self, payload: InferenceRequest) -> InferenceResponse:
        try:
            asked = [output.name for output in payload.outputs or ()] or list(OUTPUTS)
            _known("output", asked, OUTPUTS)
            method, threshold = self._choices(payload)
            images, geometries, classes = self._inputs(payload.inputs)
            found = self._explainer.explain(images, classes, method)
        except onnx_gradcam.OnnxGradCamError as error:
            raise InferenceError(" ".join(str(error).split())) from error
        values = {
            "scores": found.scores,
            "classes": found.classes,
            "labels": list(found.class_names),
            "class_scores": found.class_scores,
            "cams": found.cams,
            "notes": list(found.notes),
            **_places(found.cams, geometries, threshold),
        }
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[_output(name, values[name]) for name in asked],
        )

    def _choices(self, payload: InferenceRequest) -> tuple[str | None, float]:
        given = payload.parameters.model_dump(exclude_none=True) if payload.parameters else {}
        _known("parameter", set(given) - OF_PROTOCOL, ("method", "threshold"))
        method, threshold = given.get("method"), given.get("threshold", 0.5)
        if method is not None:
            _known("method", [str(method)], self._limits.methods)
        if not isinstance(threshold, (int, float)) or not 0 < threshold <= 1:
            raise InferenceError(f"threshold is {threshold!r}; it takes a number in (0, 1]")
        return method, float(threshold)

    def _inputs(
        self, given: Sequence[RequestInput]
    ) -> tuple[Any, list[CropGeometry], list[Any] | None]:
        """Return the images as the model takes them, where each lies in its photo, the classes.

        Raises:
            InferenceError: inputs that do not make images, or too many.
        """
        image = self._explainer.image_input
        named = {entry.name: entry for entry in given}
        _known("input", named, (image.name, PHOTO, CLASS))
        if (image.name in named) == (PHOTO in named):
            raise InferenceError(f"give one of the inputs {image.name!r} and {PHOTO!r}")
        if PHOTO in named:
            photos = _bytes(named[PHOTO])
            self._check_count(len(photos))
            prepared = [self._explainer.prepare(photo) for photo in photos]
            images = np.concatenate([one.image for one in prepared])
            geometries = [one.geometry for one in prepared]
        else:
            array = _numbers(named[image.name])
            self._check_count(len(array) if array.ndim == len(image.shape) else 1)
            images = image.fit(array)
            size = image.spatial(images.shape)
            geometries = [CropGeometry(size, size, 0, 0, size)] * len(images)
        classes = None if CLASS not in named else _classes(named[CLASS])
        if classes is not None and len(classes) == 1:
            classes *= len(images)
        return images, geometries, classes

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self._limits.most_images:
            raise InferenceError(f"{count} images; a request takes 1 to {self._limits.most_images}")


def _known(what: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            raise InferenceError(f"no {what} {str(name)[:80]!r}; known are {', '.join(known)}")


def _datatype(entry: RequestInput) -> Datatype:
    try:
        return Datatype(entry.datatype)  # a plain str where it came by gRPC
    except ValueError as error:
        raise InferenceError(f"input {entry.name!r} is of no known type") from error


def _data(entry: RequestInput) -> Any:
    return getattr(entry.data, "root", entry.data)


def _bytes(entry: RequestInput) -> list[bytes]:
    """Return encoded pictures: as they are, or from base64 where they come as JSON.

    Raises:
        InferenceError: the data are something else.
    """
    if _datatype(entry) != Datatype.BYTES:
        raise InferenceError(f"input {entry.name!r} is {_datatype(entry).value}, not BYTES")
    try:
        return [
            base64.b64decode(item, validate=True) if isinstance(item, str) else bytes(item)
            for item in _data(entry)
        ]
    except (TypeError, ValueError) as error:
        raise InferenceError(f"input {entry.name!r} is neither bytes nor base64") from error


def _numbers(entry: RequestInput) -> Any:
    """Return a tensor as an array.

    Raises:
        InferenceError: the data are something else.
    """
    dtype = NUMBERS.get(_datatype(entry))
    if dtype is None:
        known = ", ".join(datatype.value for datatype in NUMBERS)
        raise InferenceError(f"input {entry.name!r} is {_datatype(entry).value}; known are {known}")
    try:
        return np.asarray(_data(entry), dtype).reshape(entry.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise InferenceError(
            f"input {entry.name!r}: the data are no {_datatype(entry).value} of shape"
            f" {list(entry.shape)}"
        ) from error


def _classes(entry: RequestInput) -> list[Any]:
    """Return indices, or labels where they come as BYTES.

    Raises:
        InferenceError: the data are something else.
    """
    if _datatype(entry) != Datatype.BYTES:
        return list(_numbers(entry).ravel().tolist())
    try:
        return [item.decode() if isinstance(item, bytes) else str(item) for item in _data(entry)]
    except (TypeError, ValueError) as error:
        raise InferenceError(f"input {entry.name!r}: the labels are no UTF-8") from error


def _places(cams: Any, geometries: Sequence[CropGeometry], threshold: float) -> dict[str, Any]:
    """Return peak, box and area of each map, in pixels of the photo; -1 and 0 where it is empty."""
    peaks, boxes, areas = [], [], []
    for cam, geometry in zip(cams, geometries, strict=True):
        region = region_of(cam, geometry, threshold, largest=True)
        peaks.append((-1, -1) if region is None else peak_of(cam, geometry))
        boxes.append((-1, -1, 0, 0) if region is None else region.box)
        areas.append(0 if region is None else region.area)
    named = {"peaks": peaks, "boxes": boxes, "areas": areas}
    return {name: np.array(values, np.int64) for name, values in named.items()}


def _output(name: str, values: Any) -> ResponseOutput:
    is_text = isinstance(values, list)
    return ResponseOutput(
        name=name,
        datatype=OUTPUTS[name][0],
        shape=[len(values)] if is_text else list(values.shape),
        data=TensorData(root=values if is_text else values.ravel().tolist()),
    )
