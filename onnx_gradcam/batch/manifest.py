"""What a folder of results says of itself, and whether another run may go on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnx_gradcam import __version__
from onnx_gradcam.batch.layout import MANIFEST
from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.sources import Sources
from onnx_gradcam.errors import OutputError
from onnx_gradcam.files import write_whole
from onnx_gradcam.runtime import Explainer

NAME = MANIFEST
FORMAT = 1


class DamagedManifestError(OutputError):
    """Whether it is the manifest of a batch cannot be told any more."""


SAME = ("format", "tool_version", "model", "options")
"""What must not change from one run to the next."""


def manifest_of(
    explainer: Explainer, exported: Path, sha256: str, sources: Sources, options: BatchOptions
) -> dict[str, Any]:
    """Return the manifest of a batch that has just begun."""
    facts = explainer.metadata
    return {
        "format": FORMAT,
        "tool_version": __version__,
        "model": {
            "file": exported.name,
            "sha256": sha256,
            "source_sha256": facts.source_sha256,
            "target_layers": [layer.target for layer in facts.layers],
            "score": facts.score_tensor,
            "gradient_builder": f"{facts.gradient_builder} {facts.gradient_builder_version}",
            "classes": facts.num_classes,
        },
        "options": options.to_dict() | {"method": options.method or explainer.default_method},
        "sources": {
            "inputs": list(sources.inputs),
            "column": sources.column,
            "root": sources.root,
        },
        "complete": False,
    }


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder of results, None where there is none.

    Raises:
        DamagedManifestError: it has been cut short.
        OutputError: it cannot be read, or is none.
    """
    path = folder / NAME
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}; take another folder") from error
    except ValueError as error:
        raise DamagedManifestError(
            f"cannot read {path}: {error}; begin the batch anew with --force, or take another"
            " folder"
        ) from error
    if not isinstance(found, dict):
        raise OutputError(f"{path} is no manifest of a batch; take another folder")
    return found


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest.

    Raises:
        WriteError: the disk is full.
    """
    text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str) + "\n"
    # what is left of names that are no UTF-8 becomes an escape of JSON
    write_whole(folder / NAME, text.encode("utf-8", "backslashreplace"), force=True, lasting=True)


def refuse_foreign(old: dict[str, Any], folder: Path) -> None:
    """Check that a manifest is that of a batch; other programs write files of that name too.

    Raises:
        OutputError: it is not.
    """
    if not old.keys() >= set(SAME):
        raise OutputError(f"{folder / NAME} is no manifest of a batch; take another folder")


def refuse_other(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    """Check that a folder holds the results of the same batch.

    Raises:
        OutputError: it does not, with the first difference.
    """
    for section in SAME:
        before, after = old.get(section), json.loads(json.dumps(new[section], default=str))
        if before == after:
            continue
        name, was, would_be = section, before, after
        if isinstance(before, dict) and isinstance(after, dict):
            name = next(k for k in {**before, **after} if before.get(k) != after.get(k))
            was, would_be = before.get(name), after.get(name)
        raise OutputError(
            f"{folder} holds another batch: {name} was {was!r}, not {would_be!r};"
            " take another folder, or begin anew with --force"
        )
