"""The example server with a small model, on free ports of 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from onnx_gradcam.preprocessing import Preprocessing
from tests.contract_models import LABELS, contract_model

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "serve_v2"
NAME = "classifier"
RECIPE = Preprocessing(resize=12, crop=(8, 10), scale=1 / 255, mean=(0.5,), std=(0.25,))


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    log: Path

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def kilobytes(self) -> int:
        """Return the anonymous memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("RssAnon:")[1].split()[0])

    def listens_on(self) -> set[str]:
        """Return the addresses of the listening sockets of the process, as the kernel has them."""
        own = set()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            target = str(link.readlink()) if link.is_symlink() else ""
            if target.startswith("socket:["):
                own.add(target[8:-1])
        found = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in own:
                    found.add(fields[1].split(":")[0])
        return found


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def make_folder(folder: Path, **extra: Any) -> Path:
    """Copy the example and put a model into it; returns the file."""
    shutil.copytree(EXAMPLE, folder)
    settings = json.loads((folder / "settings.json").read_text())
    http_port, grpc_port = free_ports(2)
    settings |= {"http_port": http_port, "grpc_port": grpc_port}
    (folder / "settings.json").write_text(json.dumps(settings))
    path = folder / NAME / "model-settings.json"
    model = json.loads(path.read_text())
    model["parameters"]["extra"] |= extra
    path.write_text(json.dumps(model))
    return write_model(folder / NAME)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Run the server of a folder; it is gone afterwards."""
    settings = json.loads((folder / "settings.json").read_text())
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("mlserver")), "start", str(folder)],
            cwd=folder, stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        server = Server(process, settings["http_port"], settings["grpc_port"], log)
        _await(server)
        yield server
        assert process.poll() is None, "the server is gone: " + log.read_text()[-3000:]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


def _await(server: Server) -> None:
    import tritonclient.grpc

    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if client.is_model_ready(NAME):
                client.close()
                return
        except tritonclient.grpc.InferenceServerException:
            pass
        time.sleep(0.2)
    raise AssertionError("the server does not come up: " + server.log.read_text()[-3000:])


def write_model(folder: Path) -> Path:
    """Write a small exported file that takes photos."""
    path = folder / "model.cam.onnx"
    path.write_bytes(contract_model(labels=LABELS, preprocessing=RECIPE.to_dict()))
    return path


def encoded(number: int) -> bytes:
    """Return a photo as PNG, another for each number."""
    random = np.random.default_rng(number)
    pixels = random.integers(0, 256, (14 + number % 9, 30 - number % 7, 3), np.uint8)
    done, data = cv2.imencode(".png", pixels)
    assert done
    return bytes(data)


def images(count: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=(count, 3, 8, 10)).astype(np.float32)
