"""One row for each form of GridSample and AffineGrid."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.export.expansion.case import Case


def _sample(
    name: str,
    *,
    x: tuple[int, ...] = (2, 3, 5, 4),
    points: tuple[int, ...] = (2, 3),
    domain: str = "",
    opset: int = 20,
    by_grid: bool = False,
    **attributes: Any,
) -> Case:
    """Return a case whose grid, of points within the map and outside, is an input or constant."""
    return Case(
        f"{domain or 'ai.onnx'}::GridSample {name}",
        "GridSample",
        (x, (x[0], *points, len(points))),
        attributes,
        domain=domain,
        opset=opset,
        variable=(0, 1) if by_grid else (0,),
    )


SAMPLES = (
    *(
        _sample(
            f"{mode}, {padding}, align_corners={aligned}",
            mode=mode,
            padding_mode=padding,
            align_corners=aligned,
            by_grid=mode == "linear",
        )
        for mode in ("linear", "nearest")
        for padding in ("zeros", "border", "reflection")
        for aligned in (0, 1)
    ),
    _sample("of opset 16", opset=16, mode="bilinear", by_grid=True),
    _sample("of opset 22", opset=22),
    _sample("of a volume", x=(2, 2, 3, 2, 4), points=(2, 1, 2), by_grid=True),
    _sample("of one row", x=(2, 3, 1, 4), padding_mode="reflection", align_corners=1),
    _sample("bilinear", domain="com.microsoft", opset=17, mode="bilinear", by_grid=True),
    *(
        Case(
            f"AffineGrid of {'a map' if rank == 2 else 'a volume'}, align_corners={aligned}",
            "AffineGrid",
            ((2, rank, rank + 1), np.array([2, 3, 4, 2, 3][: 2 + rank])),
            {"align_corners": aligned},
            domain="",
            opset=20,
        )
        for rank in (2, 3)
        for aligned in (0, 1)
    ),
)
