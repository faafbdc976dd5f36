"""What ``cam_class`` means: ranks and indices, one for all images or one each, several in one run.

In: the running exported file and the scores of the model. Out: one `Check` each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_gradcam.contract import CLASS_INPUT, CLASSES_OUTPUT, EMBEDDING_INPUT
from onnx_gradcam.export.verification.compare_outputs import compare_outputs
from onnx_gradcam.export.verification.report import Check
from onnx_gradcam.export.verification.subject import Array, Subject, run

RANK_STEPS = 3.0
"""Quantization steps by which scores that share a rank may differ from one run to another."""

SEVERAL_TOLERANCE = 1e-2
"""Accepted difference between gradients of several classes in one run and of each alone."""


def check_several(subject: Subject, session: Any, rows: Array) -> Check:
    """Check that several y in one run give what each gives alone."""
    title = "several classes"
    meta, feeds = subject.metadata, subject.inputs()
    shape = (len(rows), min(3, meta.num_classes))
    if EMBEDDING_INPUT in meta.fed_inputs:
        seed, random = EMBEDDING_INPUT, np.random.default_rng(subject.seed)
        asked = random.standard_normal((len(rows), 3, meta.num_classes)).astype(np.float32)
    else:
        seed, asked = CLASS_INPUT, np.broadcast_to(-1 - np.arange(shape[1]), shape)
    together = run(session, feeds | subject.seeds({}) | {seed: asked})
    worst = 0.0
    for index in range(asked.shape[1]):
        alone = subject.explain(session, feeds, {seed: asked[:, index]})
        names = subject.gradient_outputs
        differences = compare_outputs(
            {name: alone[name] for name in names},
            {name: together[name][:, index] for name in names},
        )
        same = np.array_equal(alone[CLASSES_OUTPUT], together[CLASSES_OUTPUT][:, index])
        if not same or any(difference.note for difference in differences):
            return Check(title, False, f"number {index + 1} is not what it is alone")
        worst = max(worst, *(difference.relative for difference in differences))
    detail = f"{asked.shape[1]} in one run and one by one: {worst:.1e} apart"
    return Check(title, worst <= SEVERAL_TOLERANCE, detail, worst)


def check_classes(subject: Subject, session: Any, scores: Array, step: float) -> Check:
    """Check what ``cam_class`` means; near-equal scores may change places through rounding."""
    images, count = scores.shape
    ranked = np.sort(scores, axis=1)[:, ::-1]
    slack = np.maximum(1e-3 * np.abs(scores).max(axis=1), RANK_STEPS * step)
    feeds = subject.inputs()
    problems = []

    def explained(classes: Sequence[int] | None) -> dict[str, Array]:
        given = {} if classes is None else {CLASS_INPUT: np.asarray(classes, np.int64)}
        return subject.explain(session, feeds, given)

    def expect_rank(found: Array, rank: int) -> None:
        if found.shape != (images,) or found.dtype != np.int64:
            problems.append(
                f"{CLASSES_OUTPUT} is {found.dtype}{found.shape}, not int64 ({images},)"
            )
        elif not (
            np.all((found >= 0) & (found < count))
            and np.all(np.abs(scores[np.arange(images), found] - ranked[:, rank - 1]) <= slack)
        ):
            problems.append(f"-{rank} explains {found.tolist()}, not the rank {rank}")

    if subject.fixed:
        fixed = int(subject.metadata.class_input.partition(":")[2])
        found = explained(None)[CLASSES_OUTPUT]
        if fixed < 0:
            expect_rank(found, -fixed)
        elif not np.array_equal(found, np.full(images, fixed)):
            problems.append(f"explains {found.tolist()}, not the fixed {fixed}")
        return _class_check(problems, f"fixed at {fixed}")
    expect_rank(explained(None)[CLASSES_OUTPUT], 1)
    for rank in sorted({1, min(2, count), min(5, count)}):
        expect_rank(explained([-rank])[CLASSES_OUTPUT], rank)
    each = [(7 * image + 3) % count for image in range(images)]
    found = explained(each)[CLASSES_OUTPUT]
    if not np.array_equal(found, each):
        problems.append(f"{each} explains {found.tolist()}")
    one, all_of_it = explained([each[0]]), explained([each[0]] * images)
    if not np.array_equal(one[CLASSES_OUTPUT], [each[0]] * images):
        problems.append(f"a single class explains {one[CLASSES_OUTPUT].tolist()}")
    names = subject.gradient_outputs
    if not all(np.array_equal(one[n], all_of_it[n], equal_nan=True) for n in names):
        problems.append("a single class and one per image give different gradients")
    return _class_check(problems, "default, ranks, one class for all, one per image")


def _class_check(problems: list[str], detail: str) -> Check:
    return Check("classes", not problems, "; ".join(problems) or detail)
