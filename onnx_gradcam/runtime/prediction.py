"""Scores without an explanation, at the cost of the original model.

Of a file with a gate: the file itself, with the gate closed. Of any other: what gives the scores,
cut out of it when it is first needed, as a session of its own. Where nothing can be cut out of the
file, all of it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.bfloat16 import BFLOAT16
from onnx_gradcam.contract import GATE_INPUT
from onnx_gradcam.errors import ModelError
from onnx_gradcam.runtime.extra_inputs import Feeds, Values
from onnx_gradcam.runtime.feeds import CLOSED, BatchRunner, taken_by
from onnx_gradcam.runtime.reruns import Reruns
from onnx_gradcam.runtime.seeds import SeedReader
from onnx_gradcam.runtime.session import run_options

Array = NDArray[Any]


class Prediction:
    """The scores of a file. One may be shared by threads."""

    def __init__(self, runner: BatchRunner, reruns: Reruns | None, seeds: SeedReader) -> None:
        """Take what runs the whole file, what runs parts of it, and the reader of its seeds."""
        self._all, self._reruns, self._seeds = runner, reruns, seeds
        self._metadata = seeds.metadata

    def scores(self, batch: Array, extra_inputs: Values | None) -> Array:
        """Return the model's own output of scores.

        Args:
            batch: images in the model's own layout and type.
            extra_inputs: values for the model's other inputs, by name.

        Raises:
            UsageError: images or extra inputs that do not fit.
        """
        images = len(batch)
        if images and not extra_inputs and self._at_once is not None:
            with suppress(Exception):  # it is raised again below, and explained there
                found = self._at_once(batch)
                if isinstance(found, np.ndarray) and found.shape[:1] == (images,):
                    return found
                self._at_once = None  # no array with a row per image: not in one go
        seeds = self._seeds.unasked(images)
        return self._runner.run([self._metadata.score_output], batch, seeds, extra_inputs)[0]

    @cached_property
    def _runner(self) -> BatchRunner:
        if self._metadata.gate:
            return replace(self._all, always=CLOSED)
        if self._reruns is not None:
            with suppress(ModelError):
                return self._reruns.whole
        return self._all

    @cached_property
    def _at_once(self) -> Callable[[Array], Any] | None:
        """What runs a batch with as little around it as can be; None where more is to be fed.

        For small models, what `BatchRunner` looks up for each batch takes a measurable time.
        """
        runner, name = self._runner, self._metadata.score_output
        session = runner.session
        types = {node.type for node in (*session.get_inputs(), *session.get_outputs())}
        fed = {node.name for node in session.get_inputs()} - {runner.image_input.name, GATE_INPUT}
        if fed or runner.device or BFLOAT16 in types or runner.fixed_batch(name) is not None:
            return None
        fed_always = taken_by(session, runner.always)
        return partial(_run, session, name, runner.image_input.name, fed_always, run_options())


def _run(
    session: Any, output: str, image_input: str, others: Feeds, options: Any, batch: Array
) -> Any:
    return session.run([output], {image_input: batch, **others}, options)[0]
