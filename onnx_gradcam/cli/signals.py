"""What a command does when it is told to stop."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TERMINATED = 128 + signal.SIGTERM


@contextmanager
def ending_when_terminated() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: what is open is closed, nothing is left of half.

    Without it Python is gone at once; as the first process of a container, it would not hear the
    signal at all.
    """
    if threading.current_thread() is not threading.main_thread():  # others may set none
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(_number: int, _frame: Any) -> None:
    sys.exit(TERMINATED)
