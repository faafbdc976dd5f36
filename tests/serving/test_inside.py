"""Servers, their clients and MLflow have an environment of their own; their tests run in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.serving.conftest import PYTHON

ROOT = Path(__file__).parents[2]
NEEDS = {
    "test_mlflow_recipe.py": "mlflow",
    "test_triton_schema.py": "tritonclient",
    "test_v2_runtime.py": "mlserver",
    "test_v2_server.py": "mlserver",
}
"""File of tests -> the package without which it has no meaning."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        [str(PYTHON), *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_every_file_is_run() -> None:
    assert set(NEEDS) == {path.name for path in (Path(__file__).parent / "inside").glob("test_*")}


@pytest.mark.serving
@pytest.mark.parametrize("file", NEEDS)
def test_in_the_environment_of_servers(file: str, tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip(f"no environment of servers in {PYTHON.parents[1]}; `make test` makes one")
    if run("-c", f"import importlib.util as u; assert u.find_spec({NEEDS[file]!r})").returncode:
        pytest.skip(f"{NEEDS[file]} is not there: it has no release for this Python")
    done = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inside'}"),
        *("-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning"),
        f"tests/serving/inside/{file}",
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
