"""What the explanation outputs hold: A, the classes asked for, the right gradient of each image.

In: the running exported file. Out: one `Check` each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.contract import (
    ACCOUNTED_OUTPUT,
    ACTIVATIONS_OUTPUT,
    ADDED_OUTPUTS,
    CLASS_INPUT,
    CLASSES_OUTPUT,
    CURVATURE_OUTPUT,
    GRADIENTS_OUTPUT,
    layer_output,
)
from onnx_gradcam.export.expansion import with_expansions
from onnx_gradcam.export.quantized.score import quantized_rows
from onnx_gradcam.export.sessions import open_session
from onnx_gradcam.export.verification.accounted import check_accounted
from onnx_gradcam.export.verification.attempts import Attempts
from onnx_gradcam.export.verification.attention import check_attention
from onnx_gradcam.export.verification.central_differences import (
    OTHER_TOLERANCE,
    TOLERANCE,
    Agreement,
    compare,
)
from onnx_gradcam.export.verification.claims import Asked
from onnx_gradcam.export.verification.classes import check_classes, check_several
from onnx_gradcam.export.verification.compare_outputs import compare_outputs
from onnx_gradcam.export.verification.int8_kernels import exact_here
from onnx_gradcam.export.verification.probe_inputs import has_open_batch
from onnx_gradcam.export.verification.report import Check
from onnx_gradcam.export.verification.score_function import ScoreFunction, with_outputs
from onnx_gradcam.export.verification.second_differences import second_difference_error
from onnx_gradcam.export.verification.subject import (
    Array,
    Feeds,
    Subject,
    input_names,
    run,
    session_of,
)

MIXING_TOLERANCE = 1e-2
"""Accepted difference between an image's gradient in a batch and alone, relative to its norm."""

CUT_TOLERANCE = 1e-3
"""Accepted difference between the whole model's scores and those computed from A alone.

The latter come from the analysis graph: its expansions compute what the model's operators do.
"""

ROUGH_CUT_TOLERANCE = 1e-2
"""The same for models of half precision or quantized ones."""

CAST_TOLERANCE = 2e-3
"""Accepted difference between A as float16 and A cast to float32, relative to its largest value.

Four times the rounding of float16: onnxruntime on the CPU computes in float32 and may leave out
the rounding before a cast.
"""

MEASURED_ENOUGH = 0.5
"""Share of directional derivatives that must stand out from rounding, or other inputs are tried."""


def check_explanation(
    subject: Subject, session: Any, unoptimised: Mapping[str, Array]
) -> Iterator[Check]:
    """Yield the checks of the added outputs.

    Args:
        subject: what is verified; its exported file has exact products on this CPU.
        session: the exported file at the default optimisation level.
        unoptimised: its outputs with optimisations off, for `Subject.inputs()` and no class.
    """
    meta, reference = subject.metadata, subject.reference
    functions = _score_functions(subject)
    graph = functions[0].graph
    needed = list(dict.fromkeys(name for function in functions for name in function.needed))
    expanded = with_expansions(graph, needed)
    probe = open_session(
        with_outputs(exact_here(expanded, reference.tensor_values), needed),
        optimise=False,
        base_dir=reference.base_dir,
    )
    feeds = {k: v for k, v in subject.inputs().items() if k in input_names(probe)}
    values = run(probe, feeds)
    for layer, function in enumerate(functions):
        function.measure(values)
        yield _of_layer(subject, layer, _activations(function, values, unoptimised, layer))
    rows = functions[0].rows(values[meta.score_tensor])
    if meta.objective == "class":
        yield check_classes(subject, session, *quantized_rows(graph, meta.score_tensor, rows))
    if meta.several:
        yield check_several(subject, session, rows)
    # a rounding that falls otherwise when optimised bends the gradient
    rounds = bool(meta.straight_through)
    looked_at = session_of(subject.exported, optimise=False) if rounds else session
    attempts = Attempts(subject, looked_at, probe)
    for layer, function in enumerate(functions):
        check = _gradient(subject, attempts, function, layer)
        yield _of_layer(subject, layer, _straight_through(subject, check) if rounds else check)
    if CURVATURE_OUTPUT in meta.outputs:
        yield _curvature(subject, attempts, functions[0])
    if ACCOUNTED_OUTPUT in meta.outputs:
        yield check_accounted(subject, attempts, functions[0])
    del attempts, looked_at, probe, functions
    yield from check_attention(subject, session)
    apart = _images_apart(subject, session)
    shared = any(node.op_type == "DynamicQuantizeLinear" for node in graph.nodes)
    yield _shared_range(apart) if shared and not apart.passed else apart


def _score_functions(subject: Subject) -> list[ScoreFunction]:
    """Return the score as a function of each target layer; they share the model's graph."""
    meta, reference = subject.metadata, subject.reference
    functions: list[ScoreFunction] = []
    for layer in meta.layers:
        function = ScoreFunction(
            reference.model,
            reference.base_dir,
            layer.target,
            Arrangement.from_metadata(layer),
            meta.score_tensor,
            meta.class_axis,
            functions[0].graph if functions else None,
        )
        functions.append(function)
    return functions


def _of_layer(subject: Subject, layer: int, check: Check) -> Check:
    """Say which layer a check is about, where there are several."""
    several = len(subject.metadata.layers) > 1
    name = f"{check.name}, layer {layer + 1}" if several else check.name
    return replace(check, name=name, layer=layer)


def _activations(
    function: ScoreFunction,
    values: Mapping[str, Array],
    unoptimised: Mapping[str, Array],
    layer: int,
) -> Check:
    expected = function.activations(values[function.target])
    half = expected.dtype == np.float16
    if half:
        expected = expected.astype(np.float32)
    name = layer_output(ACTIVATIONS_OUTPUT, layer)
    found = unoptimised[name]
    (difference,) = compare_outputs({name: expected}, {name: found})
    shape = "x".join(map(str, found.shape))
    detail = f"{function.target!r}, {shape}, identical to the last bit"
    if not difference.identical:
        detail = str(difference)
    rounded = half and not difference.note and difference.relative <= CAST_TOLERANCE
    return Check("activations", difference.identical or rounded, detail, difference.relative)


def _straight_through(subject: Subject, check: Check) -> Check:
    """Say what was measured: the model itself has no derivative where it rounds."""
    operators = ", ".join(subject.metadata.straight_through)
    detail = f"{check.detail}; straight-through for {operators}, without optimisations"
    return replace(check, detail=detail)


def _shared_range(check: Check) -> Check:
    detail = (
        f"{check.detail}, as the model's own results: DynamicQuantizeLinear takes one range for"
        " the whole batch; explain images one by one where that matters"
    )
    return replace(check, passed=True, warning=True, detail=detail)


def _gradient(subject: Subject, attempts: Attempts, function: ScoreFunction, layer: int) -> Check:
    name = "gradient"
    best: Agreement | None = None
    for attempt in range(subject.attempts):
        values = attempts.values(attempt)
        scores = function.rows(values[function.score]).astype(np.float64)
        claims = attempts.claims(attempt, scores)
        if subject.metadata.outputs != list(ADDED_OUTPUTS):
            problems = sorted({problem for claim in claims for problem in claim.problems()})
            if problems:
                return Check("score", False, "; ".join(problems)[:300])
        unrounded = claims[0].found[layer_output(ACTIVATIONS_OUTPUT, layer)]
        name_of_gradient = layer_output(GRADIENTS_OUTPUT, layer)
        gradients = [claim.found[name_of_gradient].astype(np.float64) for claim in claims]
        function.set_point(values)
        activations = function.activations(values[function.target])
        if activations.dtype == np.float16 and unrounded.shape == activations.shape:
            activations = unrounded  # of the run whose gradients are looked at
            function.set_point(values, activations)
        alone = function.complete(function(0.0 * activations))
        (cut,) = compare_outputs({"scores": scores}, {"scores": alone})
        if cut.note or cut.relative > (ROUGH_CUT_TOLERANCE if function.rough else CUT_TOLERANCE):
            return Check(name, False, f"not a function of the layer and the input alone: {cut}")
        wrong = [g for g in gradients if g.shape != activations.shape]
        if wrong:
            return Check(
                name, False, f"of shape {wrong[0].shape}, the activations of {activations.shape}"
            )
        if not all(np.isfinite(g).all() for g in gradients):
            return Check(name, False, "holds NaN or infinite values")
        asked = Asked(subject.metadata, function, claims)
        columns = [np.full(len(scores), column) for column in range(len(claims))]
        gradients = asked.scaled(gradients)
        found = compare(asked.of(function), activations, gradients, columns, seed=subject.seed)
        if not found.agrees:
            return _gradient_check(_second_opinion(asked, activations, gradients, columns) or found)
        if best is None or found.measured > best.measured:
            best = found
        if best.measured >= MEASURED_ENOUGH:
            break
    if best is None:
        return Check(name, False, "no inputs to try")
    return _gradient_check(best)


def _second_opinion(
    asked: Asked, activations: Array, gradients: list[Array], columns: list[Array]
) -> Agreement | None:
    """Return the comparison in float64 where it is possible and confirms the gradients.

    Behind many ReLUs and MaxPools float32 leaves no step between rounding and the next kink.
    """
    precise = asked.function.in_float64()
    if precise is None:
        return None
    exact = asked.of(precise)
    found = compare(exact, activations.astype(np.float64), gradients, columns, precise=True)
    return found if found.agrees and not found.lost else None


def _gradient_check(found: Agreement) -> Check:
    name = "gradient"
    if not found.agrees:
        detail = (
            "could not be confirmed: central differences do not settle at any step size (choose a"
            " later layer with --layer, or accept it unproven with --no-verify)"
        )
        if found.error > TOLERANCE:
            detail = f"central differences differ by {found.error:.1%} along it ({found.worst})"
        elif found.other_error > OTHER_TOLERANCE:
            detail = f"central differences differ by {found.other_error:.1%} across it"
        return Check(name, False, detail, max(found.error, found.other_error))
    if found.lost:
        detail = (
            "zero for all inputs tried, and so are central differences: heat maps will be empty"
            if found.zero
            else "lost in rounding: the score hardly depends on the layer"
        )
        return Check(name, True, detail, 0.0, warning=True, zero=found.zero)
    where = "" if found.support == "all" else " where A is not at its limits"
    detail = (
        f"central differences{where} agree to {found.error:.1e} along the gradient (tolerance"
        f" {TOLERANCE:.0e}), {found.other_error:.1e} along others (tolerance"
        f" {OTHER_TOLERANCE:.0e}); {found.measured:.0%} could be measured"
    )
    return Check(name, True, detail, found.error)


def _curvature(subject: Subject, attempts: Attempts, function: ScoreFunction) -> Check:
    """Check H A against second differences of y, in float64 where that is possible."""
    values = attempts.values(0)
    rows = function.rows(values[function.score]).astype(np.float64)
    asked = Asked(subject.metadata, function, attempts.claims(0, rows)[:1])
    function.set_point(values)
    precise = function.in_float64()
    found = asked.claims[0].found
    (claimed,) = asked.scaled([found[CURVATURE_OUTPUT].astype(np.float64)])
    activations = function.activations(values[function.target]).astype(np.float64)
    if precise is None:
        return Check("second derivatives", True, "not confirmed: no float64 here", warning=True)
    (gradients,) = asked.scaled([found[GRADIENTS_OUTPUT].astype(np.float64)])
    score = asked.of(precise)
    error = second_difference_error(score, activations, claimed, gradients, subject.seed)
    if np.isnan(error):
        zero = not claimed.any()
        detail = "zero, as second differences are" if zero else "lost in rounding"
        return Check("second derivatives", True, detail, 0.0, warning=not zero)
    detail = f"second differences in float64 differ by {error:.1e} (tolerance {TOLERANCE:.0e})"
    return Check("second derivatives", error <= TOLERANCE, detail, error)


def _images_apart(subject: Subject, session: Any) -> Check:
    name = "images do not mix"
    image = subject.metadata.image_input
    if subject.batch < 2 or not has_open_batch(subject.specs, image):
        return Check(name, True, f"batches of {subject.batch} only: nothing to compare")
    feeds = subject.inputs()
    together = subject.explain(session, feeds, {})
    worst = 0.0
    for index in range(subject.batch):
        given = _same_class(subject, together[CLASSES_OUTPUT][index])
        alone = subject.explain(session, _one_image(subject, feeds, index), given)
        for output in subject.gradient_outputs:
            whole, single = together[output][index], alone[output][0]
            difference = np.linalg.norm((whole - single).astype(np.float64))
            norm = max(np.linalg.norm(single.astype(np.float64)), np.finfo(np.float32).tiny)
            worst = max(worst, float(difference / norm))
    detail = f"gradients of {subject.batch} images, together and alone: {worst:.1e} apart"
    return Check(name, worst <= MIXING_TOLERANCE, detail, worst)


def _same_class(subject: Subject, chosen: int) -> Feeds:
    asks = CLASS_INPUT in subject.metadata.fed_inputs
    return {CLASS_INPUT: np.array([chosen], np.int64)} if asks else {}


def _one_image(subject: Subject, feeds: Feeds, index: int) -> Feeds:
    """Return the inputs of one image; inputs of an open first axis have a row per image."""
    return {
        spec.name: feeds[spec.name][index : index + 1]
        if spec.shape
        and not isinstance(spec.shape[0], int)
        and len(feeds[spec.name]) == subject.batch
        else feeds[spec.name]
        for spec in subject.specs
    }
