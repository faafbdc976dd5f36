"""The objective y: which number of the model's output is explained, as asked for at export.

In: the words of the caller. Out: `Objective`, which `score` looks for, `seed` differentiates and
`verification.objective` computes once more in NumPy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_gradcam.contract import (
    BOX_INPUT,
    CLASS_INPUT,
    EMBEDDING_INPUT,
    MASK_INPUT,
    WEIGHTS_INPUT,
)
from onnx_gradcam.errors import UsageError, nearest_names


@dataclass(frozen=True)
class Kind:
    """What a kind of objective is.

    Attributes:
        summary: y in one line.
        inputs: what the exported file takes to say which y.
        places: whether the score has a place axis (or several) beside the class axis.
    """

    summary: str
    inputs: tuple[str, ...] = (CLASS_INPUT,)
    places: bool = False


KINDS = {
    "class": Kind("the score of a class, before softmax"),
    "softmax": Kind("the probability of a class, softmax included"),
    "sigmoid": Kind("the probability of a class, sigmoid included"),
    "binary": Kind("the only score for class 1, minus that for class 0"),
    "segmentation": Kind(
        "the scores of a class summed over a mask", (CLASS_INPUT, MASK_INPUT), True
    ),
    "detection": Kind("the score of a class in a box", (CLASS_INPUT, BOX_INPUT), True),
    "similarity": Kind("the cosine of the output and an embedding", (EMBEDDING_INPUT,)),
}
"""All kinds, the default first."""

_WITHOUT_WEIGHTS = frozenset({"binary", "similarity"})


@dataclass(frozen=True)
class Objective:
    """What is explained.

    Attributes:
        kind: a key of `KINDS`.
        weights: whether the file also takes ``cam_weights``: any weighted sum over the classes.
        several: whether it takes T classes per image and gives T gradients in one run.
        class_axis: axis of the classes in the score, None to find it.
        channels: ``(start, stop)`` of the channels on that axis that are classes; None for the end.
    """

    kind: str = "class"
    weights: bool = False
    several: bool = False
    class_axis: int | None = None
    channels: tuple[int, int | None] = (0, None)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The seed inputs of the file."""
        class_input, *others = KINDS[self.kind].inputs
        return (class_input, *[WEIGHTS_INPUT] * self.weights, *others)

    @property
    def has_places(self) -> bool:
        """Whether y is taken from a map or list of scores of each class."""
        return KINDS[self.kind].places

    @property
    def gives_score(self) -> bool:
        """Whether the file outputs y; that of a class can be read from the scores."""
        return self.weights or self.kind != "class"


def check_objective(objective: Objective, class_input: str) -> Objective:
    """Return the objective if its parts go together.

    Raises:
        UsageError: they do not.
    """
    kind = objective.kind
    if kind not in KINDS:
        raise UsageError(f"no objective {kind!r}{nearest_names(kind, KINDS)}: {', '.join(KINDS)}")
    if objective.weights and kind in _WITHOUT_WEIGHTS:
        raise UsageError(f"the objective {kind} has no classes that could be weighted")
    if class_input.startswith("fixed") and (objective.several or objective.weights):
        raise UsageError("a file with a fixed class takes neither weights nor several classes")
    if class_input.startswith("fixed") and kind == "similarity":
        raise UsageError("the objective similarity has no class that could be fixed")
    if objective.channels != (0, None) and kind != "detection":
        raise UsageError("--class-channels goes with --objective detection")
    if objective.class_axis is not None and not objective.has_places:
        raise UsageError("--class-axis goes with --objective segmentation and detection")
    return objective


def parse_channels(text: str | Sequence[int | None] | None) -> tuple[int, int | None]:
    """Return which channels are classes: ``4:`` or ``5:85`` as ``(start, stop)``.

    Raises:
        UsageError: no such range.
    """
    if text is None:
        return 0, None
    if not isinstance(text, str):
        start, stop = text
        return start or 0, stop
    match = re.fullmatch(r"(-?\d+)?:(-?\d+)?", text.strip())
    if match is None:
        raise UsageError(f"class channels {text!r} are no range such as 4: or 5:85")
    return int(match[1] or 0), None if match[2] is None else int(match[2])
