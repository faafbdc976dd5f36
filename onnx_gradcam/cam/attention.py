"""CAM methods that look at the attention of a vision transformer instead of its activations.

In: `TokenMaps`, what the exported file says of R tokens in L blocks and where they lie in the
image. Out: raw maps ``(N, h, w)`` on the grid of the tokens, whatever the target layer is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_gradcam.cam.components import Maps
from onnx_gradcam.cam.registry import Need, register


@dataclass(frozen=True, eq=False)
class TokenMaps:
    """Values of R tokens in L blocks, of N images.

    Attributes:
        values: float32 ``(N, L, R, R)``, attention of rows to rows (rollout), or ``(N, L, R)``,
            relevance of rows (LeGrad).
        grid: ``(h, w)``, where the tokens of the image lie.
        cells: the row in each cell of the grid, row by row of the grid.
        read: the rows that the score reads: of the class token, or of all tokens that are pooled.
        pooled: whether the last of L is the attention by which the score reads the tokens.
    """

    values: Maps
    grid: tuple[int, ...]
    cells: tuple[int, ...]
    read: tuple[int, ...] = ()
    pooled: bool = False

    def on_grid(self, rows: Maps) -> Maps:
        """Return values ``(N, R)`` as ``(N, *grid)``; class and register tokens are left out."""
        return rows[:, list(self.cells)].reshape(-1, *self.grid)


@register(
    "rollout",
    title="Quantifying Attention Flow in Transformers",
    paper="arXiv:2005.00928",
    needs=(Need.ATTENTION,),
)
def rollout(activations: Maps, attention: TokenMaps) -> Maps:
    """Return the rows of B_L ... B_2 B_1 that the score reads, B = rows of A + I that sum to 1.

    A is the attention of a block, averaged over its heads; the identity is the residual
    connection. The row is that of the class token; of a model that pools its tokens the mean of
    their rows, and where it pools by attention their sum weighted by that. No class enters.

    Source: Abnar and Zuidema, arXiv:2005.00928, section 3 and its equation of attention rollout.
    """
    del activations
    blocks = attention.values
    if attention.pooled:
        row, blocks = blocks[:, -1, 0], blocks[:, :-1]
    else:
        row = np.zeros((len(blocks), blocks.shape[-1]), np.float32)
        row[:, list(attention.read)] = 1 / len(attention.read)
    for index in reversed(range(blocks.shape[1])):
        mixed = blocks[:, index] + np.eye(blocks.shape[-1], dtype=np.float32)
        mixed /= mixed.sum(axis=-1, keepdims=True)
        row = np.matmul(row[:, None], mixed)[:, 0]
    return attention.on_grid(row)


@register(
    "legrad",
    title="LeGrad: An Explainability Method for Vision Transformers via Feature Formation"
    " Sensitivity",
    paper="arXiv:2404.03214",
    needs=(Need.LEGRAD,),
)
def legrad(activations: Maps, legrad: TokenMaps) -> Maps:
    """Return mean_l mean_{heads, queries} relu(ds^l/dA^l), s^l being the score of block l's output.

    The gradient, ReLU and the means over heads and queries are in the exported file; the columns
    of tokens without a place are dropped and the blocks averaged here.

    Source: Bousselham et al., arXiv:2404.03214, section 3.
    """
    del activations
    return legrad.on_grid(legrad.values.mean(axis=1))
