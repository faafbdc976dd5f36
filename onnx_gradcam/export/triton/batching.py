"""Whether Triton's scheduler may put requests together: the signature in, the answer out.

It may where the first axis of every input and output is that of the images, and no input is
optional: the backend refuses optional inputs with a max_batch_size (onnxruntime_backend,
src/onnxruntime.cc, ValidateInputs). Open sizes are no proof: the file is run with one image and
with three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.contract import CLASS_INPUT, GATE_INPUT, ExportMetadata
from onnx_gradcam.export.files.model_file import LoadedModel
from onnx_gradcam.export.triton.tensors import Signature
from onnx_gradcam.export.verification.subject import Subject, find_shapes, input_specs, run

_TRIED = (1, 3)
"""Numbers of images: one, and another that nothing else is likely to have."""


def obstacle(
    session: Any,
    loaded: LoadedModel,
    metadata: ExportMetadata,
    found: Signature,
    given: Mapping[str, NDArray[Any]],
) -> str:
    """Return why requests cannot be put together, with the way out; empty where they can.

    Args:
        session: of the exported file.
        loaded: the file.
        metadata: what it says about itself.
        found: its inputs and outputs.
        given: values for inputs that random ones do not do for.
    """
    fixed = [t for t in (*found.inputs, *found.outputs) if not t.is_open]
    if any(tensor.name == GATE_INPUT for tensor in fixed):
        return f"{GATE_INPUT} is one for all images; export without --gate"
    if fixed:
        return f"{fixed[0].name!r} has no first axis that is open for any number of images"
    if found.optional:
        fixed_class = " or fixed:K" if found.optional == [CLASS_INPUT] else ""
        return (
            f"Triton has none with optional inputs ({', '.join(found.optional)}); export with"
            f" --class-input required{fixed_class}"
        )
    return _not_of_images(session, loaded, metadata, given)


def _not_of_images(
    session: Any,
    loaded: LoadedModel,
    metadata: ExportMetadata,
    given: Mapping[str, NDArray[Any]],
) -> str:
    """Return which output does not grow with the number of images, as a sentence."""
    values = {name: np.asarray(value) for name, value in given.items()}
    specs = input_specs(session, metadata)
    shapes = find_shapes(session, specs, metadata, values, 0, loaded.model)
    if isinstance(shapes, str):
        return shapes
    subject = Subject(loaded, metadata, loaded, specs, shapes, values, 0)
    feeds = subject.inputs() | subject.seeds({})
    for count in _TRIED:
        repeated = {name: np.repeat(value[:1], count, axis=0) for name, value in feeds.items()}
        try:
            outputs = run(session, repeated)
        except Exception as error:  # onnxruntime's exceptions share no base class
            reason = " ".join(str(error).split())[:200]
            return f"the file does not run with {count} images: {reason}"
        for name, value in outputs.items():
            if np.shape(value)[:1] != (count,):
                return f"{count} images give {name!r} of shape {np.shape(value)}"
    return ""
