"""What is installed, which distributions are in conflict, and the commands that mend it.

Several distributions own one import package: onnxruntime and onnxruntime-gpu are both imported as
``onnxruntime``, opencv-python and opencv-python-headless as ``cv2``. pip installs them over each
other without a word, and uninstalling one guts the other. Flows in: the folders Python imports
from. Flows out: a `Diagnosis`.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING, Any

from onnx_gradcam import __version__
from onnx_gradcam.errors import OnnxGradCamError

if TYPE_CHECKING:
    from onnx_gradcam.export.builders.environment import BuilderStatus

OWNERS = {
    "onnxruntime": (
        "onnxruntime-gpu",
        "onnxruntime-directml",
        "onnxruntime-openvino",
        "onnxruntime-qnn",
        "onnxruntime",
    ),
    "cv2": (
        "opencv-python-headless",
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
        "opencv-python",
    ),
}
"""Import package -> the distributions that install it; of several, the first is the one to keep."""

TRAINING = ("onnxruntime-training", "onnxruntime-training-cpu")
"""These own ``onnxruntime`` too, but belong in a folder of their own, never beside it."""

REQUIREMENTS = {"onnxruntime": "onnxruntime", "cv2": "opencv-python-headless"}
"""Import package -> what to install when nothing provides it."""

OLDEST_SAFE_ONNX = (1, 21)


@dataclass(frozen=True)
class Package:
    """One installed distribution."""

    name: str
    version: str

    def __str__(self) -> str:
        """Return name and version, as for people."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Problem:
    """What is wrong, and the commands that mend it, in order."""

    what: str
    fix: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """The state of an environment.

    Attributes:
        python: version of the running Python.
        executable: path of the running Python.
        onnx_gradcam: version of this package.
        packages: installed distributions that matter here, by name.
        providers: execution providers that the installed onnxruntime was built with.
        builder: state of the onnxruntime-training builder; None when it cannot be asked.
        problems: conflicts and gaps; empty when all is well.
    """

    python: str
    executable: str
    onnx_gradcam: str
    packages: tuple[Package, ...]
    providers: tuple[str, ...]
    builder: BuilderStatus | None
    problems: tuple[Problem, ...]

    @property
    def healthy(self) -> bool:
        """Return whether nothing needs mending."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis, JSON-ready."""
        return {
            "healthy": self.healthy,
            "python": self.python,
            "executable": self.executable,
            "onnx_gradcam": self.onnx_gradcam,
            "packages": {package.name: package.version for package in self.packages},
            "providers": list(self.providers),
            "builder": self.builder.to_dict() if self.builder else None,
            "problems": [asdict(problem) for problem in self.problems],
        }

    def summary(self) -> str:
        """Return the diagnosis as text for people."""
        rows = [
            ("python", f"{self.python} ({self.executable})"),
            ("onnx-gradcam", self.onnx_gradcam),
            *((package.name, package.version) for package in self.packages),
            *self._without_onnx(),
            ("providers", ", ".join(self.providers) or "none"),
            ("builder", describe_builder(self.builder)),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        for problem in self.problems:
            lines += ["", f"problem: {problem.what}", "  to mend it:"]
            lines += [f"    {command}" for command in problem.fix]
        if self.healthy:
            lines += ["", "all is well"]
        return "\n".join(lines)

    def _without_onnx(self) -> list[tuple[str, str]]:
        """Return the row that tells how to get onnx, which only the export needs."""
        if any(package.name == "onnx" for package in self.packages):
            return []
        return [("onnx", "not installed; to export: pip install 'onnx-gradcam[export]'")]


def describe_builder(status: BuilderStatus | None) -> str:
    """Return one line on the onnxruntime-training builder."""
    if status is None:
        return "onnxruntime-training cannot be asked: pip install 'onnx-gradcam[export]'"
    if status.available:
        return f"onnxruntime-training {status.version} in {status.path} (Python: {status.python})"
    return f"{status.problem}; {status.fix}"


def diagnose(path: Sequence[str] | None = None) -> Diagnosis:
    """Return the state of the environment.

    Args:
        path: folders to look for distributions in; None is the running Python's ``sys.path``.
    """
    folders = sys.path if path is None else list(path)
    packages = installed(folders)
    problems = [*find_conflicts(packages, folders), *_find_old_onnx(packages)]
    providers: tuple[str, ...] = ()
    if not problems:
        providers, failures = _import_and_ask()
        problems += failures
    builder = _ask_builder()
    if builder is not None and builder.version and not builder.available:
        problems.append(Problem(builder.problem, (builder.fix.removeprefix("run: "),)))
    return Diagnosis(
        python=platform.python_version(),
        executable=sys.executable,
        onnx_gradcam=__version__,
        packages=tuple(packages),
        providers=providers,
        builder=builder,
        problems=tuple(problems),
    )


def installed(folders: Sequence[str]) -> list[Package]:
    """Return the distributions that matter here, sorted by name; the first folder wins."""
    relevant = {
        "numpy",
        "onnx",
        "click",
        *TRAINING,
        *(n for names in OWNERS.values() for n in names),
    }
    found: dict[str, Package] = {}
    for distribution in distributions(path=list(folders)):
        name = _normal_name(distribution)
        if name in relevant:
            found.setdefault(name, Package(name, distribution.version))
    return [found[name] for name in sorted(found)]


def find_conflicts(packages: Iterable[Package], folders: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong with each import package that several distributions may own."""
    by_name = {package.name: package for package in packages}
    for module, owners in OWNERS.items():
        present = [by_name[name] for name in owners if name in by_name]
        training = (
            [by_name[name] for name in TRAINING if name in by_name]
            if module == "onnxruntime"
            else []
        )
        if len(present) + len(training) > 1 or training:
            yield _shared(module, present, training)
        elif present and not _is_importable(module, folders):
            yield Problem(
                f"{present[0]} is recorded as installed, but its package {module} is gutted:"
                " another distribution that shared it was uninstalled",
                (_pip(f"install --force-reinstall --no-deps {_pinned(present[0])}"),),
            )
        elif not present and _is_hollow(module, folders):
            yield Problem(
                f"{module} is an empty folder that an uninstall left behind",
                (_pip(f"install {REQUIREMENTS[module]}"),),
            )
        elif not present:
            yield Problem(
                f"nothing that provides the package {module} is installed",
                (_pip(f"install {REQUIREMENTS[module]}"),),
            )


def _shared(module: str, present: list[Package], training: list[Package]) -> Problem:
    names = " and ".join(map(str, [*present, *training]))
    owners = " ".join(package.name for package in [*present, *training])
    keep = _pinned(present[0]) if present else REQUIREMENTS[module]
    what = (
        f"{names} share the import package {module}: the one installed last wins"
        if len(present) + len(training) > 1
        else f"{names} takes the place of {module}; it belongs in a folder of its own"
    )
    rest = ("onnx-gradcam setup-builder",) if training else ()
    return Problem(what, (_pip(f"uninstall -y {owners}"), _pip(f"install {keep}"), *rest))


def _find_old_onnx(packages: Iterable[Package]) -> Iterator[Problem]:
    for package in packages:
        numbers = tuple(int(n) for n in re.findall(r"\d+", package.version)[:2])
        if package.name == "onnx" and numbers < OLDEST_SAFE_ONNX:
            yield Problem(
                f"{package} is open to known attacks through external data",
                (_pip("install --upgrade 'onnx>=1.21'"),),
            )


def _import_and_ask() -> tuple[tuple[str, ...], list[Problem]]:
    """Return the execution providers, and a problem for each package that fails to import."""
    providers: tuple[str, ...] = ()
    problems = []
    for module, requirement in REQUIREMENTS.items():
        try:
            imported = import_module(module)
            if module == "onnxruntime":
                providers = tuple(imported.get_available_providers())
        except Exception as error:  # a broken binary fails in ways of its own
            reason = " ".join(str(error).split())
            fix = _pip(f"install --force-reinstall --no-deps {requirement}")
            problems.append(Problem(f"importing {module} fails: {reason}", (fix,)))
    return providers, problems


def _ask_builder() -> BuilderStatus | None:
    try:
        from onnx_gradcam.export.builders.environment import builder_status

        return builder_status()
    except (ModuleNotFoundError, OnnxGradCamError):
        return None


def _normal_name(distribution: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()


def _is_importable(module: str, folders: Sequence[str]) -> bool:
    spec = PathFinder.find_spec(module, list(folders))
    return spec is not None and spec.origin is not None


def _is_hollow(module: str, folders: Sequence[str]) -> bool:
    spec = PathFinder.find_spec(module, list(folders))
    return spec is not None and spec.origin is None


def _pinned(package: Package) -> str:
    return f"{package.name}=={package.version}"


def _pip(arguments: str) -> str:
    return f"{sys.executable} -m pip {arguments}"
