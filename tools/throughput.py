"""Measure images per second of a folder against bare inference, and write docs/throughput.md.

    python tools/throughput.py models/efficientnet_lite0.onnx:efficientnet-lite [MODEL:PRESET ...]

All contestants see the same photos with the same number of threads, in turn, many times; figures
are from this one run. Beside docs/throughput.md goes docs/throughput.json with all of them. Idle
threads of one session do not spin while another one runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnx_gradcam  # noqa: E402
from onnx_gradcam.files import write_whole  # noqa: E402
from onnx_gradcam.photo_files import explain_photos  # noqa: E402
from onnx_gradcam.pipeline import divide, overlapped  # noqa: E402
from onnx_gradcam.render import encode_jpeg, encode_png, explanation_panel  # noqa: E402
from onnx_gradcam.runtime.photo import read_photo  # noqa: E402
from onnx_gradcam.runtime.prepared import prepare_photo  # noqa: E402
from tools.throughput_page import SIZE_DEPENDENT, page  # noqa: E402
from tools.timing import session_options  # noqa: E402

SMALL, LARGE = (375, 500), (3000, 4000)
"""Height and width of the photos: of ImageNet, and of a camera with 12 megapixels."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return those of some numbers."""
        return cls(*(float(np.percentile(values, p)) for p in (50, 25, 75)))


@dataclass(frozen=True)
class Result:
    """What was measured with one model.

    Attributes:
        model: its file without the ending.
        wall: contestant -> milliseconds per image.
        ratio: contestant -> images per second over those of bare inference, repetition by
            repetition.
        fastest: contestant -> likewise of the fastest repetition of each: what a busy machine
            disturbs least.
        cpu: contestant -> milliseconds of all threads per image.
        steps: step -> milliseconds of one thread, for a small photo.
    """

    model: str
    wall: Mapping[str, Spread]
    ratio: Mapping[str, Spread]
    fastest: Mapping[str, float]
    cpu: Mapping[str, Spread]
    steps: Mapping[str, float]


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Write JPEG files of this size, cut out of the photos of models/, each another one."""
    originals = [cv2.imread(str(p)) for p in sorted((ROOT / "models" / "photos").glob("*.jpg"))]
    random = np.random.default_rng(0)
    photos = []
    for number in range(count):
        whole: Any = originals[number % len(originals)]
        side = int(whole.shape[0] * random.uniform(0.75, 1))
        top, left = (int(random.integers(0, length - side + 1)) for length in whole.shape[:2])
        cut = whole[top : top + side, left : left + side]
        picture = cv2.resize(cut, size[::-1], interpolation=cv2.INTER_CUBIC)
        # enlarged photos are smooth, and smooth ones are decoded faster than those of a camera
        noisy = picture + random.normal(0, 4, picture.shape)
        photos.append(folder / f"{number:04d}.jpg")
        cv2.imwrite(str(photos[-1]), noisy.clip(0, 255).astype(np.uint8))
    return photos


class Contest:
    """The contestants for one model; each is a function that deals with all photos once."""

    def __init__(self, model: Path, preset: str, photos: list[Path], threads: int) -> None:
        """Export the model and open its sessions.

        Args:
            model: the original file.
            preset: how photos are prepared for it.
            photos: the files.
            threads: of each contestant.
        """
        self.photos, self.threads = photos, threads
        self.folder = photos[0].parent / "maps"
        exported = photos[0].parent / "model.cam.onnx"
        onnx_gradcam.export_model(model, exported, preprocess=preset, verify=False, force=True)
        self.division = divide(len(photos), threads=threads)
        alone = self.division.intra_op_threads or 1
        self.shared, self.own = (
            onnxruntime.InferenceSession(
                model, session_options(n), providers=["CPUExecutionProvider"]
            )
            for n in (threads, alone)
        )
        self.exported = onnxruntime.InferenceSession(
            exported, session_options(alone), providers=["CPUExecutionProvider"]
        )
        self.one_by_one, self.explainer = (
            onnx_gradcam.load(exported, device="cpu", session_options=session_options(n))
            for n in (threads, alone)
        )
        self.tensors = [self.prepare(photo) for photo in photos]

    def prepare(self, photo: Path) -> Any:
        """Return a photo as the model takes it."""
        explainer = self.explainer
        return prepare_photo(photo, explainer.preprocessing, explainer.image_input).image

    def run(self, session: Any, tensor: Any) -> object:
        """Run the original model, all outputs."""
        return session.run(None, {self.explainer.image_input.name: tensor})

    def contestants(self) -> dict[str, Callable[[], object]]:
        """Return them by name; `throughput_page` says what each is."""
        workers = self.division.workers
        return {
            "bare": lambda: [self.run(self.shared, x) for x in self.tensors],
            "bare side by side": lambda: list(
                overlapped(lambda x: self.run(self.own, x), self.tensors, workers)
            ),
            "photos": lambda: [self.run(self.shared, self.prepare(p)) for p in self.photos],
            "photos side by side": lambda: list(
                overlapped(lambda p: self.run(self.own, self.prepare(p)), self.photos, workers)
            ),
            "maps one by one": lambda: self.explain(self.one_by_one, None, 1),
            "maps": lambda: self.explain(self.explainer, None, workers),
            "jpg": lambda: self.explain(self.explainer, "jpg", workers),
            "png": lambda: self.explain(self.explainer, "png", workers),
        }

    def explain(self, explainer: Any, pictures: str | None, workers: int) -> None:
        """Do what `onnx-gradcam explain` does."""
        results = explain_photos(
            explainer, self.photos, self.folder, pictures=pictures, workers=workers, force=True
        )
        with closing(results):
            for _ in results:
                pass

    def steps(self, photo: Path, repetitions: int) -> dict[str, float]:
        """Return how long one thread takes for each step of a photo, in milliseconds of its CPU."""
        explainer = self.explainer
        pixels = read_photo(photo)
        tensor = self.prepare(photo)
        explanation = explainer.explain_image(photo)
        picture = explanation_panel(explanation)
        feeds = {explainer.image_input.name: tensor}
        data = explanation.raw_maps[0].tobytes()
        path = self.folder / "map.npy"
        self.folder.mkdir(exist_ok=True)
        took = _cpu_milliseconds(
            {
                "decode": lambda: read_photo(photo),
                "preprocess": lambda: prepare_photo(
                    pixels, explainer.preprocessing, explainer.image_input
                ),
                "run": lambda: self.own.run(None, feeds),
                "exported": lambda: self.exported.run(None, feeds),
                "explain": lambda: explainer.explain(tensor),
                "write": lambda: write_whole(path, data, force=True),
                "draw": lambda: explanation_panel(explanation),
                "encode JPEG": lambda: encode_jpeg(picture),
                "encode PNG": lambda: encode_png(picture),
            },
            repetitions,
        )
        took["gradient"] = took["exported"] - took["run"]
        took["heat map"] = took.pop("explain") - took.pop("exported")
        return took


def _cpu_milliseconds(
    steps: Mapping[str, Callable[[], object]], repetitions: int
) -> dict[str, float]:
    """Return medians, the steps taken in turn. The CPU time of a thread knows no other process."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repetitions + 2):
        for name, step in steps.items():
            start = time.thread_time()
            step()
            if repetition >= 2:
                taken[name].append(1e3 * (time.thread_time() - start))
    return {name: float(np.median(values)) for name, values in taken.items()}


def measure(contest: Contest, name: str, repetitions: int) -> Result:
    """Let the contestants take turns."""
    contestants = contest.contestants()
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    scale = 1e3 / len(contest.photos)
    for repetition in range(repetitions + 1):
        for who, run in contestants.items():
            started = time.perf_counter(), time.process_time()
            run()
            if repetition:  # the first warms up
                wall[who].append(scale * (time.perf_counter() - started[0]))
                cpu[who].append(scale * (time.process_time() - started[1]))
    ratio = {
        who: [b / own for b, own in zip(wall["bare"], times, strict=True)]
        for who, times in wall.items()
    }
    walls, ratios, cpus = (
        {who: Spread.of(values) for who, values in table.items()} for table in (wall, ratio, cpu)
    )
    steps = contest.steps(contest.photos[0], 4 * repetitions)
    fastest = {who: min(wall["bare"]) / min(times) for who, times in wall.items()}
    return Result(name, walls, ratios, fastest, cpus, steps)


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL:PRESET")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=24, help="photos per repetition")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "throughput.md")
    arguments = parser.parse_args()
    results: list[Result] = []
    large: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(Path(folder), arguments.images, SMALL)
        (Path(folder) / "large").mkdir()
        (camera,) = make_photos(Path(folder) / "large", 1, LARGE)
        for given in arguments.models:
            path, _, preset = given.rpartition(":")
            contest = Contest(Path(path), preset, photos, arguments.threads)
            results.append(measure(contest, Path(path).stem, arguments.repetitions))
            for who, spread in results[-1].ratio.items():
                fastest = results[-1].fastest[who]
                print(f"{results[-1].model:20} {who:22} {spread.median:.3f} {fastest:.3f}")
            if not large:
                steps = contest.steps(camera, 5)
                large = {step: steps[step] for step in SIZE_DEPENDENT}
    facts = {
        "onnxruntime": onnxruntime.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "threads": arguments.threads,
        "images": arguments.images,
        "repetitions": arguments.repetitions,
        "models": [asdict(result) for result in results],
        "steps_of_a_large_photo": large,
    }
    arguments.output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    arguments.output.write_text(page(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
