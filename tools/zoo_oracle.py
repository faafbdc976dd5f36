"""PyTorch autograd at the tensor that an exported file calls A, wherever and however torch has it.

The layout of A is ``(N, C, *spatial)``; the network may compute it channels last, as tokens
behind a class token, or cut into windows. It is found among all tensors that torch functions
return by the values of its positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tools.torch_oracle import Recorder

Array = NDArray[Any]
_Map = Callable[[Array], Array]

MATCH = 1e-4
"""How near, relative to the largest value of A, a tensor has to be to be called A."""


@dataclass(frozen=True)
class Found:
    """A tensor of the network that has the values of A.

    Attributes:
        activations: its values, in the layout of A.
        gradient: dy^c/dA, in the layout of A.
        error: the largest difference to A, relative to the largest value of A.
        shape: its own.
    """

    activations: Array
    gradient: Array
    error: float
    shape: tuple[int, ...]


class AnyLayoutOracle:
    """Activations and gradients of a network on one batch.

    Args:
        model: in evaluation mode, without in-place activations.
        x: input ``(N, C, H, W)``, of the element type of the model.

    Attributes:
        scores: what the network returns, ``(N, K)``.
    """

    def __init__(self, model: nn.Module, x: Array) -> None:
        """Run the model once and keep all intermediate tensors.

        Raises:
            LookupError: recording changes what the model computes.
        """
        leaf = torch.from_numpy(x).requires_grad_()
        with torch.no_grad():
            plain = model(torch.from_numpy(x)).numpy()
        with Recorder() as recorder:
            self._scores = model(leaf)
        self.scores: Array = self._scores.detach().numpy()
        if not np.allclose(plain, self.scores, rtol=1e-5, atol=1e-6 * float(np.abs(plain).max())):
            raise LookupError("recording changed the network: an operation in place was lost")
        self._tensors = [t for t in recorder.tensors if t.is_floating_point()]

    def gradients(self, activations: Array, classes: NDArray[np.int64]) -> Iterator[Found]:
        """Yield each tensor that has the values of A, with dy^c/dA.

        Several tensors may have them (a view, a ReLU of what is positive already); the first one
        feeds the others.

        Args:
            activations: A, ``(N, C, *spatial)``.
            classes: class per image, ``(N,)``.
        """
        total = self._scores[torch.arange(len(classes)), torch.from_numpy(classes)].sum()
        for tensor in self._tensors:
            found = _match(tensor.detach().numpy(), activations)
            if found is None:
                continue
            mapped, error = found
            (gradient,) = torch.autograd.grad(
                total, tensor, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            values = mapped(tensor.detach().numpy())
            yield Found(values, mapped(gradient.numpy()), error, tuple(tensor.shape))


def _match(value: Array, activations: Array) -> tuple[_Map, float] | None:
    """Return how to bring a tensor into the layout of A, if it holds A, and the largest error."""
    channels = activations.shape[1]
    if value.size < activations.size or channels not in value.shape:
        return None
    scale = float(np.abs(activations).max()) or 1.0
    if not _may_hold(value, activations, MATCH * scale):
        return None
    for mapped in (*_views(value.shape, activations.shape), *_by_rows(value, activations)):
        error = float(np.abs(mapped(value) - activations).max()) / scale
        if error <= MATCH:
            return mapped, error
    return None


def _may_hold(value: Array, activations: Array, tolerance: float) -> bool:
    """Return False where extreme values or the mean already show that a tensor is not A."""
    beyond = [value.max() - activations.max(), activations.min() - value.min()]
    if value.size > activations.size:
        return bool(min(beyond) >= -tolerance)
    differences = [*beyond, value.mean() - activations.mean()]
    return bool(np.abs(differences).max() <= tolerance)


def _views(shape: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[_Map]:
    """Yield the permutations of axes that give the wanted shape, then those of tokens."""
    if len(shape) == len(wanted):
        for order in permutations(range(len(shape))):
            if tuple(shape[i] for i in order) == wanted:
                yield partial(np.transpose, axes=order)
    tokens = int(np.prod(wanted[2:]))
    if len(shape) != 3 or len(wanted) == 3:
        return
    for order in permutations(range(3)):
        batch, channels, count = (shape[i] for i in order)
        if (batch, channels) == wanted[:2] and count >= tokens:
            for start in {count - tokens, 0}:
                yield partial(_tokens, order=order, start=start, shape=wanted)


def _tokens(value: Array, order: tuple[int, ...], start: int, shape: tuple[int, ...]) -> Array:
    stop = start + int(np.prod(shape[2:]))
    return value.transpose(order)[:, :, start:stop].reshape(shape)


def _by_rows(value: Array, activations: Array) -> Iterator[_Map]:
    """Yield the maps that send each position of A to the one with the same channels.

    Positions are found by a random projection of their channels, so that windows and other
    orders need not be known.
    """
    channels = activations.shape[1]
    wanted = np.moveaxis(activations, 1, -1).reshape(-1, channels)
    direction = np.random.default_rng(0).standard_normal(channels)
    target = wanted @ direction
    for axis in [i for i, size in enumerate(value.shape) if size == channels]:
        projected = np.moveaxis(value, axis, -1).reshape(-1, channels) @ direction
        order = np.argsort(projected)
        right = np.clip(np.searchsorted(projected[order], target), 1, len(order) - 1)
        left_is_nearer = target - projected[order[right - 1]] < projected[order[right]] - target
        index = order[right - left_is_nearer]
        if len(np.unique(index)) == len(index):
            yield partial(_rows_at, axis=axis, index=index, shape=activations.shape)


def _rows_at(value: Array, axis: int, index: Array, shape: tuple[int, ...]) -> Array:
    rows = np.moveaxis(value, axis, -1).reshape(-1, shape[1])[index]
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
