"""Exported files for model folders, and what such a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.contract_models import LABELS, contract_model
from tests.export.triton.schema import parsed


def exported(folder: Path, name: str = "cat.dog.cam.onnx", **made: Any) -> Path:
    path = folder / name
    path.write_bytes(contract_model(**{"labels": LABELS, **made}))
    return path


def config_of(folder: Path) -> Any:
    return parsed((folder / "config.pbtxt").read_text(encoding="utf-8"))


def files(folder: Path) -> dict[str, bytes]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}
