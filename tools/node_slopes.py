"""Slopes of a small model that somebody else wrote, with inputs that they gave.

In: a `Subject`, and an `Engine` that runs it. Out: `Slopes`, derivatives of L, a randomly weighted
sum of an output, along directions in the space of one input x: central differences, where the
slopes on both sides of x are the same. At a kink x is moved a little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from onnx_gradcam.export.reference.operators import evaluator
from onnx_gradcam.gradients.registry import FLOATS

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Run = Callable[[Feeds], list[Array]]

ELEMENTS = 24
"""So many elements of x are moved one by one; of larger x a random choice of that size."""

DENSE = 4
"""So many random directions that move all elements of x at once."""

_SIGNS = (1, -1, 2, -2)


@dataclass(frozen=True)
class Engine:
    """What runs the forward model, and how exact derivatives of it are.

    Attributes:
        name: for the report.
        dtype: the float type of the model that it is given.
        step: of the central differences.
        sides: accepted difference of the slopes on both sides of x, relative to the largest.
        tolerance: accepted deviation of the gradient, and of slopes with two steps from each
            other, relative to the largest slope.
        load: makes a model into a function.
        largest: so many elements x has at most; the loops of the reference are slow.
    """

    name: str
    dtype: int
    step: float
    sides: float
    tolerance: float
    load: Callable[[ModelProto], Run]
    largest: int = 2**31


@dataclass
class Subject:
    """A model with values for its inputs and outputs."""

    model: ModelProto
    feeds: dict[str, Array]
    wanted: dict[str, Array]
    x_names: list[str] = field(init=False)
    y_names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Find what is float."""
        self.x_names = [i.name for i in self.model.graph.input if _is_float(i)]
        self.y_names = [o.name for o in self.model.graph.output if _is_float(o)]


# -- engines -----------------------------------------------------------------------------------


def run_onnxruntime(model: ModelProto) -> Run:
    """Return a function that runs the model in onnxruntime, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    return lambda feeds: session.run(None, {name: feeds[name] for name in names})


def run_reference(model: ModelProto) -> Run:
    """Return a function that runs the model in ONNX's reference implementation, corrected."""
    reference = evaluator(model)

    def run(feeds: Feeds) -> list[Array]:
        with np.errstate(all="ignore"):
            return list(reference.run(None, {n: feeds[n] for n in reference.input_names}))

    return run


DOUBLE, SINGLE = int(TensorProto.DOUBLE), int(TensorProto.FLOAT)

ENGINES = (
    Engine("onnxruntime, float64", DOUBLE, 2.0**-17, 2e-3, 1e-6, run_onnxruntime),
    Engine("reference, float64", DOUBLE, 2.0**-17, 2e-3, 1e-6, run_reference, 4096),
    Engine("onnxruntime, float32", SINGLE, 2.0**-7, 8e-2, 2e-2, run_onnxruntime),
)

# -- measuring ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slopes:
    """Derivatives of L along directions in the space of x, per output.

    ``noise`` is what rounding adds to them; ``moved`` says whether x is not the given one.
    """

    x: Array
    directions: Array
    seeds: dict[str, Array]
    along: dict[str, Array]
    noise: float
    moved: bool = False


def measure(subject: Subject, engine: Engine, run: Run, x: str) -> Slopes | str:
    """Return the slopes of the weighted sum of each output along directions of one input.

    Returns:
        What is wrong, where L has no slope at x, nor beside it.
    """
    feeds = cast_feeds(subject.feeds, engine.dtype)
    problem = "no slope"
    for moved, place in enumerate(_places(feeds[x])):
        start = place.astype(feeds[x].dtype)
        try:
            found = _measure_at(subject, engine, run, x, {**feeds, x: start})
        except Exception as error:  # of whatever engine, or other shapes than before
            problem = short(error)
            continue
        if isinstance(found, str):
            problem = found
            continue
        return replace(found, moved=bool(moved))
    return problem


def _measure_at(subject: Subject, engine: Engine, run: Run, x: str, feeds: Feeds) -> Slopes | str:
    base = run(feeds)
    seeds = _seeds(subject, base)
    directions = _directions(feeds[x])
    shifts = [
        _shifted(subject, run, feeds, x, directions * sign * engine.step, seeds) for sign in _SIGNS
    ]
    noise = _noise(subject, base, seeds, engine)
    along = _slopes(shifts, _weighted(subject, base, seeds), engine, noise)
    return along if isinstance(along, str) else Slopes(feeds[x], directions, seeds, along, noise)


def _slopes(
    shifts: Sequence[Mapping[str, Array]], base: Mapping[str, float], engine: Engine, noise: float
) -> dict[str, Array] | str:
    up, down, far_up, far_down = shifts
    along = {}
    for y, middle in base.items():
        near, far = (up[y] - down[y]) / 2, (far_up[y] - far_down[y]) / 4
        right, left = up[y] - middle, middle - down[y]
        scale = max(np.abs(near).max(initial=0), engine.step * noise / engine.tolerance)
        if not np.all(np.isfinite([right, left])):
            return "the output is not finite beside x"
        if np.abs(right - left).max(initial=0) > engine.sides * scale:
            return f"slopes differ on both sides of {y}"
        if np.abs(near - far).max(initial=0) > engine.tolerance * scale:
            return f"slopes differ between steps of {y}"
        along[y] = (4 * near - far) / 3 / engine.step
    return along


def _noise(
    subject: Subject, outputs: Sequence[Array], seeds: Mapping[str, Array], engine: Engine
) -> float:
    """Return a bound of the rounding in slopes: of each output, and of their sum."""
    named = zip(subject.model.graph.output, outputs, strict=True)
    finite = {i.name: np.nan_to_num(y.astype(np.float64)) for i, y in named if i.name in seeds}
    size = sum(float(np.sum(np.abs(np.where(seeds[y] == 0, 0, v)))) for y, v in finite.items())
    return float(np.finfo(helper.tensor_dtype_to_np_dtype(engine.dtype)).eps) * size / engine.step


def _places(x: Array) -> Iterator[Array]:
    """Return x, and x moved off kinks: up, and by a share of itself."""
    rng = np.random.default_rng(3)
    yield x
    yield x + rng.uniform(0.01, 0.04, x.shape)
    yield x * rng.uniform(0.93, 0.98, x.shape)


def _directions(x: Array) -> Array:
    """Return directions ``(count, *x.shape)``: single elements, then random ones of all.

    Elements that are not finite stay where they are.
    """
    rng = np.random.default_rng(4)
    finite = np.flatnonzero(np.isfinite(x))
    chosen = finite if finite.size <= ELEMENTS else rng.choice(finite, ELEMENTS, replace=False)
    single = np.zeros((chosen.size, x.size))
    single[np.arange(chosen.size), chosen] = 1
    dense = np.zeros((DENSE if x.size > 1 else 0, x.size))
    dense[:, finite] = rng.uniform(-1, 1, (len(dense), finite.size))
    return np.concatenate([single, dense]).reshape(-1, *x.shape)


def _shifted(
    subject: Subject, run: Run, feeds: Feeds, x: str, shifts: Array, seeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Return L of each output at x plus each of the shifts."""
    values: dict[str, list[float]] = {y: [] for y in seeds}
    for shift in shifts:
        outputs = run({**feeds, x: (feeds[x] + shift).astype(feeds[x].dtype)})
        for y, value in _weighted(subject, outputs, seeds).items():
            values[y].append(value)
    return {y: np.array(found) for y, found in values.items()}


def _weighted(
    subject: Subject, outputs: Sequence[Array], seeds: Mapping[str, Array]
) -> dict[str, float]:
    found = dict(zip([o.name for o in subject.model.graph.output], outputs, strict=True))
    with np.errstate(all="ignore"):
        return {
            y: float(np.sum(np.where(seed == 0, 0, found[y].astype(np.float64) * seed)))
            for y, seed in seeds.items()
        }


def _seeds(subject: Subject, outputs: Sequence[Array]) -> dict[str, Array]:
    """Return random weights per float output, zero where it is not finite."""
    rng = np.random.default_rng(5)
    seeds = {}
    for info, value in zip(subject.model.graph.output, outputs, strict=True):
        if info.name in subject.y_names:
            drawn = rng.uniform(0.3, 1.5, value.shape) * rng.choice([-1, 1], value.shape)
            seeds[info.name] = np.where(np.isfinite(value.astype(np.float64)), drawn, 0)
    return seeds


def reproduces(subject: Subject, outputs: Sequence[Array]) -> bool:
    """Return whether the float outputs are those that came with the model."""
    for info, value in zip(subject.model.graph.output, outputs, strict=True):
        if info.name in subject.y_names and info.name in subject.wanted:
            wanted = subject.wanted[info.name]
            exact = 2e-3 if wanted.dtype.itemsize > 2 else 3e-2
            if value.shape != wanted.shape or not np.allclose(
                value.astype(np.float64), wanted.astype(np.float64), exact, exact, equal_nan=True
            ):
                return False
    return True


# -- small things ------------------------------------------------------------------------------


def cast_feeds(feeds: Feeds, dtype: int) -> dict[str, Array]:
    """Return the feeds with all floats in one type."""
    to = helper.tensor_dtype_to_np_dtype(dtype)
    floats = {helper.tensor_dtype_to_np_dtype(number) for number in FLOATS}
    return {name: v.astype(to) if v.dtype in floats else v for name, v in feeds.items()}


def _is_float(info: ValueInfoProto) -> bool:
    return info.type.HasField("tensor_type") and info.type.tensor_type.elem_type in FLOATS


def short(error: Exception) -> str:
    """Return the message of an error, in one line."""
    return " ".join(str(error).split())[:200]
