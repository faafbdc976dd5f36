"""The tensors of a model that are feature maps, whatever their layout.

In: the graph and its image input. Out: `FeatureMaps`, which gives the `Arrangement` of a tensor
and tells whether a change of its placed elements can reach another tensor.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np

from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.spatial.arrangement import arrange
from onnx_gradcam.export.spatial.fields import Shape
from onnx_gradcam.export.spatial.layouts import layout_of_image, spatial_sizes, tensor_layouts
from onnx_gradcam.export.spatial.positions import track_positions
from onnx_gradcam.export.spatial.reach import Reach
from onnx_gradcam.export.spatial.tracking import Fields, track
from onnx_gradcam.export.spatial.trial import static_shapes, trial_graph


class FeatureMaps:
    """Looks up how tensors are laid out.

    Args:
        graph: the model.
        image: name of its image input.
    """

    def __init__(self, graph: Graph, image: str) -> None:
        """Follow nothing yet."""
        self._graph = graph
        self._image = image
        self._known: dict[str, Arrangement | None] = {}

    @cached_property
    def _trial(self) -> Graph | None:
        return trial_graph(self._graph, self._image)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        return {} if self._trial is None else static_shapes(self._trial)

    @cached_property
    def _positions(self) -> dict[str, Fields]:
        shape = self._shapes.get(self._image)
        layout = None if shape is None else layout_of_image(self._graph, self._image)
        if self._trial is None or layout is None:
            return {}
        return track_positions(self._trial, self._image, layout, self._shapes)

    @cached_property
    def _layouts(self) -> dict[str, str]:
        return tensor_layouts(self._graph, self._image)

    def arrangement(self, tensor: str) -> Arrangement | None:
        """Return how a tensor is a feature map, None where it is none."""
        if tensor not in self._known:
            found = self._from_positions(tensor) or self._from_layouts(tensor)
            self._known[tensor] = found
        return self._known[tensor]

    def _from_positions(self, tensor: str) -> Arrangement | None:
        fields, shape = self._positions.get(tensor), self._shapes.get(tensor)
        if fields is None or shape is None:
            return None
        found = arrange(fields, shape, self._shapes[self._image][0])
        if found is not None and found.grid and not self._is_static(tensor, found):
            return self._growing(tensor, found)
        return found

    def _growing(self, tensor: str, found: Arrangement) -> Arrangement | None:
        """Return tokens with the nearest map upstream that has their grid, whatever its size."""
        channels = (self._graph.shape(tensor) or ())[found.channel]
        if not found.is_contiguous or not isinstance(channels, int) or found.layout[0] != "N":
            return None
        upstream = self._graph.leads_to(tensor) & self._positions.keys() - {tensor}
        for node in reversed(self._graph.nodes):
            name = node.output[0] if node.output else ""
            shape = self._shapes.get(name)
            if name not in upstream or shape is None or len(shape) != len(found.grid) + 2:
                continue
            plain = arrange(self._positions[name], shape, self._shapes[self._image][0])
            if plain is None or plain.grid:
                continue
            sizes = [shape[axis] for axis in plain.channels_first()[2:]]
            if tuple(sizes) == found.grid:
                return replace(found, source=name, source_layout=plain.layout)
        return None

    def _is_static(self, tensor: str, found: Arrangement) -> bool:
        """Return whether the number of tokens does not depend on the size of the image."""
        shape = self._graph.shape(tensor) or ()
        return all(
            isinstance(size, int)
            for size, letter in zip(shape, found.layout, strict=False)
            if letter in "TC"
        )

    def _from_layouts(self, tensor: str) -> Arrangement | None:
        """Return what the operators say of the axes, where places could not be followed."""
        layout, shape = self._layouts.get(tensor), self._graph.shape(tensor)
        image = layout_of_image(self._graph, self._image)
        if layout is None or shape is None:
            return None
        if image is not None and len(set(image) - set("NC")) != len(set(layout) - set("NC")):
            return None
        if not any(size != 1 for size in spatial_sizes(shape, layout)):
            return None
        return Arrangement(layout)

    @property
    def images(self) -> int:
        """The size of the batch in the trial that positions are followed in."""
        return self._shapes[self._image][0] if self._image in self._shapes else 1

    def sizes(self, tensor: str) -> Shape | None:
        """Return the full shape of a tensor in the trial that positions are followed in."""
        return self._shapes.get(tensor)

    def places(self, tensor: str) -> Fields | None:
        """Return image number and coordinates of the elements of a tensor; None for unknown."""
        return self._positions.get(tensor)

    def readable_rows(self, tensor: str, goal: str) -> list[int]:
        """Return the rows of a feature map a change of which can reach another tensor.

        Rows are the tokens of an image; of a map with spatial axes its cells, row by row.
        """
        found, shape = self.arrangement(tensor), self._shapes[tensor]
        assert found is not None, "the tensor is a feature map"
        assert self._trial is not None, "it has a shape"
        axes = [1] if found.grid else found.channels_first()[2:]
        graph, wanted = self._trial, self._trial.leads_to(goal)
        nodes = graph.nodes[graph.producer.get(tensor, -1) + 1 :]
        nodes = [node for node in nodes if any(name in wanted for name in node.output)]
        sizes = [size if axis in axes else 1 for axis, size in enumerate(shape)]
        rows = []
        for row in range(math.prod(sizes)):
            only = (np.arange(math.prod(sizes)) == row).reshape(sizes)
            known = track(graph, Reach(), {tensor: (only,)}, self._shapes, nodes)
            if goal not in known or known[goal][0].any():
                rows.append(row)
        return rows

    def reaches(self, tensor: str, goal: str) -> bool:
        """Return whether elements of a map that have a place can change another tensor.

        True where that cannot be told.
        """
        fields = self._positions.get(tensor)
        if fields is None or self._trial is None:
            return True
        placed = ~np.any(np.broadcast_arrays(*(np.isnan(field) for field in fields)), axis=0)
        if not placed.any():  # a map by its layout alone
            return True
        graph = self._trial
        after = graph.producer.get(tensor, -1) + 1
        found = track(graph, Reach(), {tensor: (placed,)}, self._shapes, graph.nodes[after:])
        return goal not in found or bool(found[goal][0].any())
