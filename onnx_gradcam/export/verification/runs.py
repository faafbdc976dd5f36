"""What running the exported file shows of the original outputs: they are unchanged.

In: the exported file and, where it is at hand, the original model. Out: one `Check` each, those
of `explanation` included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from onnx_gradcam.contract import ExportMetadata
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.files.model_file import LoadedModel
from onnx_gradcam.export.precision import holds_half
from onnx_gradcam.export.quantized.score import output_steps
from onnx_gradcam.export.sessions import runtime_version
from onnx_gradcam.export.verification.compare_outputs import Difference, compare_outputs
from onnx_gradcam.export.verification.explanation import check_explanation
from onnx_gradcam.export.verification.report import Check
from onnx_gradcam.export.verification.runnable import original_session
from onnx_gradcam.export.verification.subject import (
    Subject,
    find_shapes,
    input_specs,
    run,
    session_of,
)

STEPS = 2.0
"""Difference accepted at the default level in outputs that are dequantized numbers, in steps."""


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
    if source is not None:
        before = run(original, feeds)
        half = holds_half(source.model)
        yield _identical(compare_outputs(before, unoptimised, half=half))
    del original, plain
    if source is not None:
        session = session_of(source, optimise=True)
        before = run(session, feeds)
        del session
    session = session_of(exported, optimise=True)
    if source is not None:
        after = run(session, feeds | subject.class_feed(None))
        yield _within_rounding(compare_outputs(before, after, half=half), source)
    yield from check_explanation(subject, session, unoptimised)


def _identical(differences: list[Difference]) -> Check:
    name = "outputs, optimisations off"
    changed = [d for d in differences if not d.identical]
    if not changed:
        return Check(name, True, f"{len(differences)} identical to the last bit", 0.0)
    passed = all(d.proves_equal for d in changed)
    detail = "; ".join(map(str, changed)) + (", rounding of half precision" if passed else "")
    return Check(name, passed, detail, max(d.relative for d in changed))


def _within_rounding(differences: list[Difference], source: LoadedModel) -> Check:
    name = "outputs, default level"
    changed = [d for d in differences if not d.identical]
    if not changed:
        return Check(name, True, f"{len(differences)} identical to the last bit", 0.0)
    detail = "; ".join(map(str, changed))
    far = [d for d in changed if not d.within_rounding]
    steps = output_steps(expand(source.model, source.tensor_values)) if far else {}
    passed = all(not d.note and d.absolute <= STEPS * steps.get(d.name, 0.0) for d in far)
    if far and passed:
        detail += f", {STEPS:.0f} quantization steps or less"
    return Check(name, passed, detail, max(d.relative for d in changed))
