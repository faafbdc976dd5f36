from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnx_gradcam.errors import InvalidModelError, ModelError, UnsupportedModelError
from onnx_gradcam.runtime.cutting import cut, divide, index_model
from onnx_gradcam.wire import Span, encoded, fields, number_field, text, varint

ZOO = sorted((Path(__file__).parents[2] / "zoo").glob("*.onnx"))

CHAIN = """
<ir_version: 8, opset_import: ["" : 17, "ours" : 1], producer_name: "someone",
 metadata_props: ["onnx_gradcam.target": "a"]>
chain (float[N, 3] image, float[1] gain) => (float[N, 3] logits, float[N, 3] unused)
<float[3] weight = {1, 2, 3}, float[3] other = {4, 5, 6}, float[N, 3] a, float[N, 3] b>
{
  half = Constant <value = float {0.5}> ()
  a = ours.scaled (image, weight)
  bypass = Mul (image, gain)
  b = Add (a, bypass)
  shape = Shape (image)
  wide = Expand (half, shape)
  is_large = Greater (b, wide)
  flag_float = Cast <to = 1> (is_large)
  one = ReduceMax <keepdims = 0> (flag_float)
  flag = Cast <to = 9> (one)
  logits = If (flag) <
    then_branch = then () => (float[N, 3] t) { inner = Mul (b, other)  t = Add (inner, bypass) },
    else_branch = else () => (float[N, 3] e) { e = Identity (a) }
  >
  unused = Mul (a, weight)
}
<domain: "ours", opset_import: ["" : 17]>
scaled (x, w) => (y) { y = Mul (x, w) }
"""
"""A sub-graph that reads outer tensors, a function, Constant nodes, sizes, what nobody needs."""


def model(text_: str = CHAIN) -> ModelProto:
    found = onnx.parser.parse_model(text_)
    onnx.checker.check_model(found)
    return found


def taken(found: ModelProto, outputs: list[str], inputs: dict[str, int] | None = None) -> bytes:
    return cut(index_model(memoryview(found.SerializeToString())), outputs, inputs)


def outer_reads(node: NodeProto) -> set[str]:
    """Return what a node reads, in its sub-graphs too: onnx's own view of it."""
    read = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            inner = {o.name for o in graph.output}.union(*map(outer_reads, graph.node))
            own = {o for n in graph.node for o in n.output}
            read |= inner - own - {v.name for v in (*graph.input, *graph.initializer)}
    return read


def extracted(source: ModelProto, outputs: list[str], inputs: dict[str, int]) -> ModelProto:
    """Return a cut by means of the package onnx."""
    graph = source.graph
    needed, nodes = set(outputs) - set(inputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.insert(0, node)
            needed |= outer_reads(node) - set(inputs)
    result = ModelProto()
    result.CopyFrom(source)
    for field in (result.metadata_props, *(getattr(result.graph, f) for f in PARTS)):
        del field[:]
    new = result.graph
    new.node.extend(nodes)
    new.initializer.extend(t for t in graph.initializer if t.name in needed)
    new.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
    made = {o for n in nodes for o in n.output}
    new.input.extend(v for v in graph.input if v.name in needed and v.name not in made)
    new.input.extend(helper.make_tensor_value_info(n, k, None) for n, k in inputs.items())
    declared = {v.name: v for v in graph.output}
    new.output.extend(declared.get(name, ValueInfoProto(name=name)) for name in outputs)
    known = (needed | made) - set(outputs)
    new.value_info.extend(v for v in graph.value_info if v.name in known)
    new.quantization_annotation.extend(
        q for q in graph.quantization_annotation if q.tensor_name in known
    )
    return result


PARTS = (
    "node",
    "initializer",
    "sparse_initializer",
    "input",
    "output",
    "value_info",
    "quantization_annotation",
)
FLOAT, INT64 = int(TensorProto.FLOAT), int(TensorProto.INT64)


@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [
        (["logits"], {}),
        (["a", "bypass"], {}),
        (["logits"], {"a": FLOAT, "bypass": FLOAT, "shape": INT64}),
        (["b", "unused"], {"a": FLOAT}),
        (["image"], {}),
    ],
)
def test_cuts_are_those_of_the_package_onnx(outputs: list[str], inputs: dict[str, int]) -> None:
    source = model()
    found = onnx.load_from_string(taken(source, outputs, inputs))
    assert found == extracted(source, outputs, inputs)
    assert [f.name for f in found.functions] == ["scaled"]
    assert found.producer_name == "someone"
    assert not found.metadata_props


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_cuts_of_real_architectures(path: Path) -> None:
    source = onnx.load(path)
    with np.load(path.with_suffix(".npz")) as known:
        target = str(known["auto_target"])
    score = source.graph.output[0].name
    index = index_model(memoryview(path.read_bytes()))
    division = divide(index, target, score)
    fed = dict.fromkeys([target, *division.boundary], FLOAT)
    head = onnx.load_from_string(cut(index, [score], fed))
    assert head == extracted(source, [score], fed)
    assert len(head.graph.node) == division.nodes < 0.8 * len(source.graph.node)
    trunk = [target, *division.boundary]
    assert onnx.load_from_string(cut(index, trunk)) == extracted(source, trunk, {})
    weights = {t.name for t in source.graph.initializer}
    assert len({t.name for t in head.graph.initializer}) < len(weights)


def test_parts_compute_what_the_whole_computes() -> None:
    source = model()
    feeds = {"image": np.array([[1, -2, 3]], np.float32), "gain": np.array([2], np.float32)}
    names = ["a", "bypass", "shape"]
    trunk, head = (
        ort.InferenceSession(part, providers=["CPUExecutionProvider"])
        for part in (
            taken(source, names),
            taken(source, ["logits"], dict(zip(names, [FLOAT, FLOAT, INT64], strict=True))),
        )
    )
    values = dict(zip(names, trunk.run(names, feeds), strict=True))
    np.testing.assert_array_equal(values["a"], [[1, -4, 9]])
    (found,) = head.run(["logits"], values)
    np.testing.assert_array_equal(found, [[3 * 4 + 2, -8 * 5 - 4, 15 * 6 + 6]])
    assert {node.name for node in head.get_inputs()} == set(names)


def test_division_of_a_model() -> None:
    index = index_model(memoryview(model().SerializeToString()))
    found = divide(index, "a", "logits")
    assert found.boundary == ("bypass", "wide")
    assert found.operators == {"Add", "Greater", "Cast", "ReduceMax", "If"}
    assert found.nodes == 6
    assert not found.fed
    behind = divide(index, "b", "logits")
    assert behind.boundary == ("a", "bypass", "wide"), "the sub-graphs read them"
    assert divide(index, "bypass", "b").boundary == ("a",)
    for target, score in (("logits", "a"), ("unused", "logits"), ("a", "a")):
        with pytest.raises(UnsupportedModelError, match=f"{score!r} is not computed from"):
            divide(index, target, score)


RANDOM = """
<ir_version: 8, opset_import: ["" : 17]>
random (float[N, 3] image) => (float[N, 3] logits) <float[3] weight = {1, 2, 3}>
{
  noise = RandomNormal <shape = [1, 3]> ()
  scaled = Mul (weight, weight)
  a = Mul (image, weight)
  b = Add (a, noise)
  c = Mul (b, scaled)
  logits = Add (c, image)
}
"""


def test_what_constants_give_is_of_the_head_and_what_is_drawn_is_not() -> None:
    found = divide(index_model(memoryview(model(RANDOM).SerializeToString())), "a", "logits")
    assert found.boundary == ("noise",)
    assert found.fed == ("image",)
    assert found.nodes == 4
    index = index_model(memoryview(model().SerializeToString()))
    asked = divide(index, "a", "logits", own=["gain", "image"])
    assert asked.boundary == (), "what depends on nothing else is computed in the head"
    assert asked.fed == ("gain", "image")


def test_initializers_that_are_inputs() -> None:
    source = model(RANDOM)
    source.graph.input.append(helper.make_tensor_value_info("weight", FLOAT, [3]))
    optional = divide(index_model(memoryview(source.SerializeToString())), "a", "logits")
    assert optional.boundary == ("noise", "scaled"), "a caller may feed another weight"
    kept = onnx.load_from_string(taken(source, ["a"]))
    assert [v.name for v in kept.graph.input] == ["image", "weight"]
    assert [t.name for t in kept.graph.initializer] == ["weight"]
    source.ir_version = 3
    constant = divide(index_model(memoryview(source.SerializeToString())), "a", "logits")
    assert constant.boundary == ("noise",)
    head = onnx.load_from_string(taken(source, ["logits"], {"a": FLOAT, "noise": FLOAT}))
    assert {v.name for v in head.graph.input} == {"image", "weight", "a", "noise"}


def test_sparse_initializers_and_annotations() -> None:
    source = model(RANDOM)
    values = numpy_helper.from_array(np.array([2.0], np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([1]), "")
    source.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    source.graph.node.add(op_type="Mul", input=["image", "sparse"], output=["s"])
    note = source.graph.quantization_annotation.add(tensor_name="s")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="weight")
    source.graph.quantization_annotation.add(tensor_name="b")
    found = onnx.load_from_string(taken(source, ["s"]))
    assert found == extracted(source, ["s"], {})
    assert len(found.graph.sparse_initializer) == 1
    assert [q.tensor_name for q in found.graph.quantization_annotation] == []
    inner = onnx.load_from_string(taken(source, ["logits"]))
    assert [q.tensor_name for q in inner.graph.quantization_annotation] == ["b"]


def test_fields_of_newer_formats_are_kept() -> None:
    source = model(RANDOM)
    unknown = (
        number_field(900, 7) + varint(901 << 3 | 5) + b"1234" + varint(902 << 3 | 1) + b"8" * 8
    )
    graph = source.graph.SerializeToString() + unknown
    del source.graph.node[:]
    source.ClearField("graph")
    data = source.SerializeToString() + unknown
    data += varint(7 << 3 | 2) + varint(len(graph)) + graph
    found = cut(index_model(memoryview(data)), ["a"])
    assert found.count(unknown) == 2
    assert [n.output[0] for n in onnx.load_from_string(found).graph.node] == ["a"]


def test_names_that_are_no_utf8() -> None:
    name = b"caf\xe9"
    assert encoded(text(memoryview(name), Span(0, 4))) == name


def test_what_cannot_be_cut() -> None:
    with pytest.raises(UnsupportedModelError, match="nothing in the model computes 'missing'"):
        taken(model(), ["missing"])
    split = """
    <ir_version: 8, opset_import: ["" : 17]>
    split (float[4, 3] image) => (float[2, 3] sum)
    { left, right = Split (image)  sum = Add (left, right) }
    """
    with pytest.raises(UnsupportedModelError, match="'left' cannot be fed: the node"):
        taken(model(split), ["sum"], {"left": FLOAT})
    parts = divide(index_model(memoryview(model(split).SerializeToString())), "left", "sum")
    assert parts.boundary == ("right",)


@pytest.mark.parametrize("data", [b"", b"\x08\x08", b"no model at all", b"\x3a\x00\x3a\x00"])
def test_what_is_no_model(data: bytes) -> None:
    with pytest.raises(InvalidModelError, match=r"graphs in the model|truncated or damaged"):
        index_model(memoryview(data))


def test_truncated_files_are_one_clear_error() -> None:
    data = model().SerializeToString()
    graph = data.index(b"chain") - 4
    messages = []
    for length in range(len(data)):
        try:
            index = index_model(memoryview(data[:length]))
            cut(index, ["logits"])
        except InvalidModelError as error:
            messages.append(str(error))
    assert len(messages) > graph, "all but those that end behind the graph"
    assert not any("\n" in message for message in messages)
    with pytest.raises(InvalidModelError, match=r"truncated or damaged: field 7 ends behind"):
        index_model(memoryview(data[: len(data) // 2]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_give_errors_of_ours_or_a_model(data: st.DataObject) -> None:
    content = bytearray(model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ModelError):
        assert cut(index_model(memoryview(bytes(content))), ["logits"])


def test_numbers_and_graphs_without_end() -> None:
    with pytest.raises(InvalidModelError, match="a number without end"):
        list(fields(memoryview(b"\x08" + b"\xff" * 12), Span(0, 13)))
    with pytest.raises(InvalidModelError, match="wire type 3"):
        list(fields(memoryview(b"\x0b"), Span(0, 1)))
    graph = onnx.GraphProto()
    for _ in range(80):
        around = onnx.GraphProto()
        around.node.add(op_type="If").attribute.add(name="then_branch").g.CopyFrom(graph)
        graph = around
    deep = varint(7 << 3 | 2) + varint(len(graph.SerializeToString()))
    with pytest.raises(InvalidModelError, match="more than 64 graphs within each other"):
        index_model(memoryview(deep + graph.SerializeToString()))
