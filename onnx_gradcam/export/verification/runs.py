"""What running the exported file shows of the original outputs: they are unchanged.

In: the exported file and, where it is at hand, the original model. Out: one `Check` each, those
of `explanation` included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from onnx_gradcam.contract import ACTIVATIONS_OUTPUT, ExportMetadata
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.files.model_file import LoadedModel
from onnx_gradcam.export.precision import holds_half
from onnx_gradcam.export.quantized.score import output_steps
from onnx_gradcam.export.sessions import runtime_version
from onnx_gradcam.export.verification.compare_outputs import Difference, compare_outputs
from onnx_gradcam.export.verification.explanation import check_explanation
from onnx_gradcam.export.verification.fused_cam import check_cam, with_maps
from onnx_gradcam.export.verification.gate import check_gate, opened
from onnx_gradcam.export.verification.int8_kernels import loaded_exact_here, saturation_check
from onnx_gradcam.export.verification.report import Check
from onnx_gradcam.export.verification.runnable import original_session
from onnx_gradcam.export.verification.subject import (
    Feeds,
    Subject,
    find_shapes,
    input_specs,
    run,
    session_of,
)

STEPS = 2.0
"""Difference accepted at the default level in outputs that are dequantized numbers, in steps."""

ROUNDED_STEP = 1e-4
"""What float32 makes of the difference of two numbers of a grid, in steps: far less than one."""


def check_runs(
    exported: LoadedModel,
    metadata: ExportMetadata,
    source: LoadedModel | None,
    *,
    seed: int,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None,
) -> Iterator[Check]:
    """Yield the checks that run the exported file.

    Args:
        exported: the exported file.
        metadata: what it says about itself.
        source: the original model, when it is at hand.
        seed: of random inputs and directions.
        inputs: input values in place of random ones.

    Raises:
        UnsupportedModelError: onnxruntime cannot run the original model on the CPU.
    """
    original = None if source is None else original_session(source)
    gated, exported = exported, opened(exported)
    plain = session_of(exported, optimise=False)
    yield Check("loads", True, f"onnxruntime {runtime_version()}, CPU provider")
    reference = source or exported
    original = original or plain
    specs = input_specs(original, metadata)
    sizes = find_shapes(original, specs, metadata, inputs or {}, seed, exported.model)
    if isinstance(sizes, str):
        yield Check("runs", False, sizes)
        return
    given = {name: np.asarray(value) for name, value in (inputs or {}).items()}
    subject = Subject(exported, metadata, reference, specs, sizes, given, seed)
    feeds = subject.inputs()
    unoptimised = run(plain, feeds | subject.class_feed(None))
    if metadata.gate:
        yield from check_gate(gated, subject)
    half = source is not None and holds_half(source.model)
    if source is not None:
        yield _identical(compare_outputs(run(original, feeds), unoptimised, half=half))
    del original, plain
    fed = feeds | subject.class_feed(None)
    before = {} if source is None else _at_default_level(source, feeds)
    session = session_of(exported, optimise=True)
    exact = loaded_exact_here(exported)
    if exact is not exported:
        after = run(session, fed)
        subject = replace(subject, exported=exact)
        unoptimised = run(session_of(exact, optimise=False), fed)
        session = session_of(exact, optimise=True)
        skipped = set(metadata.outputs) - {ACTIVATIONS_OUTPUT}
        rightly = {k: v for k, v in run(session, fed).items() if k not in skipped}
        yield from _despite_saturation(source, feeds, before, after, rightly)
    elif source is not None:
        yield within_rounding(compare_outputs(before, run(session, fed), half=half), source)
    complete = with_maps(subject.exported, metadata)
    if complete is not subject.exported:
        unoptimised = run(session_of(complete, optimise=False), fed)
        session = session_of(complete, optimise=True)
    yield from check_explanation(replace(subject, exported=complete), session, unoptimised)
    if metadata.fused is not None:
        yield check_cam(subject, complete)


def _at_default_level(model: LoadedModel, feeds: Feeds) -> Feeds:
    return run(session_of(model, optimise=True), feeds)


def _despite_saturation(
    source: LoadedModel | None, feeds: Feeds, before: Feeds, after: Feeds, exact: Feeds
) -> Iterator[Check]:
    """Compare outputs where this CPU's products of int8 are not exact, and say what that changes.

    Which operators are fused decides which products saturate. So where reading A changes that,
    outputs differ; the files are then compared with exact products.
    """
    apart = ""
    if source is not None:
        half = holds_half(source.model)
        check = within_rounding(compare_outputs(before, after, half=half), source)
        if not check.passed:
            apart = check.detail
            before = _at_default_level(loaded_exact_here(source), feeds)
            check = within_rounding(compare_outputs(before, exact, half=half), source)
            check = replace(check, detail=f"{check.detail}, int8 products computed exactly")
        yield check
    yield saturation_check(compare_outputs(exact, after), apart)


def _identical(differences: list[Difference]) -> Check:
    name = "outputs, optimisations off"
    changed = [d for d in differences if not d.identical]
    if not changed:
        return Check(name, True, f"{len(differences)} identical to the last bit", 0.0)
    passed = all(d.proves_equal for d in changed)
    detail = "; ".join(map(str, changed)) + (", rounding of half precision" if passed else "")
    return Check(name, passed, detail, max(d.relative for d in changed))


def within_rounding(differences: list[Difference], source: LoadedModel) -> Check:
    """Return whether outputs differ by rounding alone: of floats, or by a few quantization steps.

    Args:
        differences: of the exported file's outputs.
        source: the original model, which says how large a step is.
    """
    name = "outputs, default level"
    changed = [d for d in differences if not d.identical]
    if not changed:
        return Check(name, True, f"{len(differences)} identical to the last bit", 0.0)
    detail = "; ".join(map(str, changed))
    far = [d for d in changed if not d.within_rounding]
    steps = output_steps(expand(source.model, source.tensor_values)) if far else {}
    accepted = STEPS + ROUNDED_STEP
    passed = all(not d.note and d.absolute <= accepted * steps.get(d.name, 0.0) for d in far)
    if far and passed:
        detail += f", {STEPS:.0f} quantization steps or less"
    return Check(name, passed, detail, max(d.relative for d in changed))
