"""The memory of an export: weights are not read, so it does not grow with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

WIDTH, BLOCKS = 640, 4
MODEL_BYTES = 4 * 9 * WIDTH * WIDTH * BLOCKS
"""59 MB."""

MEASURE = """
import json, sys
from pathlib import Path
import onnx_gradcam
def peak():
    (line,) = (l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l)
    return 1024 * int(line.split()[1])
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
peaks = []
for name in ("small.onnx", "large.onnx"):
    report = onnx_gradcam.export_model(
        source / name, folder / name, gradient_builder="reverse", layer=sys.argv[3], verify=False
    )
    peaks.append(peak())
print(json.dumps(peaks))
"""


def write_network(path: Path, width: int) -> None:
    random = np.random.default_rng(0)
    tensors = [numpy_helper.from_array(random.normal(size=(width, 3, 1, 1)).astype("f"), "stem")]
    nodes = [helper.make_node("Conv", ["image", "stem"], ["x0"])]
    for index in range(BLOCKS):
        weights = random.standard_normal((width, width, 3, 3), dtype=np.float32)
        tensors.append(numpy_helper.from_array(weights, f"w{index}"))
        nodes += [
            helper.make_node("Conv", [f"x{index}", f"w{index}"], [f"c{index}"], pads=[1] * 4),
            helper.make_node("Relu", [f"c{index}"], [f"x{index + 1}"]),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", [f"x{BLOCKS}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", width])],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    write_network(folder / "small.onnx", 8)
    write_network(folder / "large.onnx", WIDTH)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("layer", ["auto", "x1"])
def test_an_export_takes_less_memory_than_its_weights(
    layer: str, networks: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", MEASURE, str(networks), str(tmp_path), layer]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    small, large = json.loads(done.stdout)
    assert (networks / "large.onnx").stat().st_size > MODEL_BYTES
    assert (tmp_path / "large.onnx").stat().st_size > MODEL_BYTES
    assert large - small < MODEL_BYTES / 2, "a single copy of the weights would be twice as much"
