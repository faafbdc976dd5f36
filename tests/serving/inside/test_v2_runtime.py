"""The runtime of the example by itself: its limits, and files that it does not serve."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlserver.errors import MLServerError
from mlserver.settings import ModelSettings
from mlserver.types import InferenceRequest, RequestInput

from tests.serving.inside.serving import EXAMPLE, NAME, encoded, write_model

Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A function that makes a runtime of given settings, not loaded yet."""
    monkeypatch.syspath_prepend(str(EXAMPLE / NAME))
    monkeypatch.delitem(sys.modules, "runtime", raising=False)

    def made(extra: dict[str, Any] | None = None) -> Any:
        settings = json.loads((EXAMPLE / NAME / "model-settings.json").read_text())
        settings["parameters"]["uri"] = str(write_model(tmp_path))
        settings["parameters"]["extra"] |= extra or {}
        import runtime

        return runtime.CamRuntime(ModelSettings.model_validate(settings))

    return made


def request() -> InferenceRequest:
    data: Any = [encoded(1)]
    return InferenceRequest(
        inputs=[RequestInput(name="photo", shape=[1], datatype="BYTES", data=data)]
    )


def test_more_requests_than_the_queue_holds_are_refused_at_once(make: Make) -> None:
    model = make({"queue": 3, "threads": 1})
    go = threading.Event()

    async def run() -> list[Any]:
        assert await model.load()
        answer = model._answer

        def slow(payload: InferenceRequest) -> Any:
            go.wait(10)
            return answer(payload)

        model._answer = slow
        sent = [asyncio.create_task(model.predict(request())) for _ in range(5)]
        done, _ = await asyncio.wait(sent, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 2
        go.set()
        found = await asyncio.gather(*sent, return_exceptions=True)
        later = await model.predict(request())
        assert later.outputs[0].name == "scores"
        await model.unload()
        return found

    answers = asyncio.run(run())
    refused = [error for error in answers if isinstance(error, MLServerError)]
    assert [(error.status_code, str(error)) for error in refused] == [
        (503, "busy: 3 requests are waiting; try again")
    ] * 2
    assert len(answers) == 5


def test_an_unknown_setting_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="unknown setting 'thread'; known are methods, most_im"):
        asyncio.run(make({"thread": 1}).load())


def test_a_file_without_pictures_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_gradcam.runtime.image_input import ImageInput

    model = make()
    monkeypatch.setattr(ImageInput, "spatial_axes", property(lambda _: 1))
    with pytest.raises(ValueError, match="takes no pictures but 'image'"):
        asyncio.run(model.load())
