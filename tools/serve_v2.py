"""Measure the V2 server of examples/serve_v2; prints the table of docs/serving.md.

    PYTHON tools/serve_v2.py MODEL.cam.onnx PHOTO [--seconds 1.5] [--rounds 3]

PYTHON is that of the environment of servers (requirements/serving.txt). Server and clients share
the machine: what the clients compute is missing in the server. Each row: so many clients, each of
which asks again as soon as it has its answer, over so many seconds after a warm-up; above them the
`Explainer` in this process, with as many threads. All rows are measured in turn, for several
rounds: what else the machine does only lowers rates, so figures are those of the best round, the
median rate beside it. Memory is what the server allocated (RssAnon).
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxruntime  # noqa: E402
import tritonclient.grpc as grpc_client  # noqa: E402
import tritonclient.http as http_client  # noqa: E402

from onnx_gradcam import load  # noqa: E402
from tests.serving.inside.serving import NAME, Server, make_folder, serving  # noqa: E402

Ask = Callable[[], None]
SMALL = ("classes", "peaks", "boxes")
"""Outputs without the heat map."""


def over_grpc(server: Server, inputs: Mapping[str, Any], outputs: tuple[str, ...]) -> Ask:
    """Return a function that asks once by gRPC."""
    client = grpc_client.InferenceServerClient(server.grpc)
    given = []
    for name, (array, datatype) in inputs.items():
        entry = grpc_client.InferInput(name, array.shape, datatype)
        entry.set_data_from_numpy(array)
        given.append(entry)
    asked = [grpc_client.InferRequestedOutput(name) for name in outputs]
    return lambda: client.infer(NAME, given, outputs=asked).as_numpy(outputs[0]).sum()


def over_http(server: Server, inputs: Mapping[str, Any], outputs: tuple[str, ...]) -> Ask:
    """Return a function that asks once by HTTP, with JSON."""
    client = http_client.InferenceServerClient(server.http)
    given = []
    for name, (array, datatype) in inputs.items():
        values = array
        if datatype == "BYTES":
            values = np.array([base64.b64encode(item) for item in array], object)
        entry = http_client.InferInput(name, values.shape, datatype)
        entry.set_data_from_numpy(values, binary_data=False)
        given.append(entry)
    asked = [http_client.InferRequestedOutput(name, binary_data=False) for name in outputs]
    return lambda: client.infer(NAME, given, outputs=asked).as_numpy(outputs[0]).sum()


def measured(make: Callable[[], Ask], clients: int, seconds: float) -> dict[str, float]:
    """Return rate and times of so many clients."""
    took: list[list[float]] = [[] for _ in range(clients)]
    ready, begin = threading.Barrier(clients + 1), threading.Event()

    def client(own: list[float]) -> None:
        ask = make()
        ask()
        ready.wait()
        begin.wait()
        while time.perf_counter() < end[0]:
            start = time.perf_counter()
            ask()
            own.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client, args=(own,)) for own in took]
    end = [0.0]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter()
    end[0] = start + seconds
    begin.set()
    for thread in threads:
        thread.join()
    every = [duration for own in took for duration in own]
    return {
        "rate": len(every) / (time.perf_counter() - start),
        "median": statistics.median(every),
        "late": float(np.percentile(every, 95)),
    }


def in_process(path: Path, photo: bytes) -> Callable[[], Ask]:
    """Return what makes a function that explains the photo here."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    explainer = load(path, device="cpu", session_options=options)

    def ask() -> None:
        explainer.explain_image(photo)

    return lambda: ask


KINDS: Mapping[str, tuple[Callable[..., Ask], bool, tuple[str, ...]]] = {
    "gRPC, photo, peak and box": (over_grpc, True, SMALL),
    "gRPC, photo, heat map": (over_grpc, True, ("cams",)),
    "gRPC, tensor, heat map": (over_grpc, False, ("cams",)),
    "HTTP, photo, peak and box": (over_http, True, SMALL),
    "HTTP, photo, heat map": (over_http, True, ("cams",)),
    "HTTP, tensor, heat map": (over_http, False, ("cams",)),
}
"""What is asked -> how, whether with a photo, for which outputs."""


def settings(server: Server, path: Path, photo: bytes) -> dict[str, tuple[Callable[[], Ask], int]]:
    """Return what each row measures: a function that makes clients, and how many of them."""
    made = in_process(path, photo)
    found = {f"the Explainer, no server: photo, {n} at a time": (made, n) for n in (1, 2)}
    image = load(path, device="cpu").image_input
    shape = [size or 224 for size in (1, *image.shape[1:])]
    pixels = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    photos = {"photo": (np.array([photo], object), "BYTES")}
    tensors = {image.name: (pixels, "FP32")}
    for clients in (1, 2, 8):
        for kind, (over, with_photo, outputs) in KINDS.items():
            if clients == 2 and not kind.startswith("gRPC, photo"):
                continue
            make = partial(over, server, photos if with_photo else tensors, outputs)
            found[f"{kind}, {clients} client{'s' * (clients > 1)}"] = (make, clients)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(arguments.model, make_folder(Path(folder) / "v2"))
        with serving(Path(folder) / "v2") as server:
            chosen = settings(server, arguments.model, arguments.photo.read_bytes())
            for _ in range(arguments.rounds):
                for name, (make, clients) in chosen.items():
                    rows[name].append(measured(make, clients, arguments.seconds))
            memory = server.kilobytes() / 1024
    print(f"{os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}; {memory:.0f} MB")
    print(
        "| what is asked | answers a second: best round (median) | time of one, ms: median, 95 % |"
    )
    print("|---|---|---|")
    for name, rounds in rows.items():
        best = max(rounds, key=lambda found: found["rate"])
        middle = statistics.median(found["rate"] for found in rounds)
        times = f"{best['median'] * 1e3:.1f}, {best['late'] * 1e3:.1f}"
        print(f"| {name} | {best['rate']:.0f} ({middle:.0f}) | {times} |")


if __name__ == "__main__":
    main()
