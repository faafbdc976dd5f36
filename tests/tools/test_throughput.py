from __future__ import annotations

from dataclasses import asdict

import onnx
import pytest

from tests.end_to_end.small_model import small_model
from tools.throughput import SMALL, Contest, Result, Spread, make_photos, measure
from tools.throughput_page import CONTESTANTS, SIZE_DEPENDENT, STEPS, page


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("throughput")
    onnx.save(small_model(size=224), folder / "small.onnx")
    photos = make_photos(folder, 3, SMALL)
    assert len({photo.read_bytes() for photo in photos}) == 3
    return measure(Contest(folder / "small.onnx", "imagenet", photos, 2), "small", 2)


def test_every_contestant_and_step_is_measured_and_told_of(result: Result) -> None:
    assert set(result.wall) == set(result.ratio) == set(result.cpu) == set(CONTESTANTS)
    assert set(result.steps) == set(STEPS)
    assert result.ratio["bare"] == Spread(1, 1, 1)
    assert all(spread.low > 0 for spread in result.wall.values())
    for name in ("decode", "preprocess", "run", "draw", "encode PNG"):
        assert result.steps[name] > 0


def test_the_page_has_the_figures(result: Result) -> None:
    facts = {
        **dict.fromkeys(("onnxruntime", "opencv", "numpy"), "1.2.3"),
        "threads": 2,
        "images": 3,
        "repetitions": 2,
        "models": [asdict(result)],
        "steps_of_a_large_photo": dict.fromkeys(SIZE_DEPENDENT, 12.345),
    }
    text = page(facts)
    for who in CONTESTANTS:
        assert f"| {who} | {result.ratio[who].median:.2f} (" in text
        assert f"| {who} | {result.wall[who].median:.1f} (" in text
    assert f"| decode | {result.steps['decode']:.2f} | 12.35 |" in text.replace("12.34 ", "12.35 ")
    assert f"| run | {result.steps['run']:.2f} |  |" in text
    assert f"Maps reach {result.ratio['maps'].median:.2f}" in " ".join(text.split())
