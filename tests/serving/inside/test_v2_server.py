"""The example server, asked by Triton's clients: right answers, errors of one line, under load."""

from __future__ import annotations

import base64
import json
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from onnx_gradcam import load
from onnx_gradcam.runtime import Explainer
from tests.contract_models import LABELS
from tests.serving.inside.serving import NAME, Server, encoded, images, make_folder, serving

Answer = Callable[[str], Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Explainer]]:
    folder = tmp_path_factory.mktemp("server") / "v2"
    model = make_folder(folder)
    with serving(folder) as server:
        yield server, load(model, device="cpu")


def ask_grpc(client: Any, outputs: tuple[str, ...] = (), /, **inputs: Any) -> Answer:
    given = []
    parameters = inputs.pop("parameters", None)
    for name, value in inputs.items():
        array, datatype = tensor(value)
        entry = grpc_client.InferInput(name, array.shape, datatype)
        entry.set_data_from_numpy(array)
        given.append(entry)
    asked = [grpc_client.InferRequestedOutput(name) for name in outputs] or None
    found = client.infer(NAME, given, outputs=asked, parameters=parameters)
    return lambda name: found.as_numpy(name)


def ask_http(client: Any, outputs: tuple[str, ...] = (), /, **inputs: Any) -> Answer:
    given = []
    parameters = inputs.pop("parameters", None)
    for name, value in inputs.items():
        array, datatype = tensor(value)
        if name == "photo" and datatype == "BYTES":
            array = np.array([base64.b64encode(photo) for photo in array], object)
        entry = http_client.InferInput(name, array.shape, datatype)
        entry.set_data_from_numpy(array, binary_data=False)
        given.append(entry)
    asked = [http_client.InferRequestedOutput(name, binary_data=False) for name in outputs] or None
    found = client.infer(NAME, given, outputs=asked, parameters=parameters)
    return lambda name: found.as_numpy(name)


def tensor(value: Any) -> tuple[Any, str]:
    if isinstance(value, list) and isinstance(value[0], (bytes, str)):
        items = [item.encode() if isinstance(item, str) else item for item in value]
        return np.array(items, object), "BYTES"
    array = np.asarray(value)
    return array, {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32"}[
        str(array.dtype)
    ]


def texts(values: Any) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else text for text in values.tolist()]


ASKS = {"grpc": (ask_grpc, grpc_client), "http": (ask_http, http_client)}


@pytest.mark.parametrize("protocol", ASKS)
def test_tensors_get_the_answers_of_the_explainer(
    protocol: str, served: tuple[Server, Explainer]
) -> None:
    server, explainer = served
    ask, module = ASKS[protocol]
    with module.InferenceServerClient(getattr(server, protocol)) as client:
        x = images(3)
        answer = ask(
            client, image=x, cam_class=np.array([2, -2, 0]), parameters={"method": "layercam"}
        )
        expected = explainer.explain(x, [2, -2, 0], "layercam")
        np.testing.assert_array_equal(answer("cams"), expected.cams)
        np.testing.assert_array_equal(answer("scores"), expected.scores)
        np.testing.assert_array_equal(answer("classes"), expected.classes)
        np.testing.assert_array_equal(answer("class_scores"), expected.class_scores)
        assert texts(answer("labels")) == list(expected.class_names)
        assert answer("cams").max() == pytest.approx(1)
        for cam, (column, row), box, area in zip(
            expected.cams, answer("peaks"), answer("boxes"), answer("areas"), strict=True
        ):
            if not cam.any():
                assert (column, row, *box, area) == (-1, -1, -1, -1, 0, 0, 0)
                continue
            assert cam[row, column] == cam.max()
            x0, y0, width, height = box
            assert 0 < area <= width * height
            assert cam[y0 : y0 + height, x0 : x0 + width].max() >= 0.5


@pytest.mark.parametrize("protocol", ASKS)
def test_photos_get_the_answers_of_the_explainer(
    protocol: str, served: tuple[Server, Explainer]
) -> None:
    server, explainer = served
    ask, module = ASKS[protocol]
    with module.InferenceServerClient(getattr(server, protocol)) as client:
        photos = [encoded(number) for number in range(3)]
        answer = ask(client, ("cams", "labels"), photo=photos, cam_class=[LABELS[4]])
        for row, photo in enumerate(photos):
            expected = explainer.explain_image(photo, LABELS[4])
            np.testing.assert_array_equal(answer("cams")[row], expected.cams[0])
            assert expected.cams.max() == pytest.approx(1)
        assert texts(answer("labels")) == [LABELS[4]] * 3
        assert answer("scores") is None


def test_the_server_says_what_it_takes(served: tuple[Server, Explainer]) -> None:
    with http_client.InferenceServerClient(served[0].http) as client:
        about = client.get_model_metadata(NAME)
    assert {entry["name"]: entry["datatype"] for entry in about["inputs"]} == {
        "image": "FP32", "photo": "BYTES", "cam_class": "INT64",
    }  # fmt: skip
    assert about["inputs"][0]["shape"] == [-1, 3, 8, 10]


def test_it_listens_on_this_machine_alone(served: tuple[Server, Explainer]) -> None:
    local = "0100007F"  # 127.0.0.1 in the kernel's order of bytes; gRPC listens by IPv6
    assert served[0].listens_on() == {local, f"0000000000000000FFFF0000{local}"}


X, PHOTOS = images(2), [encoded(7), encoded(8)]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "wrong shape": ({"image": X[:, :, :7]}, r"input of shape \(2, 3, 7, 10\) does not fit"),
    "wrong type": ({"image": X.astype(np.int64)}, "int64"),
    "no image": ({"cam_class": np.array([1])}, "give one of the inputs 'image' and 'photo'"),
    "two images": ({"image": X, "photo": PHOTOS}, "give one of the inputs 'image' and 'photo'"),
    "not a photo": ({"photo": [b"\xff\xd8nothing"]}, "damaged or of an unsupported kind"),
    "an empty photo": ({"photo": [b""]}, "empty"),
    "a photo of numbers": ({"photo": np.array([1])}, "input 'photo' is INT64, not BYTES"),
    "class out of range": ({"image": X, "cam_class": np.array([5])}, "class 5 is out of range"),
    "class by half": ({"image": X, "cam_class": np.array([1.5, 2])}, "1.5"),
    "an unknown label": ({"image": X, "cam_class": ["zebra"]}, "zebra"),
    "too few classes": ({"image": images(3), "cam_class": np.array([1, 2])}, "2 classes"),
    "NaN": ({"image": np.full_like(X, np.nan)}, "NaN or infinite"),
    "too many images": ({"image": images(17)}, "17 images; a request takes 1 to 16"),
    "wrong name": ({"picture": X}, "no input 'picture'; known are image, photo, cam_class"),
    "an unknown output": ({"image": X, "outputs": ("heat",)}, "no output 'heat'; known are scor"),
    "an unknown method": ({"image": X, "parameters": {"method": "rise"}},
                          "no method 'rise'; known are gradcam, layercam"),
    "an unknown parameter": ({"image": X, "parameters": {"treshold": "0.5"}},
                             "no parameter 'treshold'; known are method, threshold"),
    "a threshold of 2": ({"image": X, "parameters": {"threshold": 2}}, "threshold is 2; it takes"),
}  # fmt: skip


def refusal(ask: Any, client: Any, kind: str) -> str:
    """Send a bad request; return the error."""
    inputs = dict(BAD[kind][0])
    outputs = inputs.pop("outputs", ())
    with pytest.raises((grpc_client.InferenceServerException,)) as caught:
        ask(client, outputs, **inputs)
    status = caught.value.status()
    assert status in {"StatusCode.INVALID_ARGUMENT", "400"}, f"{status}: {caught.value}"
    return str(caught.value.message())


CASES = [
    (kind, protocol) for kind in BAD for protocol in ASKS if (kind, protocol) != ("NaN", "http")
]
"""JSON has no NaN."""


@pytest.mark.parametrize(("kind", "protocol"), CASES)
def test_a_bad_request_is_an_error_of_one_line(
    kind: str, protocol: str, served: tuple[Server, Explainer]
) -> None:
    ask, module = ASKS[protocol]
    with module.InferenceServerClient(getattr(served[0], protocol)) as client:
        message = refusal(ask, client, kind)
    assert "\n" not in message
    with pytest.raises(AssertionError, match=BAD[kind][1]):
        raise AssertionError(message)


BODIES = {
    "not JSON": (b"{", f"/v2/models/{NAME}/infer", {400, 422}),
    "no inputs": (b"{}", f"/v2/models/{NAME}/infer", {400, 422}),
    "not base64": (
        json.dumps({"inputs": [{"name": "photo", "shape": [1], "datatype": "BYTES",
                                "data": ["???"]}]}).encode(),
        f"/v2/models/{NAME}/infer", {400},
    ),
    "data of another size": (
        json.dumps({"inputs": [{"name": "image", "shape": [1, 3, 8, 10], "datatype": "FP32",
                                "data": [1.0, 2.0]}]}).encode(),
        f"/v2/models/{NAME}/infer", {400},
    ),
    "text for numbers": (
        json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "FP32",
                                "data": ["a"]}]}).encode(),
        f"/v2/models/{NAME}/infer", {400},
    ),
    "another model": (b'{"inputs": []}', "/v2/models/other/infer", {404}),
}  # fmt: skip


@pytest.mark.parametrize("kind", BODIES)
def test_a_malformed_body_is_an_error_of_one_line(
    kind: str, served: tuple[Server, Explainer]
) -> None:
    body, path, statuses = BODIES[kind]
    request = urllib.request.Request(
        f"http://{served[0].http}{path}", body, {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code in statuses
    text = caught.value.read().decode()
    assert len(text.strip().splitlines()) == 1
    json.loads(text)


def good(ask: Any, client: Any, explainer: Explainer, number: int) -> None:
    """Ask something and compare with the explainer in this process."""
    draw = random.Random(number)
    wanted = [draw.randrange(-5, 5) for _ in range(draw.randrange(1, 4))]
    if number % 2:
        x = images(len(wanted), seed=number)
        answer = ask(client, ("cams", "classes"), image=x, cam_class=np.array(wanted))
        expected = explainer.explain(x, wanted)
        np.testing.assert_array_equal(answer("cams"), expected.cams)
        np.testing.assert_array_equal(answer("classes"), expected.classes)
    else:
        photo = encoded(number)
        answer = ask(client, ("cams", "classes", "peaks"), photo=[photo])
        expected = explainer.explain_image(photo)
        np.testing.assert_array_equal(answer("cams"), expected.cams)
        np.testing.assert_array_equal(answer("classes"), expected.classes)
    assert expected.cams.any() or expected.notes[0]


def load_it(server: Server, explainer: Explainer, requests: int, start: int = 0) -> int:
    """Send requests from eight clients at once, every third a bad one; return how many were bad."""
    kinds = [kind for kind in BAD if kind != "NaN"]
    failures: list[BaseException] = []
    refused = []

    def client_of(index: int) -> None:
        ask, module = ASKS["grpc" if index % 2 else "http"]
        try:
            with module.InferenceServerClient(
                getattr(server, "grpc" if index % 2 else "http")
            ) as c:
                for number in range(start + index, start + requests, 8):
                    if number % 3:
                        good(ask, c, explainer, number)
                    else:
                        kind = kinds[number // 3 % len(kinds)]
                        refused.append(refusal(ask, c, kind))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client_of, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return len(refused)


def test_good_requests_are_right_among_bad_ones_and_memory_does_not_grow(
    served: tuple[Server, Explainer],
) -> None:
    server, explainer = served
    assert load_it(server, explainer, 600) == 200
    before = server.kilobytes()
    for part in range(1, 4):
        assert load_it(server, explainer, 600, 600 * part) == 200
    after = server.kilobytes()
    assert after - before < 4 * 1024, f"{before} KB before, {after} KB after 1800 requests"
    assert server.process.poll() is None
