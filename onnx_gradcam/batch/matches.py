"""What a glob matches: ``**`` stands for folders, and never follows links in circles."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from onnx_gradcam.errors import UsageError

ANY_DEPTH = f"**{os.sep}"


def matches_of(pattern: str) -> list[str]:
    """Return the paths that a glob matches, sorted; hidden ones where the pattern has the dot.

    ``**`` goes into folders, not into links to folders: they may lead back.

    Raises:
        UsageError: a folder cannot be listed.
    """
    before, found, after = pattern.partition(ANY_DEPTH)
    if not found or (before and not before.endswith(os.sep)):
        return sorted(glob.glob(pattern))  # noqa: PTH207 # a string for a string
    starts = glob.glob(before) if glob.has_magic(before) else [before]  # noqa: PTH207
    matches: set[str] = set()
    for start in starts:
        for folder in _folders(start):
            matches.update(matches_of(glob.escape(folder) + after))
    return sorted(matches)


def refuse_unlisted(error: OSError) -> None:
    """Refuse a folder that cannot be listed: `os.walk` would pass it over in silence.

    Raises:
        UsageError: always.
    """
    raise UsageError(
        f"cannot list the folder {error.filename}: {error.strerror}; allow it, or name others"
    ) from error


def _folders(start: str) -> Iterator[str]:
    """Yield what stands before a name in a folder and in those below it that are not hidden."""
    if start and not os.path.isdir(start):  # noqa: PTH112
        return
    here = os.path.join(os.curdir, "")  # noqa: PTH118
    for place, below, _ in os.walk(start or here, onerror=refuse_unlisted):
        below[:] = [name for name in below if not name.startswith(".")]
        folder = os.path.join(place, "")  # noqa: PTH118
        yield folder if start else folder.removeprefix(here)
