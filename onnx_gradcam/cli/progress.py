"""A bar on a terminal: how many images are done, how fast, and how long it will take."""

from __future__ import annotations

import itertools
import sys
import time
from datetime import timedelta
from threading import Event, Thread
from typing import Any

import click

from onnx_gradcam.batch.sources import STANDARD_INPUT, Sources
from onnx_gradcam.errors import OnnxGradCamError

BETWEEN = 0.2
"""Seconds from one drawing of the bar to the next."""


class Progress:
    """The bar; where standard error is no terminal, nothing."""

    def __init__(self, sources: Sources) -> None:
        """Draw the bar, and count the images meanwhile, if anybody looks."""
        self._bar: Any = None
        self._done = self._pending = self._here = 0
        self._began = self._drawn = time.monotonic()
        self._total: int | None = None
        self._closed = Event()
        if sys.stderr.isatty():
            self._bar = click.progressbar(
                itertools.count(),  # of no known length
                label="images",
                file=sys.stderr,
                show_pos=True,
                show_eta=False,  # it would take those of an earlier run for as fast as they come
                item_show_func=lambda _item: self._speed(),
            )
            self._bar.render_progress()
            self._began = time.monotonic()
            if STANDARD_INPUT not in sources.inputs:  # that can be read but once
                Thread(target=self._count, args=[sources], daemon=True).start()

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
        self._closed.set()
        if self._bar is not None:
            self._draw(time.monotonic())
            self._bar.render_finish()

    def _count(self, sources: Sources) -> None:
        total = 0
        try:
            for _ in sources.references():
                total += 1
                if self._closed.is_set():
                    return
        except OnnxGradCamError:  # whoever explains them tells of it
            return
        self._total = total

    def _draw(self, now: float) -> None:
        self._bar.length = self._total
        self._bar.update(self._pending, current_item=self._done)
        self._pending, self._drawn = 0, now

    def _speed(self) -> str | None:
        seconds = time.monotonic() - self._began
        if not self._here or seconds < 1:
            return None
        rate = self._here / seconds
        text = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        if self._total is None:
            return text
        left = (self._total - self._done) / rate
        return f"{text}, {timedelta(seconds=round(left))} left"
