"""Measures what the attention outputs cost: times of exported files beside the plain model.

Environment: torch, timm and torchvision (for the networks, with random weights), and onnxruntime::

    PYTHONPATH=. python tools/attention_cost.py [NETWORK ...] --threads 2

Prints a table in Markdown: milliseconds per image, medians of interleaved runs, and the size of the
file. It takes some minutes; nothing is verified on the way.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch

from onnx_gradcam import export_model
from tools.timing import interleaved, session_options
from tools.torch_models import export_torch, randomised

NETWORKS = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")
FILES: dict[str, dict[str, object] | None] = {
    "model": None,
    "export": {},
    "rollout": {"attention": "rollout"},
    "LeGrad": {"attention": "legrad"},
    "LeGrad, last 2 blocks": {"attention": "legrad", "attention_blocks": 2},
}
"""Column -> options of the export; None for the model itself."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Cost of the attention outputs.")
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    print(f"| network | {' | '.join(FILES)} |\n|---|{'---|' * len(FILES)}")
    for network in options.networks:
        times = measure(network, options.threads, options.repetitions)
        cells = (f"{ms:.0f}" for ms in times.values())
        print(f"| {network} | {' | '.join(cells)} |", flush=True)


def measure(network: str, threads: int, repetitions: int) -> dict[str, float]:
    """Return milliseconds for one image, by column."""
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        export_torch(randomised(network), torch.randn(2, 3, 224, 224), source)
        runs = {}
        for index, (column, options) in enumerate(FILES.items()):
            path = source
            if options is not None:
                path = Path(folder) / f"{index}.onnx"
                export_model(source, path, gradient_builder="reverse", verify=False, **options)  # type: ignore[arg-type]
            session = onnxruntime.InferenceSession(
                str(path), session_options(threads), providers=["CPUExecutionProvider"]
            )
            name = session.get_inputs()[0].name
            runs[column] = lambda session=session, name=name: session.run(None, {name: image})
        found = interleaved(runs, repetitions)
    return {column: timing.median * 1e3 for column, timing in found.items()}


if __name__ == "__main__":
    main()
