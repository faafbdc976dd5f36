"""The options that all explaining calls share: one list of names, types and meanings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from onnx_gradcam.errors import nearest_names
from onnx_gradcam.runtime.extra_inputs import Values


class ExplainOptions(TypedDict, total=False):
    """Keyword arguments of `Explainer.explain`, `explain_classes` and `explain_image`.

    Attributes:
        eigen_smooth: take the first principal component of the map's summands over the channels
            instead of their sum: less noise.
        aug_smooth: average the heat maps of six versions of each image (mirrored, and multiplied
            by 0.9, 1, 1.1); runs the session six times.
        seed: of a method that draws at random.
        extra_inputs: values for the model's other inputs, by name.
    """

    eigen_smooth: bool
    aug_smooth: bool
    seed: int
    extra_inputs: Values | None


def checked_names(options: Mapping[str, Any]) -> None:
    """Check that all options have a name that is known, as Python does for arguments.

    Raises:
        TypeError: one has not; the nearest names are offered.
    """
    known = ExplainOptions.__annotations__
    for name in options:
        if name not in known:
            raise TypeError(f"no option {name!r}{nearest_names(name, known)}")
