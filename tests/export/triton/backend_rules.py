"""What Triton checks when it loads a model of its onnxruntime backend, said once more for tests.

Sources: core, src/model_config_utils.cc (ValidateModelConfig, ValidateIOShape);
onnxruntime_backend, src/onnxruntime.cc (ValidateInputs, ValidateOutputs) and
src/onnxruntime_utils.cc (types, CompareDimsSupported).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort

from tests.export.triton.schema import TYPES

OF_BACKEND = {
    "tensor(float)": "FP32", "tensor(float16)": "FP16", "tensor(double)": "FP64",
    "tensor(bool)": "BOOL", "tensor(string)": "STRING",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}".upper()
       for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def session_of(folder: Path) -> Any:
    """Return the session that the backend would make."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(
        str(folder / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )


def load_problems(folder: Path, config: Any) -> list[str]:
    """Return what would keep Triton from loading a model folder with a config."""
    return [*_core(folder, config), *_backend(config, session_of(folder))]


def _core(folder: Path, config: Any) -> Iterator[str]:
    if config.name != folder.name:
        yield f"name {config.name!r} in the folder {folder.name!r}"
    if config.max_batch_size < 0:
        yield "negative max_batch_size"
    if config.HasField("dynamic_batching") and config.max_batch_size < 1:
        yield "dynamic batching without a max_batch_size"
    versions = [path.name for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()]
    if versions != ["1"]:
        yield f"versions {versions}"
    for io in (*config.input, *config.output):
        if not io.name or not io.data_type or not io.dims:
            yield f"{io.name!r} lacks name, data_type or dims"
        if any(size < 1 and size != -1 for size in io.dims):
            yield f"{io.name!r} has dims {list(io.dims)}"
        if not io.HasField("reshape"):
            continue
        if not io.reshape.shape and not config.max_batch_size:
            yield f"{io.name!r} has an empty reshape without batching"
        if -1 in io.dims or list(io.dims) != [1] or io.reshape.shape:
            yield f"{io.name!r} is reshaped other than from one number to none"
    for io in config.output:
        if io.label_filename and not (folder / io.label_filename).is_file():
            yield f"{io.name!r} has no file {io.label_filename!r}"


def _backend(config: Any, session: Any) -> Iterator[str]:
    required = {node.name: node for node in session.get_inputs()}
    optional = {node.name: node for node in session.get_overridable_initializers()}
    given = {node.name: node for node in session.get_outputs()}
    if len(required) != sum(not io.optional for io in config.input):
        yield f"the model has {len(required)} inputs"
    for io in config.input:
        if io.optional and config.max_batch_size:
            yield f"optional input {io.name!r} with batching"
        yield from _compare(io, (required | optional).get(io.name), config.max_batch_size, False)
    for io in config.output:
        yield from _compare(io, given.get(io.name), config.max_batch_size, True)


def _compare(io: Any, node: Any, max_batch_size: int, exact: bool) -> Iterator[str]:
    if node is None:
        yield f"the model has no {io.name!r}"
        return
    if OF_BACKEND.get(node.type) != TYPES[io.data_type]:
        yield f"{io.name!r} is {node.type}, not {TYPES[io.data_type]}"
    shape = [size if isinstance(size, int) else -1 for size in node.shape]
    if not shape:
        if any(size != 1 for size in io.dims):
            yield f"{io.name!r} is one number"
        return
    own = list(io.reshape.shape if io.HasField("reshape") else io.dims)
    if max_batch_size:
        if shape[0] != -1:
            yield f"{io.name!r} has no open first axis"
        own = [-1, *own]
    pairs = zip(shape, own, strict=False)
    if len(shape) != len(own) or any(a != b for a, b in pairs if exact or a != -1):
        yield f"{io.name!r} has the shape {shape}, not {own}"
