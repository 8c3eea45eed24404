"""Which image an annotation file belongs to."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ..records import LEFT_OUT, Notes, Record
from ..survey import Survey

# Folders that say what is in them, not to which part of the data it belongs.
_ROLES = {
    *('annotations', 'annotation', 'labels', 'label', 'xml', 'xmls', 'json', 'jsons'),
    *('jpegimages', 'images', 'image', 'img', 'imgs', 'txt', 'bboxes'),
}


class Pairing:
    """Gives every annotation file its image, and every image to one file only.

    Args:
        found: The folder's files.
        notes: Where problems go.
    """

    def __init__(self, found: Survey, notes: Notes) -> None:
        self.found = found
        self.notes = notes
        self.taken: dict[str, str] = {}

    def image(self, annotation: str, named: str | None = None) -> str | None:
        """Return the image of an annotation file; None, and a note, without one.

        Args:
            annotation: The file.
            named: The image as the file itself calls it; only its last part counts.
        """
        own = PurePosixPath((named or '').replace('\\', '/')).name
        stem = Path(annotation).stem
        candidates = self.found.stems.get(stem) or self.found.stems.get(Path(own).stem)
        if not candidates:
            self.notes.add(annotation, f'no image for it (looked for {own or stem})')
            return None
        near = [c for c in candidates if _place(c) == _place(annotation)]
        if not near and len(candidates) > 1:
            listed = ', '.join(candidates)
            self.notes.add(annotation, f'duplicate name: it may belong to {listed}')
            for candidate in candidates:
                self.notes.add(
                    candidate, f'duplicate name: {annotation} may be its own'
                )
            return None
        near = near or candidates
        image = next((n for n in near if PurePosixPath(n).name == own), near[0])
        for other in near:
            if other != image:
                self.notes.add(other, f'duplicate name: {annotation} is of {image}')
        return self._take(annotation, image)

    def _take(self, annotation: str, image: str) -> str | None:
        if image in self.taken:
            first = self.taken[image]
            self.notes.add(annotation, f'duplicate name: {image} is read from {first}')
            return None
        self.taken[image] = annotation
        return image

    def rest(self) -> list[str]:
        """Return the images that no file annotates and no note mentions."""
        return [
            image
            for image in self.found.images
            if image not in self.taken and not self.notes.mentions(image)
        ]

    def note_rest(self, records: list[Record]) -> list[Record]:
        """Note the images without annotation, which are no part of the data."""
        for image in self.rest():
            self.notes.add(image, 'image without annotation', LEFT_OUT)
        return records


def _place(name: str) -> tuple[str, ...]:
    parts = (part.lower() for part in PurePosixPath(name).parent.parts)
    return tuple(part for part in parts if part not in _ROLES)
