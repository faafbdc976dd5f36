"""Several target layers of one file: each chosen as a single one is, no two the same.

In: the graph, the score and one or several ``--layer``. Out: the `Layer`s in the order asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx_gradcam.errors import UsageError
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.score import Score
from onnx_gradcam.export.spatial.feature_maps import FeatureMaps
from onnx_gradcam.export.target_layer import Layer, choose_layer

LayerChoice = str | int | Sequence[str | int]
"""``auto``, a tensor name, a node name or an index from `inspect`; or a sequence of these."""


def choose_layers(
    graph: Graph, image: str, score: Score, choice: LayerChoice, *, fused: bool = False
) -> tuple[Layer, ...]:
    """Return the layers to explain.

    Args:
        graph: the model.
        image: name of its image input.
        score: the score.
        choice: one layer or several, each as `choose_layer` takes it.
        fused: whether a CAM is to be computed in the graph, which is of one layer.

    Raises:
        UsageError: no layer, one of them twice, or several for a CAM in the graph.
        LayerNotFoundError: see `choose_layer`.
        UnsupportedModelError: see `choose_layer`.
    """
    asked = [choice] if isinstance(choice, (str, int)) else list(choice)
    if not asked:
        raise UsageError("no target layer is asked for; leave it at auto or name one")
    if fused and len(asked) > 1:
        raise UsageError(
            f"the CAM in the graph is of one target layer, not of {len(asked)}; name one, or leave"
            " out fuse_cam and fuse the heat maps where the file runs"
        )
    maps = FeatureMaps(graph, image)
    found: dict[str, str | int] = {}
    layers = []
    for name in asked:
        layer = choose_layer(graph, image, score, name, maps)
        if layer.tensor in found:
            raise UsageError(
                f"layer {layer.tensor!r} is asked for twice, as {found[layer.tensor]!r} and"
                f" {name!r}; leave one of them out"
            )
        found[layer.tensor] = name
        layers.append(layer)
    return tuple(layers)
