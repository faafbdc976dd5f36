from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_gradcam.cam import Need, compute, get_method, method_names, register, registry, require
from onnx_gradcam.cam.registry import Maps
from onnx_gradcam.errors import UnsupportedModelError, UsageError

ROOT = Path(__file__).parents[2]
METHODS = method_names({Need.GRADIENTS, Need.SEED})
FREE = {"activationmap", "eigencam", "kpcacam", "fem", "randomcam"}
"""Of these, methods that look at no gradient."""


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> str:
    """Enter a method that needs runs of the network's head."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    @register("scored", title="none", paper="none", needs=(Need.HEAD_RUNS, Need.SEED))
    def function(activations: Maps, head_runs: Maps, seed: int) -> Maps:
        return activations[:, 0] * head_runs + seed

    return "scored"


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'gradcam'"):
        get_method("gradcamm")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'gradcam' is registered already"):
        register("gradcam", title="another", paper="none")(get_method("gradcam").function)


@pytest.mark.parametrize("name", method_names())
def test_each_method_says_where_it_comes_from(name: str) -> None:
    method = get_method(name)
    assert method.paper.startswith(("arXiv:", "doi:", "hdl:"))
    assert method.paper in (method.function.__doc__ or "")
    assert method.needs_gradients == (Need.GRADIENTS in method.needs)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_may_be_left_out_where_no_method_needs_them(name: str) -> None:
    activations = np.arange(16, dtype=np.float32).reshape(1, 2, 2, 4)
    if name in FREE:
        with_zeros = compute(name, activations, np.zeros_like(activations))
        np.testing.assert_array_equal(compute(name, activations), with_zeros)
    else:
        with pytest.raises(UnsupportedModelError, match="needs gradients"):
            compute(name, activations)


def test_what_a_file_does_not_offer(scored: str) -> None:
    offered = {Need.GRADIENTS, Need.SEED}
    assert scored in method_names()
    assert scored not in method_names(offered)
    message = "'scored' needs head runs, which the file does not offer; it can serve gradcam, "
    with pytest.raises(UnsupportedModelError, match=message):
        require(scored, offered)
    with pytest.raises(UnsupportedModelError, match="needs head runs and seed"):
        require(scored, {Need.GRADIENTS})
    assert require(scored, {Need.HEAD_RUNS, Need.SEED}).name == scored
    assert set(method_names({})) == FREE - {"randomcam"}


@pytest.mark.parametrize("name", [n for n in method_names() if not get_method(n).smooths])
def test_what_cannot_be_smoothed(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name!r} is no sum over channels.*gradcam, "):
        require(name, set(Need), eigen_smooth=True)


def test_every_method_is_documented_with_its_paper_and_needs() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = {row[1]: row[0] for row in re.finditer(r"^\| `([^`]+)` \|.*$", text, re.MULTILINE)}
    assert tuple(rows) == method_names()
    for name, row in rows.items():
        method = get_method(name)
        assert method.paper.partition(":")[2] in row, name
        needs = ", ".join(method.needs) or "activations alone"
        assert f"| {needs} |" in row, name
        assert ("| yes |" in row) == method.smooths, name


def test_every_method_is_listed_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in method_names() if f"`{name}`" not in text] == []


def test_settings_are_the_keyword_arguments_of_a_method() -> None:
    assert dict(get_method("finercam").settings) == {"alpha": 1.0, "comparisons": 3}
    assert get_method("rise").settings["masks"] == 1000
    assert not get_method("gradcam").settings


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "rise",
            {"maks": 9},
            r"no setting 'maks'; did you mean 'masks'.*masks \(1000\)",
        ),
        ("gradcam", {"masks": 9}, r"has no setting 'masks' \(settings: none\)"),
        ("rise", {"masks": 0}, "takes whole numbers above 0, not 0"),
        ("rise", {"masks": 1.5}, "takes whole numbers above 0, not 1.5"),
        ("rise", {"share": "half"}, "takes numbers above 0, not 'half'"),
        ("occlusion", {"window": [4, -1]}, "takes whole numbers above 0"),
    ],
)
def test_settings_that_are_none(method: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        require(method, tuple(Need), settings=settings)
    assert require("rise", tuple(Need), settings={"masks": 9, "share": 1}).name == "rise"
