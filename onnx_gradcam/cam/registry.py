"""The table of CAM methods: name in, function, citation and needs out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam.components import Maps as Maps
from onnx_gradcam.cam.components import channel_sum, first_component
from onnx_gradcam.cam.finite import finite_float32
from onnx_gradcam.errors import UnsupportedModelError, UsageError, nearest_names

MethodFunction = Callable[..., Maps]


class Need(StrEnum):
    """What a method takes beside the activations; its function gets it under the lower-case name.

    GRADIENTS as ``gradients``, SEED as ``seed``, HEAD_RUNS as ``head_runs`` (a `runs.HeadRuns`),
    MODEL_RUNS as ``model_runs`` (a `runs.ModelRuns`), WEIGHTS as ``weights`` (a
    `runs.WeightedRuns`), and so on.
    """

    GRADIENTS = "gradients"
    HEAD_RUNS = "head runs"
    MODEL_RUNS = "whole-model runs"
    SEED = "seed"
    WEIGHTS = "weighted classes"
    CURVATURE = "second derivatives"
    ATTENTION = "attention"
    LEGRAD = "gradients of attention"
    BIASES = "gradients of biases"


RERUNS = frozenset({Need.HEAD_RUNS, Need.MODEL_RUNS, Need.WEIGHTS})
"""Needs for which the model, or a part of it, runs again."""


@dataclass(frozen=True)
class Method:
    """One CAM method.

    Attributes:
        name: how users call it, e.g. ``gradcam++``.
        title: the title of its paper.
        paper: where to read it, ``arXiv:...``, ``doi:...`` or ``hdl:...``.
        needs: what it takes beside the activations.
        smooths: whether it sums over the channels, so that ``eigen_smooth`` can replace the sum.
        rectified: whether 0 in its raw map means no evidence, so that a heat map shows what is
            above; else it shows what is above the lowest value.
        function: ``(activations, **needs) -> raw maps``, ``(N, C, *spatial)`` in, ``(N, *spatial)``
            out; one that smooths takes ``combine`` as well, what replaces the sum: it takes
            summands X, or X and weights w for the summands w_k X^k.
        sees_activations: False for a method that knows the model from outside: its function takes
            no activations, and its raw maps are of the image's size.
        shows_overflow: whether NaN or infinity anywhere in A or G of an image makes its map NaN or
            infinite somewhere, so that a finite map proves both finite. That is of the sum.
    """

    name: str
    title: str
    paper: str
    needs: tuple[Need, ...]
    smooths: bool
    rectified: bool
    function: MethodFunction
    sees_activations: bool = True
    shows_overflow: bool = False

    @property
    def needs_gradients(self) -> bool:
        """False when the map depends on the activations alone."""
        return Need.GRADIENTS in self.needs

    @property
    def settings(self) -> Mapping[str, Any]:
        """What can be set of it, name -> default: its function's keyword-only arguments."""
        parameters = signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def maps(
        self,
        activations: Maps,
        given: Mapping[Need, Any],
        *,
        eigen_smooth: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> Maps:
        """Return the raw maps in the precision of the activations; `given` holds all needs."""
        arguments = {need.name.lower(): given[need] for need in self.needs} | dict(settings or {})
        if self.smooths:
            arguments["combine"] = first_component if eigen_smooth else channel_sum
        return self.function(*[activations] * self.sees_activations, **arguments)


_METHODS: dict[str, Method] = {}

_REMEDIES = {
    Need.WEIGHTS: "--weights",
    Need.CURVATURE: "--second-order",
    Need.ATTENTION: "--attention rollout",
    Need.LEGRAD: "--attention legrad",
}
"""Options of the export with which a file offers it."""


def register(
    name: str,
    *,
    title: str,
    paper: str,
    needs: tuple[Need, ...] = (Need.GRADIENTS,),
    smooths: bool = False,
    rectified: bool = True,
    sees_activations: bool = True,
    shows_overflow: bool = False,
) -> Callable[[MethodFunction], MethodFunction]:
    """Return a decorator that enters a function into the table under `name`.

    Raises:
        ValueError: `name` is taken already.
    """

    def enter(function: MethodFunction) -> MethodFunction:
        if name in _METHODS:
            raise ValueError(f"CAM method {name!r} is registered already")
        _METHODS[name] = Method(
            name,
            title,
            paper,
            needs,
            smooths,
            rectified,
            function,
            sees_activations,
            shows_overflow,
        )
        return function

    return enter


def method_names(offered: Collection[Need] = tuple(Need)) -> tuple[str, ...]:
    """Return the names of the methods that need nothing but what is offered, as registered."""
    return tuple(name for name, method in _METHODS.items() if not {*method.needs} - {*offered})


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


def require(
    name: str,
    offered: Collection[Need],
    *,
    eigen_smooth: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Method:
    """Return the method called `name` where everything that it needs is offered.

    Raises:
        UsageError: there is none of that name, it cannot be smoothed, or has no such setting.
        UnsupportedModelError: it needs something that is not offered.
    """
    method = get_method(name)
    missing = [need for need in method.needs if need not in offered]
    if missing:
        options = "".join(f" with {_REMEDIES[need]}" for need in missing if need in _REMEDIES)
        remedy = f" export the model again{options}, or use another method:" if options else ""
        raise UnsupportedModelError(
            f"CAM method {name!r} needs {' and '.join(missing)}, which the file does not offer;"
            f"{remedy} it can serve {', '.join(method_names(offered))}"
        )
    for setting, value in (settings or {}).items():
        _check_setting(method, setting, value)
    if eigen_smooth and not method.smooths:
        smoothing = [name for name in method_names(offered) if _METHODS[name].smooths]
        raise UsageError(
            f"CAM method {name!r} is no sum over channels that eigen_smooth could replace;"
            f" it goes with {', '.join(smoothing)}"
        )
    return method


def _check_setting(method: Method, setting: str, value: Any) -> None:
    """Check the name and value of a setting.

    Raises:
        UsageError: the method has none of that name, or the value is not of its kind.
    """
    known = method.settings
    if setting not in known:
        listed = ", ".join(f"{name} ({default})" for name, default in known.items())
        raise UsageError(
            f"CAM method {method.name!r} has no setting {setting!r}{nearest_names(setting, known)}"
            f" (settings: {listed or 'none'})"
        )
    kind = _KINDS[type(known[setting])]
    values = value if known[setting] is None and isinstance(value, Sequence) else [value]
    if not all(isinstance(v, kind) and not isinstance(v, bool) and v > 0 for v in values):
        raise UsageError(
            f"setting {setting!r} of CAM method {method.name!r} takes"
            f" {'whole ' * (kind is int)}numbers above 0, not {value!r}"
        )


_KINDS: Mapping[type, Any] = {int: int, float: int | float, type(None): int}
"""Type of a setting's default -> of its values; those without a default are sizes, one per axis."""


def compute(
    name: str,
    activations: NDArray[Any],
    gradients: NDArray[Any] | None = None,
    *,
    eigen_smooth: bool = False,
    seed: int = 0,
    further: Mapping[Need, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Maps:
    """Return the raw maps of a method, before ReLU, normalisation and resize.

    Args:
        name: name of the method.
        activations: A, float ``(N, C, *spatial)`` with one to three spatial axes. NaN counts
            as 0, infinity as the largest float32; half precision is computed in float32.
        gradients: dy/dA, float, of the same shape; a method that needs none goes without.
        eigen_smooth: project the summands of the map on their first principal component over
            the channels, instead of adding them up.
        seed: of a method that draws at random.
        further: what else the method needs, see `Need`.
        settings: of the method, see `Method.settings`.

    Returns:
        float32 ``(N, *spatial)``, of either sign; ``(N, *size)`` of a method that sees the image
        and no activations.

    Raises:
        UsageError: unknown method, shapes that do not fit, or a method that cannot be smoothed.
        UnsupportedModelError: gradients that the method needs are missing, or of another form
            than it can take.
    """
    options: dict[str, Any] = {"eigen_smooth": eigen_smooth, "seed": seed, "further": further}
    raw = evaluate(name, activations, gradients, settings=settings, **options)
    return finite_float32(raw)


def evaluate(
    name: str,
    activations: NDArray[Any],
    gradients: NDArray[Any] | None = None,
    *,
    eigen_smooth: bool = False,
    seed: int = 0,
    further: Mapping[Need, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    as_they_are: bool = False,
) -> Maps:
    """Return what `compute` returns, with NaN or infinity where a map overflows.

    Args:
        name: see `compute`.
        activations: likewise.
        gradients: likewise.
        eigen_smooth: likewise.
        seed: likewise.
        further: likewise.
        settings: likewise.
        as_they_are: A and G are float32, and what they hold goes into the formula unchanged.

    Raises:
        UsageError: see `compute`.
        UnsupportedModelError: see `compute`.
    """
    given: dict[Need, Any] = {Need.SEED: seed, **(further or {})}
    if gradients is not None:
        given[Need.GRADIENTS] = gradients
    method = require(name, given, eigen_smooth=eigen_smooth, settings=settings)
    shapes = [activations.shape, *([] if gradients is None else [gradients.shape])]
    if shapes[0] != shapes[-1] or not 3 <= activations.ndim <= 5:
        raise UsageError(
            "activations and gradients must share one shape (N, C, *spatial) with 1 to 3 spatial"
            f" axes, got {' and '.join(map(str, shapes))}"
        )
    if 0 in activations.shape:
        return np.zeros(activations.shape[:1] + activations.shape[2:], np.float32)
    if not as_they_are:
        activations = finite_float32(activations)
        if gradients is not None:
            given[Need.GRADIENTS] = finite_float32(gradients)
    with np.errstate(all="ignore"):  # overflow and 0/0 show in the result
        raw = method.maps(activations, given, eigen_smooth=eigen_smooth, settings=settings)
        return np.asarray(raw, np.float32)
