"""Explanations on a GPU: whether they equal the CPU's, where the nodes run, how long it takes.

`gpu_check` puts these together. The CPU can stand in for a GPU: then the same code runs, IOBinding
and maps made where the values lie included, and shows that the check itself works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnx_gradcam import Explainer, Explanation, OnnxGradCamError, load
from onnx_gradcam.contract import PREFIX
from onnx_gradcam.runtime.device_run import Device, DeviceRun
from onnx_gradcam.runtime.graph_run import GraphRun
from onnx_gradcam.runtime.layers import layer_outputs
from tools.timing import Timing, interleaved, session_options

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))

EXACT, TF32, HALF = 1e-3, 2e-2, 3e-2
"""Largest difference from the CPU, relative to the largest value: for products in float32, in
TensorFloat-32 (10 bits of mantissa), and for models in half precision."""

METHODS = ("gradcam", "layercam", "hirescam", "gradcam++")
"""Three that are made on the device, and one on the host; none that divides by sums near zero."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Engine:
    """Execution providers, as they are asked for.

    Attributes:
        name: how to call it.
        providers: for onnxruntime, in order.
        tolerance: of float32 models.
        graphs: options of the first provider that record CUDA graphs.
        stand_in: the CPU in the place of a device.
    """

    name: str
    providers: Sequence[tuple[str, Mapping[str, str]]]
    tolerance: float
    graphs: Mapping[str, str] = field(default_factory=dict)
    stand_in: bool = False

    def load(self, path: Path, fixed: Mapping[str, int] | None = None) -> Explainer:
        """Return an exported file on this engine; as a CUDA graph where extents are fixed."""
        options = session_options(1)
        for name, extent in (fixed or {}).items():
            options.add_free_dimension_override_by_name(name, extent)
        providers = [(name, dict(own)) for name, own in self.providers]
        if fixed is not None:
            providers[0][1].update(self.graphs)
        explainer = load(path, providers=providers, session_options=options)
        if self.stand_in:
            kind = DeviceRun if fixed is None else GraphRun
            explainer._runner = replace(
                explainer._runner, device=kind(explainer._session, Device("cpu"), large(explainer))
            )
        return explainer

    def plain(self, path: Path) -> Any:
        """Return a session of the original model on this engine."""
        names = [name for name, _ in self.providers]
        own = [dict(options) for _, options in self.providers]
        return onnxruntime.InferenceSession(path, session_options(1), names, own)

    @property
    def place(self) -> tuple[str, int]:
        """Where outputs are bound to."""
        return ("cpu", 0) if self.stand_in else ("cuda", 0)


ENGINES = (
    Engine(
        "CUDA, TF32 off",
        [(CUDA, {"use_tf32": "0"}), (CPU, {})],
        EXACT,
        {"enable_cuda_graph": "1"},
    ),
    Engine(
        "CUDA, TF32 on", [(CUDA, {"use_tf32": "1"}), (CPU, {})], TF32, {"enable_cuda_graph": "1"}
    ),
    Engine(
        "TensorRT",
        [(TENSORRT, {}), (CUDA, {"use_tf32": "0"}), (CPU, {})],
        TF32,
        {"trt_cuda_graph_enable": "1"},
    ),
)

STAND_IN = Engine("the CPU in its place", [(CPU, {})], EXACT, stand_in=True)


def large(explainer: Explainer) -> list[str]:
    """Return the outputs that stay on a device."""
    return layer_outputs(range(len(explainer.metadata.layers)))


def images(explainer: Explainer, count: int) -> Array:
    """Return random images."""
    shape = [count, *(size or 224 for size in explainer.image_input.shape[1:])]
    x = np.random.default_rng(count).standard_normal(shape).astype(np.float32)
    return x.astype(explainer.image_input.dtype)


@dataclass(frozen=True)
class Equality:
    """How one value of an engine compares with the CPU's.

    Attributes:
        model: which, with its precision.
        engine: name of the engine, and whether runs are CUDA graphs.
        value: what is compared.
        error: largest difference over all calls, relative to the largest value; of classes the
            share that differs.
        tolerance: what it may be.
    """

    model: str
    engine: str
    value: str
    error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


def compare(model: str, path: Path, engine: Engine, tolerance: float) -> list[Equality]:
    """Return how an engine's explanations of a file compare with the CPU's.

    The same file, several images, classes and methods.
    """
    reference = load(path, device="cpu", session_options=session_options(1))
    worst: dict[str, float] = {}
    for found, expected in _pairs(engine.load(path), reference):
        for value, error in _errors(found, expected):
            worst[value] = max(error, worst.get(value, 0.0), key=_or_infinite)
    return [
        Equality(model, engine.name, value, error, 0.0 if value == "classes" else tolerance)
        for value, error in worst.items()
    ]


def compare_graphs(model: str, path: Path, engine: Engine, tolerance: float) -> list[Equality]:
    """Return the same for runs that are recorded as CUDA graphs, of two images.

    Raises:
        OnnxGradCamError: they cannot be recorded.
    """
    reference = load(path, device="cpu", session_options=session_options(1))
    recorded = engine.load(path, fixed_extents(reference, 2))
    worst: dict[str, float] = {}
    for turn in range(4):
        x = np.roll(images(reference, 2), turn, axis=-1)
        found, expected = (e.explain(x, [turn % 3, -1 - turn % 2]) for e in (recorded, reference))
        for value, error in _errors(found, expected):
            worst[value] = max(error, worst.get(value, 0.0), key=_or_infinite)
    name = f"{engine.name}, CUDA graph"
    return [
        Equality(model, name, value, error, 0.0 if value == "classes" else tolerance)
        for value, error in worst.items()
    ]


def fixed_extents(explainer: Explainer, count: int) -> dict[str, int]:
    """Return an extent for each open one of the image input: of the batch, and of the image."""
    shape = next(
        node.shape
        for node in explainer._session.get_inputs()
        if node.name == explainer.image_input.name
    )
    sizes = (count, *images(explainer, 1).shape[1:])
    return {d: s for d, s in zip(shape, sizes, strict=True) if isinstance(d, str)}


def _pairs(engine: Explainer, reference: Explainer) -> Iterator[tuple[Explanation, Explanation]]:
    for count in (1, 3):
        x = images(reference, count)
        for classes in (None, [n % reference.num_classes for n in range(count)]):
            for method in METHODS if set(METHODS) <= set(reference.methods) else (None,):
                yield engine.explain(x, classes, method), reference.explain(x, classes, method)


def _errors(found: Explanation, expected: Explanation) -> Iterator[tuple[str, float]]:
    yield "classes", float((found.classes != expected.classes).mean())
    names = ("scores", "raw_maps", "activations", "gradients")
    for name in names:
        own, wanted = getattr(found, name), getattr(expected, name)
        if wanted is not None:
            largest = float(np.abs(wanted).max()) or 1.0  # a map may be zero everywhere
            yield name, float(np.abs(own - wanted).max()) / largest


def _or_infinite(error: float) -> float:
    return error if np.isfinite(error) else np.inf


@dataclass(frozen=True)
class Placement:
    """Which nodes of a file run where.

    Attributes:
        model: which, with its precision.
        engine: name of the engine.
        counts: number of nodes by execution provider.
        on_host: operators of the nodes that fell back to the CPU, with how many there are, those
            that the export added under ``added``.
    """

    model: str
    engine: str
    counts: Mapping[str, int]
    on_host: Mapping[str, Mapping[str, int]]


def placement(model: str, path: Path, engine: Engine) -> Placement:
    """Return where the nodes of a file run; onnxruntime 1.24 and newer tell."""
    options = session_options(1)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    names = [name for name, _ in engine.providers]
    own = [dict(chosen) for _, chosen in engine.providers]
    session = onnxruntime.InferenceSession(path, options, names, own)
    counts: dict[str, int] = {}
    host: dict[str, dict[str, int]] = {"added": {}, "of the model": {}}
    for part in session.get_provider_graph_assignment_info():
        nodes = part.get_nodes()
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(nodes)
        for node in nodes if part.ep_name == CPU else ():
            group = host["added" if node.name.startswith(PREFIX) else "of the model"]
            group[node.op_type] = group.get(node.op_type, 0) + 1
    return Placement(model, engine.name, counts, host)


@dataclass(frozen=True)
class Timed:
    """Timings of one model on one engine.

    Attributes:
        model: which, with its precision.
        layer: the target layer.
        engine: name of the engine.
        batch: images in a run.
        times: by contestant.
    """

    model: str
    layer: str
    engine: str
    batch: int
    times: Mapping[str, Timing]


PLAIN = "plain"
CONTESTANTS = (
    PLAIN,
    "plain, outputs stay",
    "exported, all outputs",
    "explained, A and G fetched",
    "explained",
    "explained, cam in the file",
    "explained, CUDA graph",
)
"""What is timed: columns of the table, the first as it is and the others as ratios to it."""


def time_model(
    model: str, files: Mapping[str, Path], engine: Engine, batch: int, repetitions: int
) -> Timed:
    """Time plain and explained runs in turn.

    Args:
        model: how to call it.
        files: ``plain`` (the original), ``exported`` and ``cam`` (with the CAM alone).
        engine: where.
        batch: images in a run.
        repetitions: of each contestant.
    """
    plain, explainer = engine.plain(files["plain"]), engine.load(files["exported"])
    x = images(explainer, batch)
    feeds = {explainer.image_input.name: x}
    fetching = engine.load(files["exported"])
    fetching._runner = replace(fetching._runner, device=None)
    calls: dict[str, Callable[[], object]] = {
        PLAIN: partial(plain.run, None, feeds),
        "plain, outputs stay": partial(_bound_run, plain, feeds, engine.place),
        "exported, all outputs": partial(explainer._session.run, None, feeds),
        "explained, A and G fetched": partial(fetching.explain, x),
        "explained": partial(explainer.explain, x),
        "explained, cam in the file": partial(engine.load(files["cam"]).explain, x),
    }
    with suppress(OnnxGradCamError):  # `compare_graphs` has told why
        recorded = engine.load(files["exported"], fixed_extents(explainer, batch))
        recorded.explain(x)
        calls["explained, CUDA graph"] = partial(recorded.explain, x)
    times = interleaved(calls, repetitions, warmup=10)
    return Timed(model, explainer.metadata.target, engine.name, batch, times)


def _bound_run(session: Any, feeds: Mapping[str, Array], place: tuple[str, int]) -> None:
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for node in session.get_outputs():
        binding.bind_output(node.name, *place)
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
