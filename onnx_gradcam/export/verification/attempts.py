"""The runs that gradients are verified on; the checks of several layers share them.

In: the exported file, and the model with inner tensors as its outputs. Out: their values for each
attempt, that is for other inputs, and what the file claims.
"""

from __future__ import annotations

from typing import Any

from onnx_gradcam.export.verification.claims import ask
from onnx_gradcam.export.verification.objective import Claim
from onnx_gradcam.export.verification.subject import Array, Subject, input_names, run


class Attempts:
    """The model's tensors and the file's claims for each attempt.

    Args:
        subject: what is verified.
        session: the exported file.
        probe: the model with the tensors that are needed as its outputs.
    """

    def __init__(self, subject: Subject, session: Any, probe: Any) -> None:
        """Run nothing yet."""
        self._subject, self._session, self._probe = subject, session, probe
        self._values: dict[int, dict[str, Array]] = {}
        self._claims: dict[int, list[Claim]] = {}

    def values(self, attempt: int) -> dict[str, Array]:
        """Return the tensors of the model."""
        if attempt not in self._values:
            feeds, names = self._subject.inputs(attempt), input_names(self._probe)
            self._values[attempt] = run(self._probe, {k: v for k, v in feeds.items() if k in names})
        return self._values[attempt]

    def claims(self, attempt: int, rows: Array) -> list[Claim]:
        """Return what the file claims of the default y and of others.

        Args:
            attempt: the number of the attempt.
            rows: its score tensor, ``(N, channels times P)``.
        """
        if attempt not in self._claims:
            meta, feeds = self._subject.metadata, self._subject.inputs(attempt)
            score = self.values(attempt)[meta.score_tensor]
            places = [score.shape[axis] for axis in meta.places]
            self._claims[attempt] = ask(self._subject, self._session, feeds, rows, places)
        return self._claims[attempt]
