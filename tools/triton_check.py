"""Have a real Triton load the folders that `write_triton` writes, and ask it; prints what it found.

    pip install --no-deps --target FOLDER nvidia-pytriton==0.7.0
    PYTHON tools/triton_check.py FOLDER

PYTHON is that of the environment of servers (requirements/serving.txt). That package holds Triton
itself (2.51), but of its backends Python's alone. So a stand-in named `onnxruntime` runs the file
with onnxruntime's Python package: Triton's own part is checked (reading config.pbtxt, shapes and
types of requests, optional inputs, reshapes, labels, batches), not its onnxruntime backend, whose
checks at load `tests/export/triton/backend_rules.py` says once more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import tritonclient.http as http_client  # noqa: E402

from onnx_gradcam import Explainer, load, write_triton  # noqa: E402
from tests.contract_models import LABELS, contract_model, images  # noqa: E402
from tests.serving.inside.serving import free_ports  # noqa: E402

FILES: dict[str, dict[str, Any]] = {
    "optional": {},
    "required": {"class_input": "required"},
    "fixed": {"class_input": "fixed:2"},
    "maps": {"class_input": "required", "score_axes": True},
    "one": {"image": "1, 3, 8, 10"},
    "gain": {"extra_input": True},
}
"""Name of a model -> how its file is made."""

BACKEND = """
import json, os, pathlib
import numpy as np, onnxruntime, triton_python_backend_utils as triton

class Capsule:  # NumPy 2 is not what the stub was built with; DLPack does not mind
    def __init__(self, tensor): self.tensor = tensor
    def __dlpack__(self, **_): return self.tensor.to_dlpack()
    def __dlpack_device__(self): return (1, 0)

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config): return config

    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        folder = pathlib.Path(args["model_repository"], args["model_version"])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self.names = [output["name"] for output in self.config["output"]]

    def execute(self, requests):
        with open(os.environ["BATCHES"], "a") as log: log.write(f"{len(requests)}\\n")
        feeds = [{t.name(): np.from_dlpack(Capsule(t)).copy() for t in r.inputs()}
                 for r in requests]
        if self.config["max_batch_size"]:
            whole = {n: np.concatenate([f[n] for f in feeds]) for n in feeds[0]}
            ends = np.cumsum([len(f["image"]) for f in feeds])[:-1]
            parts = [np.split(v, ends) for v in self.session.run(self.names, whole)]
            found = [[part[i] for part in parts] for i in range(len(feeds))]
        else:
            found = [self.session.run(self.names, feed) for feed in feeds]
        return [triton.InferenceResponse([
            triton.Tensor.from_dlpack(n, np.ascontiguousarray(v))
            for n, v in zip(self.names, values)]) for values in found]
"""


@contextmanager
def triton(package: Path, models: Path, work: Path) -> Iterator[str]:
    """Run Triton on a repository; gives its address.

    Raises:
        SystemExit: it does not come up.
    """
    own = package / "pytriton" / "tritonserver"
    python, stand_in = work / "backends" / "python", work / "backends" / "onnxruntime"
    shutil.copytree(own / "backends" / "python", python)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.copy(own / "python_backend_stubs" / version / "triton_python_backend_stub", python)
    stand_in.mkdir()
    (stand_in / "model.py").write_text(BACKEND, encoding="utf-8")
    for program in (own / "bin" / "tritonserver", python / "triton_python_backend_stub"):
        program.chmod(0o755)
    (port,) = free_ports(1)
    log = work / "log"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(package / "nvidia_pytriton.libs"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
        "BATCHES": str(work / "batches"),
    }
    options = {
        "model-repository": models, "backend-directory": work / "backends",
        "http-address": "127.0.0.1", "http-port": port, "allow-grpc": "false",
        "allow-metrics": "false",
    }  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            [own / "bin" / "tritonserver", "--disable-auto-complete-config",
             *(f"--{name}={value}" for name, value in options.items())],
            stdout=out, stderr=out, env=environment,
        )  # fmt: skip
    try:
        client = http_client.InferenceServerClient(f"127.0.0.1:{port}")
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None and not _ready(client):
            time.sleep(0.5)
        if not _ready(client):
            failed = [line for line in log.read_text().splitlines() if line.startswith("E")]
            raise SystemExit("Triton does not come up:\n" + "\n".join(failed[-8:]))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _ready(client: Any) -> bool:
    try:
        return bool(client.is_server_ready())
    except OSError:
        return False


def ask(client: Any, model: str, x: Any, classes: Any = None, **more: Any) -> Any:
    """Send one request."""
    given = [http_client.InferInput("image", x.shape, "FP32")]
    given[0].set_data_from_numpy(x)
    if classes is not None:
        values = np.asarray(classes, np.int64)
        given.append(http_client.InferInput("cam_class", values.shape, "INT64"))
        given[1].set_data_from_numpy(values)
    return client.infer(model, given, **more)


def right(answer: Any, explainer: Explainer, x: Any, classes: Any) -> bool:
    """Return whether an answer is that of the explainer."""
    expected: Any = explainer.explain(x, classes)
    return bool(
        np.array_equal(answer.as_numpy("cam_classes").ravel(), expected.classes)
        and np.allclose(answer.as_numpy("cam_gradients"), expected.gradients, rtol=1e-5)
        and np.allclose(answer.as_numpy("logits"), expected.scores, rtol=1e-5)
    )


def refused(send: Callable[[], Any]) -> str:
    """Return the error of a request.

    Raises:
        SystemExit: there is none.
    """
    try:
        send()
    except http_client.InferenceServerException as error:
        return f"{error.status()}: {error.message()}"
    raise SystemExit("a bad request was answered")


def check(address: str, work: Path) -> Iterator[tuple[str, bool]]:
    """Yield what was asked and whether the answer was right."""
    explainer = load(work / "required.onnx", device="cpu")
    client, x = http_client.InferenceServerClient(address), images(3)
    states = {m["name"]: m.get("state") for m in client.get_model_repository_index()}
    yield f"loaded: {', '.join(states)}", set(states.values()) == {"READY"} and len(states) == 6
    yield "a class left out", right(ask(client, "optional", x), explainer, x, None)
    yield "a class given", right(ask(client, "optional", x, [4, 0, -2]), explainer, x, [4, 0, -2])
    yield "one class for all", right(ask(client, "optional", x, [1]), explainer, x, [1, 1, 1])
    wanted = [http_client.InferRequestedOutput("logits", class_count=1)]
    named = ask(client, "required", x, [[0]] * 3, outputs=wanted).as_numpy("logits").ravel()
    best = [LABELS[k] for k in explainer.predict(x).argmax(axis=1)]
    yield "labels", [text.decode().split(":", 2)[2] for text in named] == best
    results: list[bool] = []

    def clients(start: int) -> None:
        own = http_client.InferenceServerClient(address)
        for number in range(start, 400, 8):
            rows = images(1 + number % 3, seed=number)
            classes = np.random.default_rng(number).integers(-5, 5, len(rows))
            answer = ask(own, "required", rows, classes[:, None])
            results.append(right(answer, explainer, rows, classes))

    threads = [threading.Thread(target=clients, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = [int(line) for line in (work / "batches").read_text().split()]
    most = f"{sum(n > 1 for n in together)} times several at once, at most {max(together)}"
    yield f"400 requests of 8 clients, {most}", all(results) and len(results) == 400
    yield refused(lambda: ask(client, "required", x)), True
    yield refused(lambda: ask(client, "required", x[:, :, :7], [[0]] * 3)), True
    yield refused(lambda: ask(client, "required", images(9), [[0]] * 9)), True
    yield refused(lambda: ask(client, "fixed", x, [[0]] * 3)), True


def main() -> None:
    """Check and print."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("package", type=Path)
    package = parser.parse_args().package.resolve()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, made in FILES.items():
            path = work / f"{name}.onnx"
            path.write_bytes(contract_model(labels=LABELS, **made))
            write_triton(path, work / "models")
        with triton(package, work / "models", work) as address:
            found = list(check(address, work))
    for said, passed in found:
        print("right" if passed else "WRONG", said)
    sys.exit(not all(passed for _, passed in found))


if __name__ == "__main__":
    main()
