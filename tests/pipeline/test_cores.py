from __future__ import annotations

import pytest

from onnx_gradcam.pipeline import Division, cores, divide


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 8)


@pytest.mark.parametrize(
    ("images", "method", "threads", "expected"),
    [
        (None, None, None, Division(8, 1)),
        (100, "gradcam", None, Division(8, 1)),
        (3, None, None, Division(3, 6)),
        (100, None, 2, Division(2, 1)),
        (100, None, 40, Division(16, 25)),
        (1, None, None, Division(1)),
        (1, None, 4, Division(1, 4)),
        (0, None, None, Division(1)),
        (100, None, 1, Division(1, 1)),
        (100, "rise", None, Division(1)),  # runs thousands of images of its own
        (100, "ablationcam", 3, Division(1, 3)),
        (100, "no such method", None, Division(8, 1)),
    ],
)
def test_cores_are_divided(
    images: int | None, method: str | None, threads: int | None, expected: Division
) -> None:
    division = divide(images, method, threads)
    assert division == expected
    if division.intra_op_threads is not None and division.workers > 1:
        assert division.workers + division.intra_op_threads - 1 == (threads or 8)


def test_a_device_gets_fewer_runs_at_a_time() -> None:
    assert Division(8, 1).workers_on(["CPUExecutionProvider"]) == 8
    assert Division(8, 1).workers_on(["CUDAExecutionProvider", "CPUExecutionProvider"]) == 4
    assert Division(1).workers_on(["CUDAExecutionProvider", "CPUExecutionProvider"]) == 1


def test_session_options_have_the_threads() -> None:
    assert Division(2, 3).session_options().intra_op_num_threads == 3
    assert Division(1).session_options() is None


def test_there_is_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert cores.cores() >= 1
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert cores.cores() >= 1
