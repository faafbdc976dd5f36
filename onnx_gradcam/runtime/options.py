"""The options that all explaining calls share: one list of names, types and meanings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from numpy.typing import ArrayLike

from onnx_gradcam.errors import nearest_names
from onnx_gradcam.runtime.extra_inputs import Values
from onnx_gradcam.runtime.layers import LayerIds


class ExplainOptions(TypedDict, total=False):
    """Keyword arguments of `Explainer.explain`, `explain_classes` and `explain_image`.

    Attributes:
        eigen_smooth: take the first principal component of the map's summands over the channels
            instead of their sum: less noise.
        aug_smooth: average the heat maps of six versions of each image (mirrored, and multiplied
            by 0.9, 1, 1.1); runs the session six times.
        seed: of a method that draws at random.
        settings: of the method, such as ``{"masks": 4000}`` of ``rise``; ``onnx-gradcam methods``
            lists them.
        extra_inputs: values for the model's other inputs, by name.
        weights: y = sum_k w_k y_k in place of a class: a mapping of classes to numbers, or float
            ``(K,)``, ``(N, K)``; for files exported with ``--weights``. ``{a: 1, b: -1}`` is the
            contrast of two classes.
        mask: where the scores of the class are summed, float ``(H, W)`` or ``(N, H, W)`` of the
            size of the score map; None for the region that the model gives to the class. For
            files exported with ``--objective segmentation``.
        box: index of the box, -k for the k-th highest score; one, or one for each image. For
            files exported with ``--objective detection``.
        embedding: what the model's embedding is compared with, float ``(D,)`` or ``(N, D)``. For
            files exported with ``--objective similarity``.
        layers: which of the file's target layers to take, by tensor or number (from 0); all unless
            given.
        fuse_layers: ``mean`` or ``max``: how the heat maps of several layers become one.

    `explain_classes` and `explain_image` take several weights, boxes or embeddings of their one
    image, and give a map for each.
    """

    eigen_smooth: bool
    aug_smooth: bool
    seed: int
    settings: Mapping[str, Any] | None
    extra_inputs: Values | None
    weights: Mapping[Any, float] | ArrayLike | None
    mask: ArrayLike | None
    box: int | ArrayLike | None
    embedding: ArrayLike | None
    layers: LayerIds | None
    fuse_layers: str


def checked_names(options: Mapping[str, Any]) -> None:
    """Check that all options have a name that is known, as Python does for arguments.

    Raises:
        TypeError: one has not; the nearest names are offered.
    """
    known = ExplainOptions.__annotations__
    for name in options:
        if name not in known:
            raise TypeError(f"no option {name!r}{nearest_names(name, known)}")
