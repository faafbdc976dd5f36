"""Small vision transformers in PyTorch, and attention rollout and LeGrad by autograd; needs torch.

Written from the papers' formulas (arXiv 2005.00928 section 3, arXiv 2404.03214 section 3) and
without a look at the exported graphs: the second opinion that the CAM methods are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

GRID = (3, 4)
WIDTH, HEADS, BLOCKS, CLASSES = 8, 2, 3, 5
SHAPE = (2, 3, 2 * GRID[0], 2 * GRID[1])


@dataclass
class Trace:
    """What a forward pass went through, block by block: attention ``(N, H, R, R)`` and output."""

    attention: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


class SelfAttention(nn.Module):  # type: ignore[misc]
    """Multi-head attention; by one fused function where that is what shall be exported."""

    def __init__(self, *, fused: bool = False) -> None:
        """Draw the weights."""
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.fused = fused

    def forward(self, x: Tensor, trace: Trace | None) -> Tensor:
        """Return the tokens mixed, ``(N, R, C)``."""
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        if self.fused and trace is None:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            weights = (q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5).softmax(-1)
            if trace is not None:
                trace.attention.append(weights)
            mixed = weights @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))


class TorchAttention(nn.Module):  # type: ignore[misc]
    """PyTorch's own layer, which keeps batch and heads on one axis."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor, trace: Trace | None) -> Tensor:
        """Return the tokens mixed, ``(N, R, C)``."""
        if trace is None:
            return self.layer(x, x, x, need_weights=True)[0]
        layer = self.layer
        projected = functional.linear(x, layer.in_proj_weight, layer.in_proj_bias)
        q, k, v = projected.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5).softmax(-1)
        trace.attention.append(weights)
        return layer.out_proj((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):  # type: ignore[misc]
    """Attention and MLP, each with a residual connection; norms before them or behind."""

    def __init__(self, attention: nn.Module, *, post_norm: bool) -> None:
        """Draw the weights."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = attention
        activation = nn.Tanh() if post_norm else nn.GELU()
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), activation, nn.Linear(2 * WIDTH, WIDTH)
        )
        self.post_norm = post_norm

    def forward(self, x: Tensor, trace: Trace | None) -> Tensor:
        """Return the block's output, ``(N, R, C)``."""
        if self.post_norm:
            x = self.norm1(x + self.attention(x, trace))
            x = self.norm2(x + self.mlp(x))
        else:
            x = x + self.attention(self.norm1(x), trace)
            x = x + self.mlp(self.norm2(x))
        if trace is not None:
            trace.outputs.append(x)
        return x


class Pooling(nn.Module):  # type: ignore[misc]
    """Attention of one learned query to all tokens, as SigLIP has it."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, HEADS, 1, WIDTH // HEADS))
        self.kv = nn.Linear(WIDTH, 2 * WIDTH)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())

    def forward(self, x: Tensor, trace: Trace | None) -> Tensor:
        """Return ``(N, C)``."""
        k, v = self.kv(x).unflatten(-1, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
        weights = (self.query @ k.transpose(-2, -1)).softmax(-1)
        if trace is not None:
            trace.attention.append(weights)
        pooled = (weights @ v).transpose(1, 2).flatten(1)
        return pooled + self.mlp(pooled)


class Transformer(nn.Module):  # type: ignore[misc]
    """A vision transformer.

    Args:
        kind: ``class`` (a class token), ``distilled`` (two, with a head each), ``mean`` (a
            register token, patches averaged before the last norm), ``post`` (norms behind, all
            tokens averaged) or ``pooled`` (by attention).
        layer: ``products``, ``fused`` or ``torch``: how attention is written.
    """

    def __init__(self, kind: str, layer: str) -> None:
        """Draw the weights."""
        super().__init__()
        self.kind = kind
        self.extra = {"class": 1, "distilled": 2, "mean": 1, "post": 0, "pooled": 0}[kind]
        self.patches = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.tokens = nn.Parameter(torch.randn(1, self.extra, WIDTH))
        self.places = nn.Parameter(torch.randn(1, self.extra + GRID[0] * GRID[1], WIDTH) / 2)
        makers = {
            "products": SelfAttention,
            "fused": lambda: SelfAttention(fused=True),
            "torch": TorchAttention,
        }
        self.blocks = nn.ModuleList(
            Block(makers[layer](), post_norm=kind == "post") for _ in range(BLOCKS)
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.pooling = Pooling() if kind == "pooled" else None
        self.heads = nn.ModuleList(
            nn.Linear(WIDTH, CLASSES) for _ in range(2 if kind == "distilled" else 1)
        )

    def forward(self, image: Tensor, trace: Trace | None = None) -> Tensor:
        """Return the scores, ``(N, K)``."""
        x = self.patches(image).flatten(2).transpose(1, 2)
        if self.extra:
            x = torch.cat([self.tokens.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.places
        for block in self.blocks:
            x = block(x, trace)
        return self.classify(x, None)

    def classify(self, x: Tensor, trace: Trace | None) -> Tensor:
        """Return the scores of a block's output: norm, pooling and classifier of the model."""
        if self.kind == "mean":
            return self.heads[0](self.norm(x[:, self.extra :].mean(1)))
        if self.kind == "post":
            return self.heads[0](x.mean(1))
        x = self.norm(x)
        if self.pooling is not None:
            return self.heads[0](self.pooling(x, trace))
        return sum(head(x[:, i]) for i, head in enumerate(self.heads)) / len(self.heads)

    def on_grid(self, rows: Tensor) -> Tensor:
        """Return values of rows ``(N, R)`` as ``(N, *GRID)``."""
        return rows[:, self.extra :].unflatten(1, GRID)


def transformer(kind: str, layer: str) -> Transformer:
    """Return one in evaluation mode, always with the same weights: of many sizes, as trained."""
    torch.manual_seed(len(kind) + 10 * len(layer))
    model: Transformer = Transformer(kind, layer).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if (weight.ndim > 1 and "qkv" in name) or "in_proj_weight" in name:
                weight.mul_(2)
            if "norm" in name or "bias" in name:
                weight.add_(torch.randn_like(weight) / 4)
    return model


def rollout(model: Transformer, image: Tensor) -> Tensor:
    """Return attention rollout, ``(N, *GRID)``, by the products of whole matrices."""
    trace = Trace()
    model(image, trace)
    total = torch.eye(trace.attention[0].shape[-1], dtype=image.dtype)
    for attention in trace.attention:
        mixed = attention.mean(1) + torch.eye(attention.shape[-1], dtype=image.dtype)
        total = mixed / mixed.sum(-1, keepdim=True) @ total
    if model.pooling is not None:
        last = Trace()
        model.classify(trace.outputs[-1], last)
        return model.on_grid((last.attention[0].mean(1) @ total)[:, 0])
    read = {
        "class": total[:, 0],
        "distilled": total[:, :2].mean(1),
        "mean": total[:, model.extra :].mean(1),
        "post": total.mean(1),
    }
    return model.on_grid(read[model.kind])


def legrad(model: Transformer, image: Tensor, classes: Sequence[int]) -> Tensor:
    """Return LeGrad, ``(N, *GRID)``: relu of ds/dA of each block, averaged."""
    trace = Trace()
    model(image, trace)
    maps = []
    for attention, output in zip(trace.attention, trace.outputs, strict=True):
        last = Trace()
        scores = model.classify(output, last)
        chosen = sum(scores[i, c] for i, c in enumerate(classes))
        by = attention if model.pooling is None else last.attention[0]
        (gradient,) = torch.autograd.grad(chosen, by, retain_graph=True)
        maps.append(gradient.relu().mean(dim=(1, 2)))
    return model.on_grid(torch.stack(maps).mean(0))
