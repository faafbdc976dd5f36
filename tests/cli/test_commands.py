"""Each command hands its options to the library; what the library does is tested elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import onnx_gradcam
from onnx_gradcam.cli.main import main
from onnx_gradcam.export.verification.report import Check, VerificationReport


class Report:
    """A report as the library gives them."""

    passed = True

    def to_dict(self) -> dict[str, Any]:
        return {"name": "größe"}

    def summary(self) -> str:
        return "a summary"


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Record calls of the library's functions: (name, positional, keyword)."""
    calls: list[tuple[Any, ...]] = []

    def record(name: str) -> Any:
        def function(*positional: object, **keyword: object) -> Report:
            calls.append((name, positional, keyword))
            return Report()

        return function

    for name in ("inspect_model", "export_model", "check_export"):
        monkeypatch.setitem(vars(onnx_gradcam), name, record(name))
    return calls


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    return result


EXPORT_DEFAULTS = {
    "layer": ["auto"],
    "score": None,
    "image_input": None,
    "full_gradient": False,
    "gradient_builder": "auto",
    "class_input": "optional",
    "preprocess": None,
    "labels": None,
    "attention": None,
    "attention_blocks": None,
    "gate": False,
    "force": False,
    "verify": True,
    "inputs": None,
    "objective": "class",
    "weights": False,
    "several": False,
    "class_axis": None,
    "class_channels": None,
    "fuse_cam": None,
    "cam_size": "map",
    "cam_normalise": False,
    "outputs": "all",
    "second_order": False,
    "emit_triton": None,
}


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ([], {}),
        (["--layer", "/conv"], {"layer": ["/conv"]}),
        (["--layer", "3", "--layer", "auto"], {"layer": [3, "auto"]}),
        (["--score", "logits"], {"score": "logits"}),
        (["--image-input", "depth"], {"image_input": "depth"}),
        (["--full-gradient"], {"full_gradient": True}),
        (["--gradient-builder", "reverse"], {"gradient_builder": "reverse"}),
        (["--class-input", "fixed:7"], {"class_input": "fixed:7"}),
        (["--objective", "softmax"], {"objective": "softmax"}),
        (["--weights"], {"weights": True}),
        (["--several"], {"several": True}),
        (["--class-axis", "-1"], {"class_axis": -1}),
        (["--second-order"], {"second_order": True}),
        (["--class-channels", "4:"], {"class_channels": "4:"}),
        (["--preprocess", "imagenet"], {"preprocess": "imagenet"}),
        (["--labels", "names.txt"], {"labels": Path("names.txt")}),
        (["--attention", "both"], {"attention": "both"}),
        (
            ["--attention", "legrad", "--attention-blocks", "2"],
            {"attention": "legrad", "attention_blocks": 2},
        ),
        (["--force"], {"force": True}),
        (["--no-verify"], {"verify": False}),
        (["--fuse-cam", "layercam"], {"fuse_cam": "layercam"}),
        (["--cam-size", "32x48"], {"cam_size": "32x48"}),
        (["--cam-normalise"], {"cam_normalise": True}),
        (["--outputs", "cam"], {"outputs": "cam"}),
        (["--gate"], {"gate": True}),
        (["--emit-triton", "models"], {"emit_triton": Path("models")}),
    ],
)
def test_export_hands_on_each_option(
    called: list[tuple[Any, ...]], options: list[str], changed: dict[str, Any]
) -> None:
    run("export", "a.onnx", "-o", "b.onnx", *options)
    assert called == [("export_model", (Path("a.onnx"), Path("b.onnx")), EXPORT_DEFAULTS | changed)]


def test_inspect_hands_on_score_and_input(called: list[tuple[Any, ...]]) -> None:
    run("inspect", "a.onnx", "--score", "logits", "--image-input", "depth")
    asked = {"score": "logits", "image_input": "depth", "objective": "class"}
    asked |= {"class_axis": None, "class_channels": None}
    assert called == [("inspect_model", (Path("a.onnx"),), asked)]


def test_check_hands_on_the_original(called: list[tuple[Any, ...]]) -> None:
    run("check", "a.cam.onnx", "--against", "a.onnx")
    assert called == [
        ("check_export", (Path("a.cam.onnx"),), {"against": Path("a.onnx"), "inputs": None})
    ]


def test_a_failed_check_is_shown_and_exits_4(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (Check("gradient", False, "off by 0.5"), Check("loads", True, "yes"))
    monkeypatch.setitem(
        vars(onnx_gradcam), "check_export", lambda *_, **__: VerificationReport(checks)
    )
    result = CliRunner().invoke(main, ["check", "a.cam.onnx"])
    assert result.exit_code == 4
    assert "off by 0.5" in result.stdout
    assert result.stderr == "error: a.cam.onnx failed: gradient\n"


@pytest.mark.parametrize(
    "arguments", [["inspect", "a"], ["export", "a", "-o", "b"], ["check", "a"]], ids=lambda a: a[0]
)
def test_reports_are_text_or_json(called: list[tuple[Any, ...]], arguments: list[str]) -> None:
    assert run(*arguments).stdout == "a summary\n"
    as_json = run(*arguments, "--json").stdout
    assert json.loads(as_json) == {"name": "größe"}
    assert "größe" in as_json
    assert len(called) == 2
