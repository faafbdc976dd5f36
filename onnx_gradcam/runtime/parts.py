"""Sessions of parts of an exported file, cut out when they are first needed.

The scores: the model without the gradient, for whoever wants scores alone. The trunk and the head,
before and behind the target layer, are put to use by `head`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from threading import Lock
from typing import Any

from onnx_gradcam.errors import ModelError, UnsupportedModelError
from onnx_gradcam.runtime.cutting import ModelIndex, cut, index_model
from onnx_gradcam.runtime.session import OpenedModel, file_stamp

_ORT_FORMAT = b"ORTM"
"""What a file in onnxruntime's own format has at byte 4; nothing can be cut out of it here."""


class Parts:
    """What can be cut out of an opened file. One may be shared by threads."""

    def __init__(self, opened: OpenedModel) -> None:
        """Take the file; nothing is read yet."""
        self._opened = opened
        self._sessions: dict[tuple[str, ...], Any] = {}
        self._lock = Lock()

    def giving(self, outputs: Sequence[str]) -> Any:
        """Return the session that computes some tensors from the model's inputs, and no more.

        Raises:
            UnsupportedModelError: it cannot be cut out, or does not run by itself.
        """
        names = tuple(dict.fromkeys(outputs))
        with self._lock:
            if names not in self._sessions:
                try:
                    with self.index() as model:
                        self._sessions[names] = self.start(model, names)
                except ModelError as error:  # it would fail again
                    self._sessions[names] = error.with_traceback(None)
            session = self._sessions[names]
        if isinstance(session, ModelError):
            # a new one each time: raised again, the same would hold every call that it came to
            raise type(session)(*session.args)
        return session

    def start(
        self, model: ModelIndex, outputs: Sequence[str], inputs: Mapping[str, int] | None = None
    ) -> Any:
        """Return a new session that computes `outputs`; see `cut`.

        Raises:
            UnsupportedModelError: it cannot be cut out, or does not run by itself.
        """
        return self._opened.start_part(cut(model, outputs, inputs))

    @contextmanager
    def index(self) -> Iterator[ModelIndex]:
        """Give the index of the file, as long as it is open.

        Raises:
            UnsupportedModelError: the file has changed since, or is in another format than ONNX.
        """
        source, name = self._opened.source, self._opened.name
        if isinstance(source, bytes):
            self._check(source[4:8])
            yield index_model(memoryview(source))
            return
        with ExitStack() as stack:
            try:
                changed = file_stamp(source) != self._opened.written
                file = stack.enter_context(Path(source).open("rb"))
                mapped = stack.enter_context(mmap(file.fileno(), 0, access=ACCESS_READ))
            except (OSError, ValueError) as error:  # ValueError: it is empty by now
                raise UnsupportedModelError(
                    f"{name} cannot be read again, for a part of it: {error}"
                ) from error
            if changed:
                raise UnsupportedModelError(f"{name} has changed since it was loaded; load it anew")
            view = stack.enter_context(memoryview(mapped))
            self._check(bytes(view[4:8]))
            yield index_model(view)

    def _check(self, identifier: bytes) -> None:
        if identifier == _ORT_FORMAT:
            raise UnsupportedModelError(
                f"{self._opened.name} is in onnxruntime's own format, of which no part can be cut"
                " out; load the ONNX file that it was made from"
            )
