"""Scores without an explanation, at the cost of the original model.

Of a file with a gate: the file itself, with the gate closed. Of any other: what gives the scores,
cut out of it when it is first needed, as a session of its own. Where nothing can be cut out of the
file, all of it runs.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.contract import GATE_INPUT
from onnx_gradcam.errors import ModelError
from onnx_gradcam.runtime.extra_inputs import Feeds, Values
from onnx_gradcam.runtime.feeds import BatchRunner
from onnx_gradcam.runtime.reruns import Reruns
from onnx_gradcam.runtime.seeds import SeedReader

OPEN: Feeds = {GATE_INPUT: np.array([True])}
CLOSED: Feeds = {GATE_INPUT: np.array([False])}
"""What a file with a gate is fed; others do not take it."""


class Prediction:
    """The scores of a file. One may be shared by threads."""

    def __init__(self, runner: BatchRunner, reruns: Reruns | None, seeds: SeedReader) -> None:
        """Take what runs the whole file, what runs parts of it, and the reader of its seeds."""
        self._all, self._reruns, self._seeds = runner, reruns, seeds
        self._metadata = seeds.metadata

    def scores(self, batch: NDArray[Any], extra_inputs: Values | None) -> NDArray[Any]:
        """Return the model's own output of scores.

        Args:
            batch: images in the model's own layout and type.
            extra_inputs: values for the model's other inputs, by name.

        Raises:
            UsageError: images or extra inputs that do not fit.
        """
        seeds = self._seeds.unasked(len(batch)) if self._seeds.required else {}
        return self._runner.run([self._metadata.score_output], batch, seeds, extra_inputs)[0]

    @cached_property
    def _runner(self) -> BatchRunner:
        if self._metadata.gate:
            return replace(self._all, always=CLOSED)
        if self._reruns is not None:
            with suppress(ModelError):
                return self._reruns.whole
        return self._all
