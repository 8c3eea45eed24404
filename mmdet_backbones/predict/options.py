"""What a user wants of a prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .detector import Detector, number_problems
from .tiling import Tiling


@dataclass(frozen=True)
class PredictOptions:
    """What a user wants.

    Attributes:
        model: Config, work folder, or exported folder.
        sources: Images, folders, patterns, videos, cameras, streams.
        checkpoint: Of the detector; None for that of the work folder.
        device: To run on; None for a GPU if there is one.
        out: File for the boxes, or folder for labels; None to print them.
        format: One of :data:`~.outputs.FORMATS`.
        paint: Folder for painted pictures and videos.
        threshold: Lowest score of a box; None for 0.3, or 0 with ``annotations``,
            since an AP is over all scores.
        classes: Those that are looked for; None for all.
        batch: Images at a time.
        tile: Side of the tiles that larger images are cut into; None to keep them.
        overlap: Part of a tile that it shares with the next.
        annotations: Data set in COCO's format, whose ids the results get.
        force: Replace files that are there.
        trust: Load a detector that was exported for torch.
        fast: As for :meth:`.detector.Detector.load`.
        on_ray: Whether the workers of a Ray cluster find the boxes.
        workers: How many do; None for one on each GPU, or each core if there is none.
    """

    model: str
    sources: tuple[str, ...]
    checkpoint: str | None = None
    device: str | None = None
    out: Path | None = None
    format: str = 'json'
    paint: Path | None = None
    threshold: float | None = None
    classes: tuple[str, ...] | None = None
    batch: int = 1
    tile: int | None = None
    overlap: float = 0.2
    annotations: Path | None = None
    force: bool = False
    trust: bool = False
    fast: bool = False
    on_ray: bool = False
    workers: int | None = None

    def load(self, threads: int | None = None) -> Detector:
        """Load the detector, on so many threads if it is exported."""
        return Detector.load(
            self.model,
            self.device,
            self.checkpoint,
            self.trust,
            self.fast,
            threads,
        )

    @property
    def lowest(self) -> float:
        """Lowest score of a box."""
        if self.threshold is not None:
            return self.threshold
        return 0.3 if self.annotations is None else 0.0

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut, if they are."""
        return None if self.tile is None else Tiling(self.tile, self.overlap)

    def problems(self) -> Iterator[str]:
        """Say which numbers are out of their range."""
        for problem in number_problems(self.threshold, self.batch):
            yield f'--{problem}'
        if self.tiling is not None:
            yield from self.tiling.problems()
        if self.workers is not None and not self.on_ray:
            yield '--workers belongs to --ray: write both'
        elif self.workers is not None and self.workers < 1:
            yield f'--workers is 1 or more, got {self.workers}'
