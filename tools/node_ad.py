"""A third opinion on the gradients of ONNX's node tests: onnx-ad, which shares nothing with us.

In: the models with one output and few elements. Out: `Opinion`s, whether the gradient of onnx-ad
is that of the built-in builder, in float64, for the same weights of the output.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ad  # type: ignore[import-untyped]
from onnx import numpy_helper, shape_inference

from tools.float_types import retyped
from tools.node_gradients import RefusedError, product, run_product
from tools.node_models import NodeModel, has_tensors_only, subject_of
from tools.node_slopes import DOUBLE, Array, Subject, cast_feeds, run_reference

TOLERANCE = 1e-6
"""Relative to the largest element; constants of the product are float32."""

_LARGEST = 1000
"""Elements of all inputs together."""

KNOWN = {
    r"test_reduce_.*_default_axes_.*": "onnx-ad takes empty axes for none, not for all",
    r"test_resize_tf_crop_and_resize_extrapolation_value": "onnx-ad has no extrapolation_value",
}
"""Differences that are not ours: models by name, and why; central differences agree with us."""


@dataclass(frozen=True)
class Opinion:
    """On one input of one model: ``agrees``, ``differs``, or ``none``."""

    model: str
    x: str
    word: str


def opinions(models: Iterable[NodeModel]) -> Iterator[Opinion]:
    """Yield an opinion per float input of each model of one operator with one output."""
    for model in models:
        if model.name != model.base or not has_tensors_only(model):
            continue
        subject = subject_of(model)
        if len(subject.y_names) != 1 or len(subject.model.graph.output) != 1:
            continue
        if sum(value.size for value in subject.feeds.values()) <= _LARGEST:
            for x in subject.x_names:
                yield Opinion(model.name, x, _word(subject, x))


def unexplained(found: Iterable[Opinion]) -> list[str]:
    """Return the models about which the two differ for no known reason."""
    differing = [o.model for o in found if o.word == "differs"]
    return [name for name in differing if not any(re.fullmatch(k, name) for k in KNOWN)]


def paragraph(found: Iterable[Opinion]) -> str:
    """Return what the page says."""
    counts = Counter(opinion.word for opinion in found)
    return (
        f"A third engine, onnx-ad, agrees about {counts['agrees']} pairs of the models with one"
        f" output to {TOLERANCE:.0e}; about {counts['none']} one of the two has none. It differs"
        f" about {counts['differs']}: {'; '.join(KNOWN.values())}."
    )


def _word(subject: Subject, x: str) -> str:
    (y,) = subject.y_names
    feeds = cast_feeds(subject.feeds, DOUBLE)
    seed = np.random.default_rng(1).uniform(0.3, 1.5, subject.wanted[y].shape)
    try:
        ours = run_product(product(subject, x, y, {y: seed}), feeds, DOUBLE)
    except RefusedError:
        return "none"
    try:
        theirs = _onnx_ad(subject, x, seed)
    except Exception:  # its own, onnx's, and assertions
        return "none"
    if not np.all(np.isfinite(theirs)):
        return "none"
    scale = max(float(np.abs(theirs).max(initial=0)), TOLERANCE)
    agrees = np.abs(ours - theirs).max(initial=0) <= TOLERANCE * scale
    return "agrees" if agrees else "differs"


def _onnx_ad(subject: Subject, x: str, seed: Array) -> Array:
    """Return the gradient of onnx-ad; all inputs but x are constants."""
    model, feeds = retyped(subject.model, DOUBLE), cast_feeds(subject.feeds, DOUBLE)
    inputs = {info.name: info for info in model.graph.input}
    del model.graph.input[:]
    model.graph.input.append(inputs[x])
    others = [numpy_helper.from_array(v, name) for name, v in feeds.items() if name != x]
    model.graph.initializer.extend(others)
    model.ir_version = max(4, model.ir_version)
    adjoint = onnx_ad.reverse(shape_inference.infer_shapes(model), inputs=[x], layout="onnx")
    wanted = [o for o in adjoint.graph.output if o.name == f"adj_{x}"]
    del adjoint.graph.output[:]
    adjoint.graph.output.extend(wanted)
    given = {x: feeds[x], f"adj_{subject.y_names[0]}": seed[..., None]}
    return np.asarray(run_reference(adjoint)(given)[0])[..., 0]
