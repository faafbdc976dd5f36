"""Several classes of one image in one run: the gradient sub-graph as the body of a Scan.

In: the emitter, in which the gradient has been written for the seed of one class per image, and
the seeds of T classes. Out: a Scan over T, with the nodes that depend on the seed as its body.
What does not (weights turned around, masks) stays outside and is computed once, sizes aside.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto, TensorProto, helper

from onnx_gradcam.contract import PREFIX
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.seed import Seed
from onnx_gradcam.gradients.emitter import Dim, Emitter

INT64 = int(TensorProto.INT64)

ONE_SEED = f"{PREFIX}several/seed"
"""The seed of one class per image: what the body of the Scan is fed."""

ONE_GRADIENT = f"{PREFIX}several/gradient"
"""Its gradient by A, channels first: what the body gives."""

SCAN_SINCE_OPSET = 9
"""Before that Scan had another form."""


def check_several(opset: int) -> None:
    """Check that the opset can express it.

    Raises:
        UnsupportedModelError: it cannot.
    """
    if opset < SCAN_SINCE_OPSET:
        raise UnsupportedModelError(
            f"several classes per run need opset {SCAN_SINCE_OPSET} (Scan), the model has opset"
            f" {opset}; convert the model with onnx.version_converter"
        )


def one_seed(emit: Emitter, seed: Seed) -> str:
    """Return what stands for the seed of one class while the gradient is written."""
    emit.declare(ONE_SEED, emit.dtype(seed.seed))
    return ONE_SEED


def repeat_for_seeds(
    emit: Emitter, seeds: str, shape: Sequence[Dim] | None, results: dict[str, str]
) -> None:
    """Move what depends on `ONE_SEED` into a Scan over the second axis of `seeds`.

    Args:
        emit: holds the nodes; they are rearranged.
        seeds: ``(N, T, ...)``, the axes of the score tensor without the first behind T.
        shape: of the score tensor, as far as it is known.
        results: tensors that depend on the seed -> names for them with an axis T behind N.
    """
    moved = {ONE_SEED}
    body: list[NodeProto] = []
    outside: list[NodeProto] = []
    for node in emit.nodes:
        inside = any(name in moved for name in Graph.reads(node))
        if inside:
            moved.update(node.output)
        (body if inside else outside).append(node)
    outside, sizes = _sizes_of(body, outside, emit)
    body = [*sizes, *body]
    body, constants = _with_sizes_inside(body, emit)
    given = helper.make_tensor_value_info(ONE_SEED, emit.dtype(ONE_SEED), shape)
    made = [helper.make_tensor_value_info(name, emit.dtype(name), None) for name in results]
    graph = helper.make_graph(body, f"{PREFIX}several/one_class", [given], made, constants)
    name = emit.unique("several/Scan")
    scan = helper.make_node(
        "Scan",
        [seeds],
        list(results.values()),
        name=name,
        body=graph,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_output_axes=[1] * len(results),
    )
    emit.nodes[:] = [*outside, scan]
    for one, output in results.items():
        emit.declare(output, emit.dtype(one))


def _sizes_of(
    body: list[NodeProto], outside: list[NodeProto], emit: Emitter
) -> tuple[list[NodeProto], list[NodeProto]]:
    """Return the nodes outside without those that only compute sizes for the body, and these.

    Inference in a sub-graph knows no values from outside; Resize must know how many sizes it gets.
    """
    read_inside = {name for node in body for name in Graph.reads(node)}
    read_outside: set[str] = set()
    kept: list[NodeProto] = []
    sizes: list[NodeProto] = []
    for node in reversed(outside):
        of_body = all(
            name in read_inside and name not in read_outside and emit.dtype(name) == INT64
            for name in node.output
        )
        (sizes if of_body else kept).append(node)
        (read_inside if of_body else read_outside).update(Graph.reads(node))
    return kept[::-1], sizes[::-1]


def _with_sizes_inside(
    body: list[NodeProto], emit: Emitter
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the body with constants of its own for sizes and indices, and these."""
    outer = {t.name: t for t in emit.initializers if t.data_type == INT64}
    inner: dict[str, TensorProto] = {}
    for node in body:
        for index, name in enumerate(node.input):
            if name not in outer:
                continue
            if name not in inner:
                inner[name] = TensorProto()
                inner[name].CopyFrom(outer[name])
                inner[name].name = f"{PREFIX}several/{name.removeprefix(PREFIX)}"
            node.input[index] = inner[name].name
    return body, list(inner.values())
