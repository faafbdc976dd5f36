"""Show that exporting changes no output, and write docs/scores.md.

Environment: that of `gradient_agreement`. For every architecture, at the recommended layer and at
the first feature map, with both builders: the original outputs of the exported file against the
original file, with graph optimisations off and at onnxruntime's default level.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnx_gradcam.export.inspection import inspect_model  # noqa: E402
from onnx_gradcam.export.pipeline import export_model  # noqa: E402
from tools.gradient_agreement import ARCHITECTURES, BUILDERS, Array  # noqa: E402
from tools.light_models import light_model, light_model_names  # noqa: E402
from tools.torch_models import export_torch, randomised  # noqa: E402

LEVELS = {
    "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "default": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

HEADER = """# Exporting changes no output

Written by `tools/score_agreement.py`, onnxruntime {version}, CPU provider. The original outputs of
the exported file against the original file: *identical* to the last bit, or the largest
difference relative to the largest value. With optimisations off every one has to be identical.

| model | layer | builder | optimisations off | default level |
|---|---|---|---|---|
"""


def models(folder: Path, only: list[str] | None) -> Iterator[tuple[str, Path]]:
    """Yield (name, file) of the torchvision architectures and the light models."""
    for name, size in ARCHITECTURES.items():
        if not only or name in only:
            path = folder / "model.onnx"
            export_torch(randomised(name), torch.zeros(2, 3, size, size), path)
            yield name, path
    for name in light_model_names():
        if not only or name in only:
            onnx.save(light_model(name), folder / "model.onnx")
            yield name, folder / "model.onnx"


def outputs(path: Path, level: str) -> dict[str, Array]:
    """Return all outputs for one seeded input; the same for the same input shapes."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {}
    for node in session.get_inputs():
        shape = [d if isinstance(d, int) else 2 for d in node.shape]
        feeds[node.name] = rng.standard_normal(shape).astype(np.float32)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def difference(found: dict[str, Array], expected: dict[str, Array]) -> str:
    """Return ``identical`` or the largest relative difference of the original outputs."""
    if all(np.array_equal(found[name], value) for name, value in expected.items()):
        return "identical"
    errors = [np.abs(found[n] - v).max() / np.abs(v).max() for n, v in expected.items()]
    return f"{max(errors):.1e}"


def main() -> int:
    """Print and write the table; exit with 1 when an output changes with optimisations off."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", help="architectures to run")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "scores.md")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = []
    changed = False
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        exported = folder / "exported.onnx"
        for name, path in models(folder, arguments.only):
            expected = {level: outputs(path, level) for level in LEVELS}
            for layer in (inspect_model(path).recommended, 0):
                for builder in BUILDERS:
                    report = export_model(
                        path,
                        exported,
                        layer=layer or 0,
                        gradient_builder=builder,
                        force=True,
                        verify=False,
                    )
                    off, default = (
                        difference(outputs(exported, level), expected[level]) for level in LEVELS
                    )
                    changed |= off != "identical"
                    rows.append(f"| {name} | `{report.target}` | {builder} | {off} | {default} |")
                    print(rows[-1], flush=True)
    if not arguments.only:
        header = HEADER.format(version=onnxruntime.__version__)
        arguments.output.write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
