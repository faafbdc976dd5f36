"""A bar on a terminal: how many images are done, how fast, and how long it will take."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from onnx_gradcam.batch.sources import STANDARD_INPUT, Sources

BETWEEN = 0.2
"""Seconds from one drawing of the bar to the next."""


class Progress:
    """The bar; where standard error is no terminal, nothing."""

    def __init__(self, sources: Sources) -> None:
        """Count the images, if anybody looks.

        Raises:
            UsageError: an input that is not there, or holds no images.
        """
        self._bar: Any = None
        self._done = self._pending = self._here = 0
        self._began = self._drawn = time.monotonic()
        if sys.stderr.isatty():
            total = None
            if STANDARD_INPUT not in sources.inputs:  # that can be read but once
                total = sum(1 for _ in sources.references())
            self._bar = click.progressbar(
                length=total,
                label="images",
                file=sys.stderr,
                show_pos=True,
                item_show_func=lambda _item: self._rate(),
            )
            self._bar.render_progress()
            self._began = time.monotonic()

    def advance(self, images: int) -> None:
        """Say that so many more images are done."""
        self._done += images
        self._here += images == 1  # those of an earlier run come by the shard
        self._pending += images
        now = time.monotonic()
        if self._bar is not None and now - self._drawn >= BETWEEN:
            self._draw(now)

    def close(self) -> None:
        """Draw the bar for the last time and go to the next line."""
        if self._bar is not None:
            self._draw(time.monotonic())
            self._bar.render_finish()

    def _draw(self, now: float) -> None:
        self._bar.update(self._pending, current_item=self._done)
        self._pending, self._drawn = 0, now

    def _rate(self) -> str | None:
        seconds = time.monotonic() - self._began
        return f"{self._here / seconds:.1f}/s" if self._here and seconds > 1 else None
