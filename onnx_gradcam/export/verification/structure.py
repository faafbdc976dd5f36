"""What can be verified without running anything: validity, operators, names, metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx

from onnx_gradcam.contract import (
    ADDED_INPUTS,
    EMBEDDING_INPUT,
    GATE_INPUT,
    PREFIX,
    ExportMetadata,
)
from onnx_gradcam.export.attach import is_added_node
from onnx_gradcam.export.expansion.local_functions import inlined
from onnx_gradcam.export.files.model_file import LoadedModel, structural_problem
from onnx_gradcam.export.verification.report import Check

_STANDARD = {"", "ai.onnx"}


def check_structure(
    exported: LoadedModel, metadata: ExportMetadata, source: LoadedModel | None
) -> Iterator[Check]:
    """Yield the checks that need no run.

    Args:
        exported: the file, read without `onnx.checker`.
        metadata: what the file is expected to say about itself.
        source: the original model, when it is at hand.
    """
    proto = exported.model
    yield _valid(exported, source)
    yield _standard_operators(proto, source)
    if source is not None:
        yield _source_file(metadata, source)
        yield _original_nodes(proto, source)
    yield _names(proto, metadata, source)


def _valid(exported: LoadedModel, source: LoadedModel | None) -> Check:
    name = "valid ONNX"
    problem = structural_problem(exported.path or exported.model, full=True)
    if problem is None:
        return Check(name, True, "onnx.checker, shape inference included, has no objection")
    if source is not None:
        before = structural_problem(source.path or source.model, full=True)
        if before is not None and before.split(" - ")[0] == problem.split(" - ")[0]:
            return Check(name, True, f"objection to the original model as well: {before}")
    return Check(name, False, problem)


def _standard_operators(proto: onnx.ModelProto, source: LoadedModel | None) -> Check:
    name = "standard operators"
    added = list(_all_nodes(_added_nodes(proto, source)))
    opset = max((o.version for o in proto.opset_import if o.domain in _STANDARD), default=0)
    foreign = sorted(
        {
            f"{node.domain or 'ai.onnx'}::{node.op_type}"
            for node in added
            if node.domain not in _STANDARD or not onnx.defs.has(node.op_type, opset, "")
        }
    )
    if foreign:
        return Check(name, False, f"added operators that stock runtimes lack: {', '.join(foreign)}")
    operators = len({node.op_type for node in added})
    return Check(
        name, True, f"{len(added)} added nodes, {operators} operators, all of ai.onnx {opset}"
    )


def _added_nodes(proto: onnx.ModelProto, source: LoadedModel | None) -> list[onnx.NodeProto]:
    if source is None:
        return [node for node in proto.graph.node if is_added_node(node)]
    original = Counter(map(_fingerprint, inlined(source.model).graph.node))
    added = []
    for node in proto.graph.node:
        key = _fingerprint(node)
        if original[key]:
            original[key] -= 1
        else:
            added.append(node)
    return added


def _fingerprint(node: onnx.NodeProto) -> bytes:
    data: bytes = node.SerializeToString(deterministic=True)
    return data


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _all_nodes(graph.node)


def _source_file(metadata: ExportMetadata, source: LoadedModel) -> Check:
    same = metadata.source_sha256 == source.sha256
    detail = (
        f"SHA-256 {source.sha256[:12]}… as recorded"
        if same
        else f"exported from a file with SHA-256 {metadata.source_sha256[:12]}…, this one has"
        f" {source.sha256[:12]}…"
    )
    return Check("source file", same, detail)


def _original_nodes(proto: onnx.ModelProto, source: LoadedModel) -> Check:
    name = "original nodes"
    before = list(map(_fingerprint, inlined(source.model).graph.node))
    kept = [_fingerprint(n) for n in proto.graph.node if not is_added_node(n)]
    if before == kept:
        return Check(name, True, f"all {len(before)} are unchanged and in order")
    lost = sum((Counter(before) - Counter(kept)).values())
    new = sum((Counter(kept) - Counter(before)).values())
    detail = f"{lost} changed or missing, {new} new without the prefix {PREFIX}"
    return Check(name, False, detail if lost or new else "their order has changed")


def _names(proto: onnx.ModelProto, metadata: ExportMetadata, source: LoadedModel | None) -> Check:
    problems = []
    outputs = [output.name for output in proto.graph.output]
    added = len(metadata.outputs)
    if outputs[-added:] != metadata.outputs:
        problems.append(f"the last outputs are not {', '.join(metadata.outputs)}")
    if source is not None:
        expected = _signature(source.model.graph.output)
        if _signature(proto.graph.output)[:-added] != expected:
            problems.append("the original outputs changed in name, order or type")
        if _required_inputs(proto) != _required_inputs(source.model):
            problems.append("the original inputs changed in name, order or type")
    problems += _class_input_problems(proto, metadata)
    written = {prop.key: prop.value for prop in proto.metadata_props}
    if not metadata.to_props().items() <= written.items():
        problems.append("the metadata in the file differs from that of the export")
    detail = "; ".join(problems) or f"{len(outputs)} outputs, in order"
    return Check("names and metadata", not problems, detail)


def _signature(values: Iterable[onnx.ValueInfoProto]) -> list[tuple[str, int]]:
    return [(value.name, value.type.tensor_type.elem_type) for value in values]


def _required_inputs(model: onnx.ModelProto) -> list[tuple[str, int]]:
    defaults = {tensor.name for tensor in model.graph.initializer} | {*ADDED_INPUTS}
    return [i for i in _signature(model.graph.input) if i[0] not in defaults]


def _class_input_problems(proto: onnx.ModelProto, metadata: ExportMetadata) -> list[str]:
    inputs = {i.name for i in proto.graph.input}
    defaults = {t.name for t in proto.graph.initializer}
    problems = []
    taken = {*metadata.fed_inputs, *([GATE_INPUT] if metadata.gate else [])}
    for name in ADDED_INPUTS:
        optional = metadata.class_input != "required" and name != EMBEDDING_INPUT
        expected = (True, optional) if name in taken else (False, False)
        if (name in inputs, name in defaults) != expected:
            problems.append(f"{name} is not {metadata.class_input}, as the metadata says")
    return problems
