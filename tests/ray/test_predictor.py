from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onnx_gradcam.batch import BatchOptions
from onnx_gradcam.batch.schema import COLUMNS
from onnx_gradcam.errors import OnnxGradCamError
from onnx_gradcam.ray import CamPredictor
from onnx_gradcam.ray.http import MOST_BYTES, json_row
from tests.batch.examples import batch, rows, write_images, write_model

OPTIONS = BatchOptions(top_k=2, thumbnails=8)
IMAGES = 9


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), IMAGES)


@pytest.fixture(scope="module")
def expected(
    model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int], dict[str, Any]]:
    """The rows that the command would write, by path and rank, without numbers of images."""
    out = tmp_path_factory.mktemp("out")
    batch(model, images, out, replace(OPTIONS, shard_size=4))
    return {(row["path"], row["rank"]): numberless(row) for row in rows(out)}


def numberless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "image"}


def explained(dataset: Any, model: Any, **how: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dataset.map_batches(
        CamPredictor,
        fn_constructor_args=[model, OPTIONS],
        fn_constructor_kwargs=how,
        concurrency=1,
        num_cpus=1,
        batch_size=4,
    ).take_all()
    return found


def test_a_data_set_of_images(
    ray: Any, model: Path, images: Path, expected: dict[tuple[str, int], dict[str, Any]]
) -> None:
    """Decoded as `read_images` has them, which needs Pillow."""
    items = [
        {"image": np.asarray(cv2.imread(str(path))[..., ::-1]), "path": str(path)}
        for path in sorted(images.iterdir())
    ]
    dataset = ray.data.from_items(items, override_num_blocks=2)
    found = explained(dataset, str(model))
    assert {(row["path"], row["rank"]): numberless(row) for row in found} == expected
    assert list(found[0]) == list(COLUMNS)


def test_a_data_set_of_bytes(
    ray: Any, model: Path, images: Path, expected: dict[tuple[str, int], dict[str, Any]]
) -> None:
    """The model comes as bytes too, for nodes that share no files."""
    dataset = ray.data.read_binary_files(str(images), include_paths=True, override_num_blocks=2)
    found = explained(dataset, model.read_bytes())
    assert {(row["path"], row["rank"]): numberless(row) for row in found} == expected


def test_a_data_set_of_paths(
    ray: Any, model: Path, images: Path, expected: dict[tuple[str, int], dict[str, Any]]
) -> None:
    items = [{"file": str(path), "key": 7 + n} for n, path in enumerate(sorted(images.iterdir()))]
    items.append({"file": "gone.png", "key": 99})
    dataset = ray.data.from_items(items, override_num_blocks=2)
    found = explained(dataset, str(model), column="file", number="key")
    good = [row for row in found if row["error"] is None]
    assert {(row["path"], row["rank"]): numberless(row) for row in good} == expected
    assert sorted(row["image"] for row in good[::2]) == list(range(7, 7 + IMAGES))
    (bad,) = (row for row in found if row["error"])
    assert (bad["image"], bad["path"]) == (99, "gone.png")
    assert bad["error"] == "cannot read gone.png: No such file or directory"


ROUTES = {"/one-by-one": 1, "/together": 3}
"""Where a deployment answers -> images per run."""


@pytest.fixture(scope="module")
def port(ray: Any, model: Path) -> Iterator[int]:
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": number})
    service = serve.deployment(CamPredictor).options(ray_actor_options={"num_cpus": 0.5})
    serve.run_many(
        [
            serve.RunTarget(
                service.bind(str(model), replace(OPTIONS, batch=together), wait=0.05),
                name=route[1:],
                route_prefix=route,
            )
            for route, together in ROUTES.items()
        ]
    )
    yield number
    serve.shutdown()


def ask(
    port: int, path: str, body: bytes | None, method: str = "POST", **headers: str
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("route", ROUTES)
def test_an_image_over_http(
    port: int, route: str, images: Path, expected: dict[tuple[str, int], dict[str, Any]]
) -> None:
    paths = sorted(images.iterdir())
    with ThreadPoolExecutor(IMAGES) as pool:
        answers = list(pool.map(lambda p: ask(port, f"{route}?name={p}", p.read_bytes()), paths))
    for path, (status, answer) in zip(paths, answers, strict=True):
        assert status == 200
        assert len(answer["rows"]) == 2
        for rank, row in enumerate(answer["rows"]):
            wanted = json_row(expected[str(path), rank]) | {"image": row["image"]}
            exact = {n: v for n, v in wanted.items() if n not in {"score", "entropy", "map"}}
            assert {n: row[n] for n in exact} == exact
            assert row["score"] == pytest.approx(wanted["score"], rel=1e-6)
            assert row["entropy"] == pytest.approx(wanted["entropy"], rel=1e-5)
            maps = [np.frombuffer(base64.b64decode(r["map"]), "<f2") for r in (row, wanted)]
            np.testing.assert_allclose(*maps, atol=1e-3)
    assert answers[0][1]["rows"][0]["score"] != answers[1][1]["rows"][0]["score"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("request_", "status", "line"),
    [
        ({"body": b"no image"}, 400, "not an image of a known format"),
        ({"body": b""}, 400, "the image is empty (0 bytes)"),
        ({"body": None}, 400, "the image is empty (0 bytes)"),
        ({"body": None, "method": "GET"}, 405, "GET shows nothing: POST an image"),
        ({"body": b"x", "content_type": "multipart/form-data; boundary=b"}, 415, "a form: post"),
        ({"body": bytes(MOST_BYTES + 1)}, 413, "more than 67108864 bytes"),
    ],
)
def test_bad_requests_are_one_line(
    port: int, route: str, images: Path, request_: dict[str, Any], status: int, line: str
) -> None:
    found, answer = ask(port, route, **request_)
    assert found == status
    assert answer["error"].startswith(line)
    assert "\n" not in answer["error"]
    assert ask(port, route, (images / "0001.png").read_bytes())[0] == 200


def test_json_has_no_numbers_that_are_none() -> None:
    row = json_row({"score": float("nan"), "entropy": float("inf"), "map": b"\x00\xff", "area": 3})
    assert (row["score"], row["entropy"], row["map"], row["area"]) == (None, None, "AP8=", 3)


def test_a_model_that_is_none_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra [ray]")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(OnnxGradCamError, match="not a model that onnxruntime can load"):
        CamPredictor(tmp_path / "model.onnx")
