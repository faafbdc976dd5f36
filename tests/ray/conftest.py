"""Ray on this machine, with two processors and a GPU whatever it has, shared by all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OF_RAY = (
    # Ray Data sets defaults of its own that it has given up
    "ignore:`use_(push_based_shuffle|polars|arrow_tensor_v2)` is deprecated:DeprecationWarning",
    # Ray Serve declares fields as pydantic 1 had them
    "ignore:Using extra keyword arguments on `Field` is deprecated:DeprecationWarning",
)
"""Warnings that Ray's own code gives cause for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for warning in OF_RAY:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="package")
def ray() -> Iterator[Any]:
    pytest.importorskip("ray", reason="needs the extra [ray]")
    from onnx_gradcam.ray.cluster import import_ray

    ray = import_ray()
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()
