"""Phases: every stride-th element along an axis, taken apart and put together again.

With a stride of s, element k of all windows lies in one phase of the map, at consecutive places.
So a map is cut into s phases, each is worked on as with a stride of one, and the results are put
side by side; Slices in steps and ConvTranspose go through memory many more times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.sizes import Size, cut, pad, reshape
from onnx_gradcam.gradients.windows import Axis, static


def taken_apart(
    emit: Emitter, x: str, dim: int, stride: int, length: Size, behind: Sequence[Size]
) -> list[str]:
    """Return the phases of x along an axis, ``(*before, length, *behind)`` each.

    Args:
        emit: where to write nodes.
        x: ``(*before, length * stride, *behind)``.
        dim: the axis.
        stride: how many phases there are.
        length: of each.
        behind: sizes behind the axis.
    """
    if stride == 1:
        return [x]
    split = reshape(emit, x, [*[0] * dim, length, stride, *behind])
    # since opset 18 the number of parts is said, before that it is the number of outputs
    many = stride if emit.opset >= 18 else None
    parts = emit.nodes_with_outputs("Split", [split], stride, axis=dim + 1, num_outputs=many)
    return [emit.squeeze(part, [dim + 1]) for part in parts]


def put_together(
    emit: Emitter, parts: Sequence[str | None], dim: int, length: Size, behind: Sequence[Size]
) -> str:
    """Return the map that has these phases along an axis, ``(*before, length * stride, *behind)``.

    Args:
        emit: where to write nodes.
        parts: the phases, ``(*before, length, *behind)``; None is one of zeros. One is not.
        dim: the axis.
        length: of each.
        behind: sizes behind the axis.
    """
    known = next(part for part in parts if part is not None)
    if len(parts) == 1:
        return known
    zeros = emit.zeros_like(known) if None in parts else ""
    joined = emit.concat([emit.unsqueeze(part or zeros, [dim + 1]) for part in parts], dim + 1)
    return reshape(emit, joined, [*[0] * dim, length * len(parts), *behind])


@dataclass(frozen=True)
class Place:
    """Where element k of the windows is: window o has it at o + shift of a phase."""

    phase: int
    shift: int


@dataclass(frozen=True)
class Phases:
    """The phases of a map along one axis, and where the windows along it have their elements.

    Where all sizes are known, phase a holds the positions a, a + stride, ... of the map itself.
    Otherwise they are those of a padded map that begins where the first window does.

    Attributes:
        emit: where to write nodes.
        axis: the windows.
        dim: which axis of the map it is.
        behind: sizes behind it.
    """

    emit: Emitter
    axis: Axis
    dim: int
    behind: tuple[Size, ...]

    @property
    def surplus(self) -> int:
        """How much longer a phase is than there are windows; negative where it is shorter."""
        axis = self.axis
        if axis.is_static:
            return -(-static(axis.size) // axis.stride) - static(axis.count)
        return axis.reach // axis.stride

    @property
    def length(self) -> Size:
        """The length of a phase."""
        return self.axis.count + self.surplus

    def places(self) -> list[Place]:
        """Return the places of the elements of a window, in order; not of what is padding alone."""
        axis = self.axis
        origin = -static(axis.begin) if axis.is_static else 0
        found = [
            Place(phase, shift)
            for shift, phase in (
                divmod(origin + k * axis.dilation, axis.stride) for k in range(axis.kernel)
            )
        ]
        if not axis.is_static:
            return found
        count, length = static(axis.count), static(self.length)
        return [place for place in found if -count < place.shift < length]

    def of(self, x: str, value: float) -> list[str]:
        """Return the phases of a map; a value stands for what is outside of it."""
        emit, axis, length = self.emit, self.axis, self.length
        if axis.is_static:
            x = self._padded(x, 0, static(length) * axis.stride - static(axis.size), value)
        else:
            more = axis.stride - 1
            x = self._padded(x, axis.begin, axis.end + more * (2 if axis.ceil else 1), value)
            x = cut(emit, x, [0], [length * axis.stride], [self.dim]) if more else x
        return taken_apart(emit, x, self.dim, axis.stride, length, self.behind)

    def at(self, phases: Sequence[str], place: Place, value: float) -> str:
        """Return one element of all windows, ``(*before, count, *behind)``."""
        return self._padded(phases[place.phase], -place.shift, place.shift - self.surplus, value)

    def map(self, shares: Sequence[tuple[Place, str]]) -> str:
        """Return the map in which every element of every window has its share, summed.

        Args:
            shares: of one element of all windows each, ``(*before, count, *behind)``.
        """
        parts: dict[int, list[str]] = defaultdict(list)
        for place, share in shares:
            parts[place.phase].append(self._padded(share, place.shift, self.surplus - place.shift))
        phases = [
            self.emit.sum(parts[phase]) if phase in parts else None
            for phase in range(self.axis.stride)
        ]
        together = put_together(self.emit, phases, self.dim, self.length, self.behind)
        return self._cut_to_size(together)

    def _cut_to_size(self, x: str) -> str:
        axis, begin = self.axis, self.axis.begin
        if axis.is_static:
            return self._padded(x, 0, static(axis.size) - static(self.length) * axis.stride)
        if axis.stride == 1 and isinstance(begin, int) and isinstance(axis.end, int):
            return self._padded(x, -begin, -axis.end)
        longer = self._padded(x, 0, axis.stride - 1)
        return cut(self.emit, longer, [begin], [begin + axis.size], [self.dim])

    def _padded(self, x: str, begin: Size, end: Size, value: float = 0.0) -> str:
        before: list[Size] = [0] * self.dim
        behind: list[Size] = [0] * len(self.behind)
        return pad(self.emit, x, [*before, begin, *behind, *before, end, *behind], value)
