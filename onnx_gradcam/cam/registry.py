"""The table of CAM methods: name in, function and citation out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import UsageError, nearest_names

Maps = NDArray[np.float32]
MethodFunction = Callable[[Maps, Maps], Maps]


@dataclass(frozen=True)
class Method:
    """One CAM method.

    Attributes:
        name: how users call it, e.g. ``gradcam++``.
        title: the title of its paper.
        paper: where to read it, ``arXiv:...`` or ``doi:...``.
        needs_gradients: False when the map depends on the activations alone.
        function: ``(activations, gradients) -> raw maps``, float32 ``(N, C, *spatial)`` twice
            in, float32 ``(N, *spatial)`` out.
    """

    name: str
    title: str
    paper: str
    needs_gradients: bool
    function: MethodFunction


_METHODS: dict[str, Method] = {}


def register(
    name: str, *, title: str, paper: str, needs_gradients: bool = True
) -> Callable[[MethodFunction], MethodFunction]:
    """Return a decorator that enters a function into the table under `name`.

    Raises:
        ValueError: `name` is taken already.
    """

    def enter(function: MethodFunction) -> MethodFunction:
        if name in _METHODS:
            raise ValueError(f"CAM method {name!r} is registered already")
        _METHODS[name] = Method(name, title, paper, needs_gradients, function)
        return function

    return enter


def method_names() -> tuple[str, ...]:
    """Return the names of all methods in the order of registration."""
    return tuple(_METHODS)


def get_method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        UsageError: there is none; the nearest names are offered.
    """
    if name not in _METHODS:
        raise UsageError(
            f"no CAM method {name!r}{nearest_names(str(name), _METHODS)}"
            f" (methods: {', '.join(_METHODS)})"
        )
    return _METHODS[name]


def compute(name: str, activations: NDArray[Any], gradients: NDArray[Any]) -> Maps:
    """Return the raw maps of a method, before ReLU, normalisation and resize.

    Args:
        name: name of the method.
        activations: A, float ``(N, C, *spatial)`` with one to three spatial axes. NaN counts
            as 0, infinity as the largest float32; half precision is computed in float32.
        gradients: dy/dA, float, of the same shape.

    Returns:
        float32 ``(N, *spatial)``, of either sign.

    Raises:
        UsageError: unknown method, or shapes that do not fit.
    """
    method = get_method(name)
    if activations.shape != gradients.shape or not 3 <= activations.ndim <= 5:
        raise UsageError(
            "activations and gradients must share one shape (N, C, *spatial) with 1 to 3 spatial"
            f" axes, got {activations.shape} and {gradients.shape}"
        )
    if 0 in activations.shape:
        return np.zeros(activations.shape[:1] + activations.shape[2:], np.float32)
    with np.errstate(all="ignore"):  # overflow and 0/0 are met by finite_float32 below
        raw = method.function(finite_float32(activations), finite_float32(gradients))
        return finite_float32(raw)


def finite_float32(values: NDArray[Any]) -> Maps:
    """Return `values` as float32 with NaN as 0 and infinities as the largest finite numbers."""
    with np.errstate(over="ignore"):
        narrowed = np.asarray(values, dtype=np.float32)
    return narrowed if np.isfinite(narrowed).all() else np.nan_to_num(narrowed)
