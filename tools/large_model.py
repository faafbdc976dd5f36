"""Measure time and memory of exporting and explaining a model over 2 GB with external data.

    python tools/large_model.py [--gigabytes 2.5] [--folder DIR]

Writes a synthetic convolutional classifier (random weights, one block many times) to a temporary
folder, exports it with and without verification, and explains an image, each in a process of its
own; prints a Markdown table, and deletes the folder. It needs twice the model's size on disk.

Peak memory is that of the whole process (VmHWM: weights mapped from the file count) and that
which it allocated itself (RssAnon, sampled every 20 ms).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH = 2048
BLOCK = WIDTH * WIDTH * 9
"""Weights of a block, a 3x3 convolution: 151 MB in float32."""

GIGABYTE = 1e9


def write_model(path: Path, gigabytes: float) -> float:
    """Write the model and return its size in bytes."""
    blocks = round(gigabytes * GIGABYTE / (4 * BLOCK))
    random = np.random.default_rng(0)
    scale = np.float32(np.sqrt(2 / (9 * WIDTH)))
    weights = (random.standard_normal(BLOCK, dtype=np.float32) * scale).tobytes()
    nodes = [helper.make_node("Conv", ["image", "stem"], ["x0"])]
    tensors = [_tensor("stem", (WIDTH, 3, 1, 1), random), _tensor("head", (10, WIDTH), random)]
    with path.with_suffix(".data").open("wb") as file:
        for index in range(blocks):
            name = f"w{index}"
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=(WIDTH, WIDTH, 3, 3))
            tensor.data_location = TensorProto.EXTERNAL
            places = {"location": path.stem + ".data", "offset": file.tell(), "length": 4 * BLOCK}
            for key, value in places.items():
                tensor.external_data.add(key=key, value=str(value))
            file.write(weights)
            tensors.append(tensor)
            nodes += [
                helper.make_node("Conv", [f"x{index}", name], [f"c{index}"], pads=[1] * 4),
                helper.make_node("Relu", [f"c{index}"], [f"x{index + 1}"]),
            ]
        size = file.tell()
    nodes += [
        helper.make_node("GlobalAveragePool", [f"x{blocks}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return float(size)


def _tensor(name: str, shape: tuple[int, ...], random: np.random.Generator) -> TensorProto:
    values = random.standard_normal(shape, dtype=np.float32) / np.sqrt(np.prod(shape[1:]))
    return onnx.numpy_helper.from_array(values.astype(np.float32), name)


class Memory:
    """Samples the memory of this process in a thread."""

    def __init__(self) -> None:
        """Start sampling."""
        self.allocated = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            self.allocated = max(self.allocated, _status("RssAnon"))

    def peak(self) -> tuple[int, int]:
        """Stop, and return the peaks in bytes: of the process, and what it allocated."""
        self._done.set()
        self._thread.join()
        return _status("VmHWM"), max(self.allocated, _status("RssAnon"))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise KeyError(field)


def measure(step: str, folder: Path) -> str:
    """Run a step in this process and return what it took, as cells of a table."""
    import onnx_gradcam

    memory, start = Memory(), time.perf_counter()
    exported = folder / "large.cam.onnx"
    if step == "explain":
        explainer = onnx_gradcam.load(exported, device="cpu")
        explainer.explain(np.random.default_rng(1).standard_normal((1, 3, 4, 4)))
    else:
        onnx_gradcam.export_model(
            folder / "large.onnx",
            exported,
            gradient_builder="reverse",
            verify=step == "export",
            force=True,
        )
    seconds = time.perf_counter() - start
    whole, allocated = memory.peak()
    return f"{seconds:.0f} s | {whole / GIGABYTE:.2f} GB | {allocated / GIGABYTE:.2f} GB"


def main() -> None:
    """Write the model, measure each step, delete everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(measure(arguments.step, arguments.folder))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        size = write_model(folder / "large.onnx", arguments.gigabytes)
        print(f"model of {size / GIGABYTE:.2f} GB\n")
        print("| step | time | peak memory of the process | of it allocated |\n|---|---|---|---|")
        for step in ("export without verification", "export", "explain"):
            command = [sys.executable, __file__, "--step", step, "--folder", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            print(f"| {step} | {done.stdout.strip()} |", flush=True)


if __name__ == "__main__":
    main()
