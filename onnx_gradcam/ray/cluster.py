"""The cluster: an address in, a connection out; how many actors find room on its nodes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from onnx_gradcam.errors import UnavailableError, UsageError
from onnx_gradcam.extras import missing_dependency
from onnx_gradcam.pipeline.cores import cores

if TYPE_CHECKING:
    from types import ModuleType

ADDRESS_VARIABLE = "RAY_ADDRESS"
"""Ray's own: set in whatever `ray job submit` runs."""

LOCAL = "local"
"""The address that stands for Ray on this machine alone, started now and stopped at the end."""

CONNECT_SECONDS = 10
"""After which nobody listens at an address."""

OURS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # else it tells its makers about this machine
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do, and warns of until then
}
"""How we start Ray, unless these variables are set."""


def import_ray() -> ModuleType:
    """Return ``ray``.

    Raises:
        MissingDependencyError: it is not installed.
    """
    for name, value in OURS.items():  # it reads them when it is imported
        os.environ.setdefault(name, value)
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        raise (missing_dependency(error) or error) from error


@dataclass(frozen=True)
class Share:
    """What one actor takes of its node.

    Attributes:
        cpus: processor cores; below one, several actors share one.
        gpus: likewise; 0 to run on the CPU.
    """

    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        """Check what can be checked without a cluster.

        Raises:
            UsageError: a share that no node can give.
        """
        if not self.cpus > 0 or self.gpus < 0:
            raise UsageError(f"actors with {self.cpus:g} CPUs and {self.gpus:g} GPUs; take some")
        for amount, what in ((self.cpus, "CPU"), (self.gpus, "GPU")):
            if amount > 1 and amount % 1:
                raise UsageError(
                    f"Ray gives a part of one {what}, or whole ones: not {amount:g} {what}s"
                )

    @property
    def threads(self) -> int:
        """How many threads keep it busy."""
        return max(int(self.cpus), 1)

    def fits(self, node: Mapping[str, float]) -> int:
        """Return how many such actors have room on a node with these resources."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return min(
            int(node.get(name, 0) / amount + 1e-6) for name, amount in wanted.items() if amount
        )

    def __str__(self) -> str:
        """Return it as errors tell it."""
        gpus = f" and {_count(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{_count(self.cpus, 'CPU')}{gpus}"


class Cluster:
    """A connection to Ray, which is closed, and what we started stopped, in the end."""

    def __init__(self, address: str | None = None) -> None:
        """Connect to a cluster, or start Ray on this machine.

        Args:
            address: ``HOST:PORT``, ``auto`` for the one that this machine is a part of, ``local``
                for one of its own; None for the one that this process is connected to, else
                for RAY_ADDRESS, else ``local``.

        Raises:
            MissingDependencyError: Ray is not installed.
            UsageError: an address that cannot be, or this process is connected already.
            UnavailableError: no cluster answers there.
        """
        self.ray = import_ray()
        self.address = address or os.environ.get(ADDRESS_VARIABLE) or LOCAL
        if "://" in self.address:
            raise UsageError(
                f"--ray-address {self.address}: Ray Client is not served; run this on a machine of"
                " the cluster (ray job submit does) and give HOST:PORT, or auto"
            )
        if address is not None:
            _refuse_silent(address)
        self._ours = not self.ray.is_initialized()
        if self._ours:
            self._connect()
        elif address is not None:
            raise UsageError(
                f"connected to Ray already, and not to {address}; leave the address out"
            )

    def _connect(self) -> None:
        own = {"num_cpus": cores(), "include_dashboard": False} if self.address == LOCAL else {}
        terminated = signal.getsignal(signal.SIGTERM)
        try:
            self.ray.init(
                address=self.address,
                logging_level=logging.ERROR,
                log_to_driver=False,  # what actors print is in Ray's logs; errors come to us
                **own,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            self.ray.shutdown()
            raise UnavailableError(_no_cluster(self.address, error)) from error
        if callable(terminated) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminated)  # Ray has set its own

    def close(self) -> None:
        """Disconnect, and stop what we started."""
        if self._ours:
            self.ray.shutdown()

    def nodes(self) -> list[dict[str, float]]:
        """Return the resources of each node that is up."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]


def _refuse_silent(address: str) -> None:
    """Check that somebody listens at HOST:PORT; Ray itself would try for minutes.

    Raises:
        UnavailableError: nobody does.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():  # auto, local, or the name of a cluster
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UnavailableError(_no_cluster(address, error)) from error


def _no_cluster(address: str, error: Exception) -> str:
    return (
        f"no Ray cluster answers at {address}: {brief(error)}; ray status --address=HOST:PORT shows"
        " whether it is up, and whether it wants a token (RAY_AUTH_MODE=token)"
    )


def actors_that_fit(wanted: int | None, share: Share, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many actors to start.

    Args:
        wanted: how many are asked for; None for as many as fit.
        share: what each takes.
        nodes: the resources of each.

    Raises:
        UsageError: they would never fit, and Ray would wait for more nodes for ever.
    """
    room = sum(share.fits(node) for node in nodes)
    if wanted is not None and wanted < 1:
        raise UsageError(f"{wanted} actors; take at least one")
    if room >= (wanted or 1):
        return wanted or room
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    there = f"{_count(cpus, 'CPU')} and {_count(gpus, 'GPU')} in {_count(len(nodes), 'node')}"
    smaller = "less with --cpus-per-actor" + (" or --gpus-per-actor" if share.gpus else "")
    advice = f"take --actors {room}, or {smaller}" if room else f"take {smaller}"
    raise UsageError(
        f"{_count(wanted or 1, 'actor')} with {share} each {'do' if (wanted or 1) > 1 else 'does'}"
        f" not fit: the Ray cluster has {there}, room for {room}; {advice}, or start more nodes"
    )


def brief(error: BaseException) -> str:
    """Return the first line of an error of Ray, which likes to write pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return first if len(first) <= 200 else first[:197] + "..."


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"
