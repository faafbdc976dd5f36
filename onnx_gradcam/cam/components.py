"""From summands ``(N, C, *spatial)`` to maps ``(N, *spatial)``: sums and principal components.

Summands are maps X^k, or w_k X^k with weights w, which are then given apart: a weighted sum needs
no array of its summands.

A principal component has no sign of its own; each function here says which one it takes, so that
maps do not depend on the linear algebra library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.float32]
Combine = Callable[..., Maps]
"""From summands to maps: takes X or, for w_k X^k, X and w."""

DENSE_POSITIONS = 200
"""Up to so many positions all eigenvectors are computed; beyond, Lanczos finds the first."""

LANCZOS_STEPS = 300

ON_ONE_THREAD = 2**18
"""Elements of a matrix that a BLAS multiplies with a vector without waking its other threads."""


def spatial_mean(maps: Maps) -> Maps:
    """Return the mean of maps ``(N, C, *spatial)`` over their positions, ``(N, C, 1, ...)``."""
    images, channels = maps.shape[:2]
    positions = math.prod(maps.shape[2:])
    mean: Maps
    if channels * positions > ON_ONE_THREAD:
        mean = maps.mean(axis=tuple(range(2, maps.ndim)), keepdims=True)
    else:
        mean = maps.reshape(images, channels, positions) @ _ones(positions)
        mean /= positions
    return mean.reshape(images, channels, *[1] * (maps.ndim - 2))


@lru_cache(maxsize=16)
def _ones(count: int) -> Maps:
    return np.ones(count, np.float32)


def channel_sum(maps: Maps, weights: Maps | None = None) -> Maps:
    """Return sum_k X^k, or sum_k w_k X^k.

    At each position the same additions in the same order: what is equal everywhere stays so, to
    the last bit, which a matrix product of a BLAS does not promise.

    Args:
        maps: X, ``(N, C, *spatial)``.
        weights: w, ``(N, C, *spatial)``, or with one element on each spatial axis.
    """
    if weights is None:
        total: Maps = maps.sum(axis=1)
        return total
    images, channels, *size = maps.shape
    flat = maps.reshape(images, channels, -1)
    if weights.shape == maps.shape:
        total = np.einsum("ncp,ncp->np", weights.reshape(flat.shape), flat)
    else:
        total = np.einsum("nc,ncp->np", weights.reshape(images, channels), flat)
    return total.reshape(images, *size)


def first_component(maps: Maps, weights: Maps | None = None) -> Maps:
    """Return P(X) or P(w X): the projection on the first principal component over the channels.

    X is taken as a matrix of positions by channels.

    Channels are centred first. The sign makes a map correlate positively with the mean of X over
    channels; where that correlation vanishes, it makes the position of largest magnitude positive.
    An image whose X is not finite gets a map of NaN.
    """
    summands = maps if weights is None else weights * maps
    return np.stack([_project(image) for image in summands])


def _project(image: Maps) -> Maps:
    """Return the signed projection ``(*spatial)`` of one image's X ``(C, *spatial)``."""
    if not np.isfinite(image).all():
        return np.full(image.shape[1:], np.nan, image.dtype)
    exponent = np.frexp(np.abs(image).max())[1]  # a power of two costs no precision
    positions = np.ldexp(image, -exponent).reshape(image.shape[0], -1).T
    centred = positions - positions.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    projection: Maps = centred @ direction
    evidence = float(projection @ centred.mean(axis=1))
    if abs(evidence) <= 1e-6 * float(np.abs(projection).max() * np.abs(centred).max()):
        evidence = _largest(projection)
    if evidence < 0:
        projection = -projection
    scaled: Maps = np.ldexp(projection, exponent)
    return scaled.reshape(image.shape[1:])


def kernel_component(activations: Maps) -> Maps:
    """Return the first kernel principal component of A, positions by channels, per image.

    With X the A of one image ``(positions, C)``, channels centred, K = tanh(X X^T / C + 1), and
    K' = K with rows and columns centred: sqrt(lambda) v of the largest eigenvalue lambda of K' and
    its unit vector v. The sign makes the position of largest magnitude positive, as
    ``sklearn.decomposition.KernelPCA`` does.
    """
    return np.stack([_kernel_project(image) for image in activations])


def _kernel_project(image: Maps) -> Maps:
    positions = image.reshape(image.shape[0], -1).T.astype(np.float64)
    positions -= positions.mean(axis=0)
    kernel = np.tanh(positions @ positions.T / positions.shape[1] + 1)
    means = kernel.mean(axis=0)
    kernel += means.mean() - means - means[:, None]
    value, vector = _first_eigenvector(kernel)
    if value <= 10 * len(kernel) * np.finfo(np.float64).eps:  # what rounding leaves of 0
        return np.zeros(image.shape[1:], image.dtype)
    component: Maps = (np.sqrt(value) * vector * np.sign(_largest(vector))).astype(image.dtype)
    return component.reshape(image.shape[1:])


def _first_eigenvector(matrix: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the largest eigenvalue of a symmetric matrix and its unit vector.

    Large matrices: Lanczos from a fixed start, each vector made orthogonal to all before; where it
    does not settle, all eigenvectors after all.
    """
    if len(matrix) > DENSE_POSITIONS:
        vector = np.cos(np.arange(len(matrix)) ** 2)  # without symmetries, the same everywhere
        basis: list[NDArray[np.float64]] = []
        diagonal: list[float] = []
        beside: list[float] = []
        norm = float(np.linalg.norm(vector))
        for step in range(1, min(LANCZOS_STEPS, len(matrix)) + 1):
            basis.append(vector / norm)
            image = matrix @ basis[-1]
            diagonal.append(float(basis[-1] @ image))
            span = np.array(basis)
            vector = image - span.T @ (span @ image)
            vector -= span.T @ (span @ vector)
            norm = float(np.linalg.norm(vector))
            ended = norm <= 1e-14 * np.abs(diagonal).max()
            if ended or step % 10 == 0:
                small = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
                values, vectors = np.linalg.eigh(small)
                if ended or norm * abs(vectors[-1, -1]) <= 1e-12 * abs(values[-1]):
                    return float(values[-1]), vectors[:, -1] @ span
            beside.append(norm)
    values, vectors = np.linalg.eigh(matrix)
    return float(values[-1]), vectors[:, -1]


def _largest(values: NDArray[Any]) -> float:
    """Return the value of largest magnitude."""
    return float(values[np.abs(values).argmax()])
