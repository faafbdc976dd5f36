"""The options of `batch` that say who explains: this process, or the actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from onnx_gradcam.cli.options import adding
from onnx_gradcam.errors import UsageError

if TYPE_CHECKING:
    from onnx_gradcam.batch import BatchOptions
    from onnx_gradcam.batch.engine import Engine
    from onnx_gradcam.runtime import Explainer

_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Who explains: this process, or the actors of a Ray cluster.",
    ),
    click.option(
        "--actors",
        type=click.IntRange(min=1),
        metavar="N",
        help="How many of them.  [default: as many as the cluster has room for]",
    ),
    click.option(
        "--ray-address",
        metavar="HOST:PORT|auto|local",
        help="The cluster; local is one on this machine, for this run.  [default: RAY_ADDRESS, else"
        " local]",
    ),
    click.option(
        "--cpus-per-actor",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="Cores, and so threads, of each actor.  [default: 1]",
    ),
    click.option(
        "--gpus-per-actor",
        type=click.FloatRange(min=0),
        metavar="N",
        help="GPUs of each actor; 0.5 for two actors on one.  [default: 0]",
    ),
)


class EngineChoice(NamedTuple):
    """What the options say; None where they are not given."""

    engine: str
    device: str
    threads: int | None
    actors: int | None
    ray_address: str | None
    cpus_per_actor: float | None
    gpus_per_actor: float | None


engine_options = adding(_OPTIONS)
"""Adds them to a command."""


@contextmanager
def opened_engine(
    choice: EngineChoice, exported: Path, options: BatchOptions
) -> Iterator[tuple[Explainer, Engine]]:
    """Give a loaded file and what explains with it, until the block ends."""
    if choice.engine == "local":
        yield _local(choice, exported, options)
    else:
        yield from _ray(choice, exported, options)


def _local(choice: EngineChoice, exported: Path, options: BatchOptions) -> tuple[Explainer, Engine]:
    from onnx_gradcam.batch.engine import LocalEngine
    from onnx_gradcam.pipeline import divide
    from onnx_gradcam.runtime import load

    for name in ("actors", "ray_address", "cpus_per_actor", "gpus_per_actor"):
        if getattr(choice, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is of --engine ray; add that")
    division = divide(None, options.method, choice.threads)
    explainer = load(exported, device=choice.device, session_options=division.session_options())
    return explainer, LocalEngine(explainer, options, division)


def _ray(
    choice: EngineChoice, exported: Path, options: BatchOptions
) -> Iterator[tuple[Explainer, Engine]]:
    from onnx_gradcam.ray import Actors, RayEngine, Share
    from onnx_gradcam.runtime import load

    if choice.threads is not None:
        raise UsageError("--threads: an actor has as many as --cpus-per-actor; give that instead")
    actors = Actors(choice.actors, Share(choice.cpus_per_actor or 1, choice.gpus_per_actor or 0))
    explainer = load(exported, device="cpu")  # it tells the manifest; actors load it again
    with RayEngine(
        exported, explainer, options, actors, device=choice.device, address=choice.ray_address
    ) as engine:
        yield explainer, engine
