"""Arithmetic on sizes of which some are known at run time only.

A size is a number or a symbol. Products of symbols are written out (``64*N``), so that they can
be taken apart again; every other result gets a symbol of its own, the same one for the same
operation on the same sizes. So equal symbols mean equal sizes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from onnx_gradcam.gradients.emitter import Dim

INVENTED = "unk__"
"""Start of the symbols that are made up here (as ONNX's own shape inference calls them)."""

_PLAIN = re.compile(r"[^*+\-/(), ]+")


class Sizes:
    """Makes symbols and computes with them.

    Args:
        taken: symbols that the model uses.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """Start without results."""
        self._taken = set(taken)
        self._results: dict[tuple[object, ...], str] = {}
        self._sums: dict[str, tuple[str, int]] = {}
        self._count = 0

    def fresh(self) -> str:
        """Return a symbol for a size nothing is known of."""
        while True:
            name = f"{INVENTED}{self._count}"
            self._count += 1
            if name not in self._taken:
                return name

    def result(self, *operation: object) -> str:
        """Return the symbol for the result of an operation: its name and operands."""
        if operation not in self._results:
            self._results[operation] = self.fresh()
        return self._results[operation]

    def product(self, sizes: Iterable[Dim]) -> Dim:
        """Return the product of sizes, None when one is unknown."""
        coefficient, symbols = 1, []
        for size in sizes:
            if size is None:
                return None
            number, factors = _factors(size)
            coefficient *= number
            symbols += factors
        return self._written(coefficient, sorted(symbols))

    def _written(self, coefficient: int, symbols: list[str]) -> Dim:
        if coefficient == 0 or not symbols:
            return coefficient
        if coefficient == 1 and len(symbols) == 1:
            return symbols[0]
        if not all(_PLAIN.fullmatch(s) for s in symbols):
            return self.result("*", coefficient, *symbols)
        return "*".join([*([] if coefficient == 1 else [str(coefficient)]), *symbols])

    def quotient(self, size: Dim, divisor: Dim) -> Dim:
        """Return ``size // divisor`` of sizes that are not negative."""
        if size is None or divisor is None or divisor == 0:
            return None
        above, symbols = _factors(size)
        below, cancelled = _factors(divisor)
        rest = list(symbols)
        for symbol in cancelled:
            if symbol not in rest:
                return self.result("//", size, divisor)
            rest.remove(symbol)
        if not rest:
            return above // below
        if above % below == 0:
            return self._written(above // below, rest)
        return self.result("//", size, divisor)

    def total(self, size: Dim, other: Dim) -> Dim:
        """Return ``size + other``."""
        if size is None or other is None:
            return None
        if isinstance(size, int) and isinstance(other, int):
            return size + other
        if isinstance(size, int):
            size, other = other, size
        assert isinstance(size, str)
        if not isinstance(other, int):
            return self.result("+", *sorted((size, other)))
        base, offset = self._sums.get(size, (size, 0))
        if offset + other == 0:
            return base
        symbol = self.result("+", base, offset + other)
        self._sums[symbol] = (base, offset + other)
        return symbol

    def difference(self, size: Dim, other: Dim) -> Dim:
        """Return ``size - other``."""
        if isinstance(other, int):
            return self.total(size, -other)
        if size is None or other is None:
            return None
        if size == other:
            return 0
        base, offset = self._sums.get(str(size), (size, 0))
        return offset if base == other else self.result("-", size, other)

    def broadcast(self, shapes: Sequence[tuple[Dim, ...]]) -> tuple[Dim, ...]:
        """Return the shape that shapes have together by NumPy's rules."""
        rank = max(map(len, shapes), default=0)
        padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
        return tuple(self._together(column) for column in zip(*padded, strict=True))

    def _together(self, sizes: Sequence[Dim]) -> Dim:
        wide = list(dict.fromkeys(size for size in sizes if size != 1))
        numbers = [size for size in wide if isinstance(size, int)]
        if numbers:
            return numbers[0]
        if len(wide) == 1:
            return wide[0]
        if not wide:
            return 1
        return None if None in wide else self.result("broadcast", *sorted(map(str, wide)))


def _factors(size: int | str) -> tuple[int, list[str]]:
    """Return the number and the symbols that a size is the product of."""
    if isinstance(size, int):
        return size, []
    parts = size.split("*")
    if len(parts) == 1 or not all(_PLAIN.fullmatch(part) for part in parts):
        return 1, [size]
    numbers = [int(part) for part in parts if part.isdecimal()]
    return math.prod(numbers), [part for part in parts if not part.isdecimal()]


def is_invented(size: Dim) -> bool:
    """Return whether a size is unknown, or a symbol (or a product with one) made up here."""
    return size is None or (isinstance(size, str) and INVENTED in size)
