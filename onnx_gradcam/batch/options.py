"""What is wanted of a batch: how to explain, what to measure, what to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from onnx_gradcam.errors import UsageError, nearest_names
from onnx_gradcam.photo_files import ENCODERS
from onnx_gradcam.runtime.photo import MAX_PIXELS

REGIONS = ("largest", "all")


@dataclass(frozen=True)
class BatchOptions:
    """The same for all images. Part of the manifest: another choice is another batch.

    Attributes:
        classes: indices, ranks (-1 is the highest score) or labels to explain in each image.
        top_k: the k highest scores as well; without any of these, the highest one.
        method: name of the CAM method; None for the default of the file.
        how: further options of `Explainer.explain`: eigen_smooth, aug_smooth, seed, settings,
            layers, fuse_layers.
        threshold: a region is where the heat map is at least this share of its maximum, 0 to 1.
        region: ``largest`` for the largest connected one of these (Zhou et al.,
            arXiv:1512.04150, section 4.2), ``all`` for all together.
        raw_maps: store raw maps in the table, as float16.
        overlays: also write a picture of each heat map, as ``jpg`` or ``png``; None for none.
        arrays: also write the raw maps of each shard, as float32, into an .npz file.
        thumbnails: longer side in pixels of a JPEG of each image in the table; 0 for none.
        max_pixels: larger images are refused before they are decoded.
        shard_size: images per part; what is lost at most when a run is killed.
        batch: images per run of the model; None for what the model takes.
    """

    classes: tuple[int | str, ...] = ()
    top_k: int | None = None
    method: str | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    threshold: float = 0.5
    region: str = "largest"
    raw_maps: bool = True
    overlays: str | None = None
    arrays: bool = False
    thumbnails: int = 0
    max_pixels: int = MAX_PIXELS
    shard_size: int = 1000
    batch: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a model.

        Raises:
            UsageError: a value that makes no sense.
        """
        if not 0 < self.threshold <= 1:
            raise UsageError(f"threshold {self.threshold} is not above 0 and at most 1")
        if self.region not in REGIONS:
            raise UsageError(f"no region {self.region!r}{nearest_names(self.region, REGIONS)}")
        if self.overlays not in {None, *ENCODERS}:
            raise UsageError(f"overlays as {self.overlays!r}: {' or '.join(ENCODERS)}")
        if self.shard_size < 1:
            raise UsageError(f"{self.shard_size} images per shard; take at least one")
        if self.thumbnails < 0 or self.max_pixels < 1:
            raise UsageError("sizes in pixels cannot be negative")

    @property
    def wanted(self) -> list[int | str] | None:
        """The classes as `Explainer.explain_image` takes them."""
        ranks = [-rank for rank in range(1, (self.top_k or 0) + 1)]
        return [*self.classes, *ranks] or None

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON has them."""
        values = asdict(self)
        values["classes"] = list(self.classes)
        values["how"] = {name: values["how"][name] for name in sorted(values["how"])}
        return values
