"""Who is measured: our ways to run a model, and what a user would pick instead."""

from __future__ import annotations

from dataclasses import dataclass

PLAIN, AGAIN = "plain", "plain again"
EXPORTED, EXPLAINED, FUSED, PREDICT = "exported", "explained", "fused", "predict"

OURS = (PLAIN, AGAIN, EXPORTED, EXPLAINED, FUSED, PREDICT)
"""In one process, in turn. `AGAIN` is a second session of the same file: what differs is noise."""

MEANINGS = {
    PLAIN: "the original file on onnxruntime",
    EXPORTED: "the exported file, all outputs",
    EXPLAINED: "`Explainer.explain`, heat maps of the images' size in NumPy included",
    FUSED: "the file of `--fuse-cam gradcam --outputs cam`, all outputs",
    PREDICT: "`Explainer.predict`, the scores alone",
}


@dataclass(frozen=True)
class Engine:
    """What one worker process runs.

    Attributes:
        label: in tables.
        factory: ``module:function``, called in the worker with the `protocol.Task`.
        peer: runs in the peers' Python.
        packages: whose versions matter.
        compared: its heat maps are those of Grad-CAM and must agree with ours.
    """

    label: str
    factory: str
    peer: bool = True
    packages: tuple[str, ...] = ()
    compared: bool = True


ENGINES: dict[str, Engine] = {
    PLAIN: Engine("onnxruntime", "tools.bench.ort_engines:plain", False, ("onnxruntime",), False),
    EXPLAINED: Engine(
        "onnx-gradcam", "tools.bench.ort_engines:explained", False, ("onnxruntime", "numpy")
    ),
    "torch": Engine(
        "torch, forward only", "tools.bench.torch_engines:forward", True, ("torch",), False
    ),
    "pytorch-grad-cam": Engine(
        "pytorch-grad-cam", "tools.bench.torch_engines:grad_cam", True, ("grad-cam",)
    ),
    "torchcam": Engine("torchcam", "tools.bench.torch_engines:torchcam", True, ("torchcam",)),
    "captum": Engine("captum", "tools.bench.torch_engines:captum", True, ("captum",)),
    "openvino_xai": Engine(
        "openvino_xai",
        "tools.bench.openvino_engine:reciprocam",
        True,
        ("openvino", "openvino_xai"),
        False,
    ),
    "onnx-ad": Engine("onnx-ad", "tools.bench.onnx_ad_engine:grad_cam", True, ("onnx-ad",)),
}
"""Each in a process of its own; the first two are what the others are held against."""

PEERS = tuple(name for name, engine in ENGINES.items() if engine.peer)

ALL_OURS = Engine(
    "all of ours", "tools.bench.ort_engines:ours", False, ("onnxruntime", "numpy"), False
)
