from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onnx_gradcam import explain_images, load
from onnx_gradcam.cam import Need
from onnx_gradcam.cam.attention import TokenMaps
from onnx_gradcam.errors import ClassNotFoundError, ImageError, UsageError
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime import Explainer, Explanation
from tests.contract_models import LABELS, contract_model
from tests.pipeline.threads import pipeline_threads

RECIPE = Preprocessing(resize=12, crop=(8, 10), scale=1 / 255, mean=(0.5,), std=(0.25,))
PER_ROW = ("scores", "classes", "cams", "raw_maps", "activations", "gradients")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert pipeline_threads() == []


def loaded(**model: Any) -> Explainer:
    return load(
        contract_model(labels=LABELS, preprocessing=RECIPE.to_dict(), **model), device="cpu"
    )


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return loaded()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Paths, bytes and pixels, each another picture of another size."""
    folder = tmp_path_factory.mktemp("photos")
    sources: list[Any] = []
    for number in range(12):
        random = np.random.default_rng(number)
        pixels = random.integers(0, 256, (14 + number, 30 - number, 3), np.uint8)
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), pixels)
        sources.append([path, path.read_bytes(), pixels][number % 3])
    return sources


def assert_same(found: Explanation, expected: Explanation, tolerance: float = 0) -> None:
    for name in PER_ROW:
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=0, atol=tolerance, err_msg=name
        )
    assert np.ptp(found.raw_maps) > 0.1, "the maps show something"
    assert found.class_names == expected.class_names
    assert found.notes == expected.notes
    assert found.geometry == expected.geometry
    np.testing.assert_array_equal(found.photo, expected.photo)
    np.testing.assert_allclose(found.photo_cams(), expected.photo_cams(), atol=tolerance)


@pytest.mark.parametrize("workers", [1, 2, None])
def test_the_results_of_one_by_one_to_the_last_bit(
    explainer: Explainer, photos: list[Any], workers: int | None
) -> None:
    done = list(explain_images(explainer, photos, [2], workers=workers))
    assert all(one.source is photo for one, photo in zip(done, photos, strict=True))
    for one, photo in zip(done, photos, strict=True):
        assert one.error is None
        assert one.result is not None
        assert_same(one.result, explainer.explain_image(photo, 2))


def test_failures_are_results(explainer: Explainer, photos: list[Any], tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(photos[1][:60])
    sources = [photos[0], tmp_path / "cut.png", photos[1], tmp_path / "gone.png", photos[2], b""]
    done = list(explain_images(explainer, sources, 1, "hirescam", workers=3))
    assert [one.source for one in done[:4]] == sources[:4]
    assert [one.error is None for one in done] == [True, False, True, False, True, False]
    assert "cut.png" in str(done[1].error)
    assert "gone.png: No such file" in str(done[3].error)
    assert "0 bytes" in str(done[5].error)
    assert done[1].result is None
    for place in (0, 2, 4):
        found = done[place].result
        assert found is not None
        assert_same(found, explainer.explain_image(sources[place], 1, "hirescam"))


@pytest.mark.parametrize("batch", [2, 5, 40])
def test_several_images_per_run(
    explainer: Explainer, photos: list[Any], batch: int, tmp_path: Path
) -> None:
    sources = [*photos[:4], tmp_path / "gone.png", *photos[4:]]
    classes = ["Boston bull", -1]
    done = list(explain_images(explainer, sources, classes, batch=batch, workers=2))
    assert [one.source is source for one, source in zip(done, sources, strict=True)] == [True] * 13
    assert [place for place, one in enumerate(done) if one.error] == [4]
    del done[4]
    for one, photo in zip(done, photos, strict=True):
        assert one.result is not None
        expected = explainer.explain_image(photo, classes)
        assert_same(one.result, expected, 1e-5)
        again, known = one.result.with_method("layercam"), expected.with_method("layercam")
        np.testing.assert_allclose(again.raw_maps, known.raw_maps, atol=1e-5)
        assert len(one.result.layers) == 1
        np.testing.assert_array_equal(one.result.layers[0].raw_maps, one.result.raw_maps)


def test_a_model_of_a_fixed_number_gets_as_many(photos: list[Any]) -> None:
    explainer = loaded(image="4, 3, 8, 10")
    runs = []
    run = explainer._session.run

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(explainer._session, name)

        def run(self, *arguments: Any) -> Any:
            runs.append(1)
            return run(*arguments)

    counted = Explainer(Counted())
    done = list(explain_images(counted, photos[:10], workers=2))
    assert len(runs) == 3
    for one, photo in zip(done, photos[:10], strict=True):
        assert one.result is not None
        assert_same(one.result, explainer.explain_image(photo), 1e-5)


def test_nothing_of_a_group_can_be_read(explainer: Explainer) -> None:
    done = list(explain_images(explainer, [b"1", b"2", b"3"], batch=2))
    assert [one.source for one in done if one.error] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("batch", [1, 3])
def test_sources_may_be_anything_and_results_what_is_made_of_them(
    explainer: Explainer, photos: list[Any], batch: int
) -> None:
    threads = set()

    def read(row: dict[str, Any]) -> Any:
        if row["id"] == 3:
            raise ImageError("row 3 is empty")
        return row["data"]

    def finish(row: dict[str, Any], explanation: Explanation) -> tuple[int, int]:
        threads.add(threading.current_thread())
        if row["id"] == 5:
            raise ImageError("row 5 is dull")
        return row["id"], int(explanation.classes[0])

    rows = ({"id": number, "data": photo} for number, photo in enumerate(photos))
    done = list(explain_images(explainer, rows, read=read, finish=finish, workers=2, batch=batch))
    classes = [int(explainer.explain_image(photo).classes[0]) for photo in photos]
    assert len(set(classes)) > 1
    assert [one.result for one in done] == [
        None if number in {3, 5} else (number, classes[number]) for number in range(12)
    ]
    assert [str(done[place].error) for place in (3, 5)] == ["row 3 is empty", "row 5 is dull"]
    assert threading.current_thread() not in threads


def test_other_errors_end_it_in_their_turn(explainer: Explainer, photos: list[Any]) -> None:
    def finish(source: Any, explanation: Explanation) -> int:
        if source is photos[5]:
            raise OSError("no space left")
        return len(explanation)

    results = explain_images(explainer, itertools.cycle(photos), finish=finish, workers=2)
    assert [one.result for one in itertools.islice(results, 5)] == [1] * 5
    with pytest.raises(OSError, match="no space left"):
        next(results)
    assert pipeline_threads() == []
    with pytest.raises(ClassNotFoundError, match="out of range"):
        next(explain_images(explainer, photos, 17, workers=2))


def test_a_reader_that_stops_early(explainer: Explainer, photos: list[Any]) -> None:
    read = 0

    def endless() -> Iterator[Any]:
        nonlocal read
        for photo in itertools.cycle(photos):
            read += 1
            yield photo

    results = explain_images(explainer, endless(), workers=2, ahead=6, batch=2)
    for handed_out in range(1, 9):
        next(results)
        assert read - handed_out <= 6 + 1  # the rest of the group that is handed out
    results.close()
    assert pipeline_threads() == []


def test_what_is_refused(explainer: Explainer, photos: list[Any]) -> None:
    with pytest.raises(UsageError, match="take at least one"):
        next(explain_images(explainer, photos, batch=0))
    with pytest.raises(UsageError, match="weights with 2 images per run"):
        next(explain_images(explainer, photos, batch=2, weights={0: 1.0}))
    plain = load(contract_model(), device="cpu")
    for batch in (1, 2):
        with pytest.raises(UsageError, match="no preprocessing"):
            next(explain_images(plain, photos, batch=batch))


def test_rows_of_a_photo_take_all_that_belongs_to_them() -> None:
    random = np.random.default_rng(0)
    attention = TokenMaps(random.random((6, 2, 4)).astype(np.float32), (2, 2), (0, 1, 2, 3))
    biases = [random.random((6, 3)), random.random((6, 5))]
    explainer = loaded()
    x = random.random((6, 3, 8, 10)).astype(np.float32)
    whole = explainer.explain(x)
    further = {
        Need.ATTENTION: attention,
        Need.BIASES: biases,
        Need.CURVATURE: random.random((6, 2)),
    }
    object.__setattr__(whole, "further", further)
    seen = explainer.prepare(np.zeros((12, 14, 3), np.uint8))
    part = whole.of_photo(slice(2, 4), seen.photo, seen.geometry)
    for name in PER_ROW:
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[2:4])
    assert part.notes == whole.notes[2:4]
    np.testing.assert_array_equal(part.further[Need.ATTENTION].values, attention.values[2:4])
    assert part.further[Need.ATTENTION].grid == (2, 2)
    np.testing.assert_array_equal(part.further[Need.BIASES][1], biases[1][2:4])
    np.testing.assert_array_equal(part.further[Need.CURVATURE], further[Need.CURVATURE][2:4])
