"""Transformers in miniature, one per way to lay tokens out, written as ONNX text.

One head, four channels; `attention` writes the block of one layer. Patches of 2 x 2 pixels.
"""

from __future__ import annotations

from onnx import ModelProto

from tests.export.networks import Network, Shapes

TAIL = "logits = Gemm<transB=1>({head}, w_head, b_head)"
HEAD: Shapes = {"w_head": (5, 4), "b_head": (5,)}


def attention(stream: str, block: str, norm: str = "LayerNormalization") -> str:
    """Return a pre-norm block: ``{block}`` = stream + attention + MLP of a stream (N, T, 4)."""
    b = block
    return f"""
    {b}n1 = {norm}<axis=-1>({stream}, {b}s1, {b}b1)
    {b}q = MatMul({b}n1, {b}wq)
    {b}k = MatMul({b}n1, {b}wk)
    {b}v = MatMul({b}n1, {b}wv)
    {b}kt = Transpose<perm=[0, 2, 1]>({b}k)
    {b}qk = MatMul({b}q, {b}kt)
    {b}a = Softmax<axis=-1>({b}qk)
    {b}av = MatMul({b}a, {b}v)
    {b}p = MatMul({b}av, {b}wp)
    {b}x = Add({stream}, {b}p)
    {b}n2 = {norm}<axis=-1>({b}x, {b}s2, {b}b2)
    {b}h = MatMul({b}n2, {b}w1)
    {b}g = Sigmoid({b}h)
    {b}m = MatMul({b}g, {b}w2)
    {b} = Add({b}x, {b}m)"""


def weights(*blocks: str) -> dict[str, tuple[int, ...]]:
    """Return the weights of blocks, of the patch embedding and of the head."""
    shapes: dict[str, tuple[int, ...]] = {"we": (4, 3, 2, 2), "be": (4,), **HEAD}
    for b in blocks:
        shapes |= {f"{b}{n}": (4, 4) for n in ("wq", "wk", "wv", "wp", "w1", "w2")}
        shapes |= {f"{b}{n}": (4,) for n in ("s1", "b1", "s2", "b2")}
    return shapes


PATCHES = """patches = Conv<kernel_shape=[2,2], strides=[2,2]>(image, we, be)
    rows = Reshape(patches, to_rows)
    embedded = Transpose<perm=[0, 2, 1]>(rows)"""

WITH_CLASS = """
    first = Shape<start=0, end=1>(image)
    size = Concat<axis=0>(first, one_row)
    cls = Expand(token, size)
    x0 = Concat<axis=1>(cls, embedded)"""

INTEGERS = {"to_rows": [0, 4, -1], "one_row": [1, 4], "zero": [0], "one": [1], "end": [99],
            "axis1": [1]}  # fmt: skip

CLASS_TOKEN = Network(
    PATCHES + WITH_CLASS + attention("x0", "a") + attention("a", "b")
    + """
    last = LayerNormalization<axis=-1>(b, bs1, bb1)
    picked = Gather<axis=1>(last, zero)
    head = Squeeze(picked, axis1)
    """ + TAIL.format(head="head"),
    {**weights("a", "b"), "token": (1, 1, 4)},
    "bn1",
    (),
    image="float[N, 3, 8, 12] image",
    integers=INTEGERS,
    layout="NTC",
)  # fmt: skip
"""ViT: a class token, which alone is classified; a grid of 4 x 6."""

POOLED = Network(
    PATCHES + attention("embedded", "a") + attention("a", "b")
    + """
    last = LayerNormalization<axis=-1>(b, bs1, bb1)
    head = ReduceMean<axes=[1], keepdims=0>(last)
    """ + TAIL.format(head="head"),
    weights("a", "b"),
    "last",
    (),
    image="float[N, 3, 8, 12] image",
    integers=INTEGERS,
    layout="NTC",
)  # fmt: skip
"""A transformer without a class token, its tokens averaged."""

ATTENDED = (
    """patches = Conv<kernel_shape=[2,2], strides=[2,2]>(image, we, be)
    rows = Reshape(patches, to_rows)
    left = Transpose<perm=[0, 2, 1]>(rows)
    other = Conv<kernel_shape=[2,2], strides=[2,2]>(image, we2, be)
    rows2 = Reshape(other, to_rows)
    right = Transpose<perm=[0, 2, 1]>(rows2)"""
    + attention("left", "a")
    + attention("right", "b")
)
"""Two streams that never meet."""

GROWING = Network(
    POOLED.body.replace("strides=[2,2]", "strides=[16,16]"), POOLED.weights, "last", (),
    image="float[N, 3, H, W] image",
    integers=INTEGERS, layout="NTC",
)  # fmt: skip
"""The same for images of any size; patches 16 pixels apart."""

OPEN = Network(
    GROWING.body.replace("embedded", "placed").replace(
        "placed = Transpose<perm=[0, 2, 1]>(rows)",
        "embedded = Transpose<perm=[0, 2, 1]>(rows)\n    placed = Add(embedded, positions)",
    ),
    {**POOLED.weights, "positions": (1, 16, 4)}, "last", (),
    image="float[N, 3, H, W] image",
    integers=INTEGERS, layout="NTC",
)  # fmt: skip
"""The same, but embeddings of 4 x 4 positions are added."""

TRACED = Network(
    POOLED.body, POOLED.weights, "last", (), image=POOLED.image,
    integers={**INTEGERS, "to_rows": [1, 4, -1]}, layout="NTC",
)  # fmt: skip
"""The same, traced with one image: its batch is open by name alone."""

MERGED = Network(
    """pixels = Transpose<perm=[0, 2, 3, 1]>(image)
    even = Slice(pixels, zero, end, axis1, two)
    odd = Slice(pixels, one, end, axis1, two)
    p0 = Slice(even, zero, end, axis2, two)
    p1 = Slice(odd, zero, end, axis2, two)
    p2 = Slice(even, one, end, axis2, two)
    p3 = Slice(odd, one, end, axis2, two)
    joined = Concat<axis=-1>(p0, p1, p2, p3)
    tokens = Reshape(joined, to_tokens)
    mean = ReduceMean<axes=[-1]>(tokens)
    centred = Sub(tokens, mean)
    squares = Mul(centred, centred)
    variance = ReduceMean<axes=[-1]>(squares)
    deviation = Sqrt(variance)
    normal = Div(centred, deviation)
    reduced = MatMul(normal, w)
    head = ReduceMean<axes=[1], keepdims=0>(reduced)
    """ + TAIL.format(head="head"),
    {"w": (12, 4), **HEAD}, "reduced", (),
    image="float[N, 3, 8, 12] image",
    integers={"zero": [0], "one": [1], "two": [2], "end": [99], "axis1": [1], "axis2": [2],
              "to_tokens": [0, 24, 12]},
    layout="NTC",
)  # fmt: skip
"""Four neighbours joined into one token, then a normalisation in pieces."""

WINDOWS = Network(
    """patches = Conv<kernel_shape=[2,2], strides=[2,2]>(image, we, be)
    grid = Transpose<perm=[0, 2, 3, 1]>(patches)
    below = Slice(grid, one, end, axis1)
    above = Slice(grid, zero, one, axis1)
    rolled = Concat<axis=1>(below, above)
    cut = Reshape(rolled, to_windows)
    ordered = Transpose<perm=[0, 1, 3, 2, 4, 5]>(cut)
    windows = Reshape(ordered, to_tokens)
    """ + attention("windows", "a") + """
    apart = Reshape(a, to_cut)
    mixed = Transpose<perm=[0, 1, 3, 2, 4, 5]>(apart)
    joined = Reshape(mixed, to_grid)
    first = Slice(joined, minus, end, axis1)
    rest = Slice(joined, zero, minus, axis1)
    back = Concat<axis=1>(first, rest)
    last = LayerNormalization<axis=-1>(back, as2, ab2)
    head = ReduceMean<axes=[1, 2], keepdims=0>(last)
    """ + TAIL.format(head="head"),
    weights("a"),
    "last",
    (),
    image="float[N, 3, 8, 12] image",
    integers={**INTEGERS, "to_windows": [-1, 2, 2, 3, 2, 4], "to_tokens": [-1, 4, 4],
              "to_cut": [-1, 2, 3, 2, 2, 4], "to_grid": [-1, 4, 6, 4], "minus": [-1]},
    layout="NHWC",
)  # fmt: skip
"""Swin: windows of 2 x 2 patches, shifted by one row; the map is channels-last."""

MIXER = Network(
    """pixels = Reshape(image, to_pixels)
    moved = Transpose<perm=[0, 2, 4, 1, 3, 5]>(pixels)
    rows = Reshape(moved, to_patches)
    x0 = MatMul(rows, wp)
    t = Transpose<perm=[0, 2, 1]>(x0)
    u = MatMul(t, wt)
    v = Transpose<perm=[0, 2, 1]>(u)
    x1 = Add(x0, v)
    c = MatMul(x1, wc)
    last = Add(x1, c)
    head = ReduceMean<axes=[1], keepdims=0>(last)
    """ + TAIL.format(head="head"),
    {"wp": (12, 4), "wt": (24, 24), "wc": (4, 4), **HEAD},
    "last",
    (),
    image="float[N, 3, 8, 12] image",
    integers={"to_pixels": [0, 3, 4, 2, 6, 2], "to_patches": [0, 24, 12]},
    layout="NTC",
)  # fmt: skip
"""MLP-Mixer: patches by Reshape alone, tokens mixed by a product with weights."""

ATTENTION_POOLED = Network(
    PATCHES + attention("embedded", "a")
    + """
    last = LayerNormalization<axis=-1>(a, as1, ab1)
    product = MatMul(last, w_pair)
    pair = Add(product, b_pair)
    key, value = Split<axis=-1>(pair)
    turned = Transpose<perm=[0, 2, 1]>(key)
    fit = MatMul(query, turned)
    share = Softmax<axis=-1>(fit)
    pooled = MatMul(share, value)
    head = Squeeze(pooled, axis1)
    """ + TAIL.format(head="head"),
    {**weights("a"), "w_pair": (4, 8), "b_pair": (8,), "query": (1, 1, 4)},
    "last",
    (),
    image="float[N, 3, 8, 12] image",
    integers=INTEGERS,
    layout="NTC",
)  # fmt: skip
"""SigLIP: a learned query attends to all tokens; its keys and values are no feature map."""

TRANSFORMERS = {
    "attention pooling": ATTENTION_POOLED,
    "class token": CLASS_TOKEN,
    "pooled": POOLED,
    "any size": GROWING,
    "windows": WINDOWS,
    "mixer": MIXER,
}


def model(name: str) -> ModelProto:
    """Return one of them as a model."""
    return TRANSFORMERS[name].model()
