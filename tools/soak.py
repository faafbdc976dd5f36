"""Explain many times and watch the memory of the process; prints a table for docs/servers.md.

    python tools/soak.py MODEL.onnx [MODEL.onnx ...] [--use explain --use predict] [--runs 10000]

Each use of each model runs in a process of its own, on one exported file and one `Explainer`. What
counts is the anonymous memory of the process (RssAnon, Linux), noted every 500 runs: that which it
allocated itself, without the mapped file. Growth is that from the first quarter of the notes behind
the warm-up to the last quarter, lowest against lowest, per run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnx_gradcam import Explainer, Preprocessing, UsageError, export_model, load  # noqa: E402
from onnx_gradcam.runtime.device_run import Device, DeviceRun  # noqa: E402
from onnx_gradcam.runtime.layers import layer_outputs  # noqa: E402
from tools.timing import session_options  # noqa: E402

SIZES = (224, 192, 208, 160, 176)
"""Extents for a model that takes images of any size."""

Use = Callable[[Explainer, int], object]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Soaked:
    """What a process held while it explained.

    Attributes:
        model: name of the file.
        use: what ran.
        runs: how often, the warm-up left out.
        kilobytes: anonymous memory at each note, from the end of the warm-up on.
    """

    model: str
    use: str
    runs: int
    kilobytes: tuple[int, ...]

    @property
    def growth(self) -> float:
        """Kilobytes per run: lowest of the last quarter of the notes over lowest of the first."""
        quarter = max(len(self.kilobytes) // 4, 1)
        between = self.runs * (1 - quarter / len(self.kilobytes))
        return (min(self.kilobytes[-quarter:]) - min(self.kilobytes[:quarter])) / between


def anonymous_kilobytes() -> int:
    """Return how much memory this process has allocated and touched."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


def soak(call: Callable[[int], object], runs: int, every: int, warm: int) -> tuple[int, ...]:
    """Run something many times and return the memory held, noted every so many runs."""
    for number in range(warm):
        call(number)
    notes = [anonymous_kilobytes()]
    for number in range(runs):
        call(number)
        if (number + 1) % every == 0:
            notes.append(anonymous_kilobytes())
    return tuple(notes)


def _images(explainer: Explainer, count: int, number: int, side: int = SIZES[0]) -> Array:
    shape = [count, *(size or side for size in explainer.image_input.shape[1:])]
    return np.random.default_rng(number % 16).standard_normal(shape).astype(np.float32)


def _explain(explainer: Explainer, number: int) -> None:
    explainer.explain(_images(explainer, 1, number), number % explainer.num_classes)


def _predict(explainer: Explainer, number: int) -> None:
    explainer.predict(_images(explainer, 1, number))


def _shapes(explainer: Explainer, number: int) -> None:
    side = SIZES[number % len(SIZES)]
    explainer.explain(_images(explainer, 1 + number % 4, number, side))


def _photo(explainer: Explainer, number: int) -> None:
    random = np.random.default_rng(number % 16)
    photo = random.integers(0, 256, (200 + 8 * (number % 7), 300, 3), np.uint8)
    explainer.explain_image(photo, [0, -1]).photo_cams()


def _method(name: str) -> Use:
    def use(explainer: Explainer, number: int) -> None:
        explainer.explain(_images(explainer, 1, number), None, name)

    return use


def _refused(explainer: Explainer, number: int) -> None:
    for x, wanted in (
        (np.full_like(_images(explainer, 1, number), np.nan), 0),
        (_images(explainer, 1, number)[:, :1], 0),
        (_images(explainer, 1, number), explainer.num_classes),
    ):
        with suppress(UsageError):
            explainer.explain(x, wanted)


def _bound(explainer: Explainer, number: int) -> None:
    """Explain as on a device, IOBinding and map included, with the CPU in its place."""
    if explainer._runner.device is None:
        stays = layer_outputs(range(len(explainer.metadata.layers)))
        run = DeviceRun(explainer._session, Device("cpu"), stays)
        explainer._runner = replace(explainer._runner, device=run)
    found = explainer.explain(_images(explainer, 1, number), None)
    if number % 2:
        assert found.activations is not None, "the file has them"


USES: Mapping[str, Use] = {
    "explain": _explain,
    "predict": _predict,
    "batches": _shapes,
    "photo": _photo,
    "layercam": _method("layercam"),
    "reciprocam": _method("reciprocam"),
    "smoothgradcam++": _method("smoothgradcam++"),
    "refused": _refused,
    "bound": _bound,
}
"""What a server may do, by name."""


def exported(model: Path, folder: Path) -> Path:
    """Return the exported file of a model, with a recipe for photos."""
    options = session_options(1)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    height, width = (
        d if isinstance(d, int) else SIZES[0] for d in session.get_inputs()[0].shape[2:]
    )
    path = folder / f"{model.stem}.cam.onnx"
    recipe = Preprocessing(resize=(height, width), scale=1 / 255)
    export_model(model, path, preprocess=recipe, gradient_builder="reverse", verify=False)
    return path


def watch(path: Path, use: str, runs: int, every: int, warm: int, threads: int) -> Soaked:
    """Return what this process holds while it uses an exported file."""
    explainer = load(path, device="cpu", session_options=session_options(threads))
    notes = soak(lambda number: USES[use](explainer, number), runs, every, warm)
    return Soaked(path.name.removesuffix(".cam.onnx"), use, runs, notes)


def table(results: Sequence[Soaked]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| model | use | runs | memory at the start, MB | at the end | least | most |"
        " growth, bytes a run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        numbers = r.kilobytes[0], r.kilobytes[-1], min(r.kilobytes), max(r.kilobytes)
        shown = " | ".join(f"{number / 1024:.1f}" for number in numbers)
        lines.append(f"| {r.model} | {r.use} | {r.runs} | {shown} | {1024 * r.growth:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Watch, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help="original, or exported (.cam.onnx)")
    parser.add_argument("--use", action="append", choices=USES, help="may be repeated; all")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--warm", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="watch one use here and print it")
    given = parser.parse_args()
    numbers = given.runs, given.every, given.warm, given.threads
    if given.json:
        print(json.dumps(asdict(watch(given.models[0], given.use[0], *numbers))))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for model in given.models:
            file = model if model.name.endswith(".cam.onnx") else exported(model, Path(folder))
            for use in given.use or USES:
                command = [sys.executable, __file__, str(file), "--use", use, "--json"]
                names = ("runs", "every", "warm", "threads")
                for name, value in zip(names, numbers, strict=True):
                    command += [f"--{name}", str(value)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout)
                results.append(Soaked(**found | {"kilobytes": tuple(found["kilobytes"])}))
                print(table(results[-1:]).splitlines()[-1], flush=True)
    print(f"\nonnxruntime {onnxruntime.__version__}, {given.threads} threads\n\n{table(results)}")


if __name__ == "__main__":
    main()
