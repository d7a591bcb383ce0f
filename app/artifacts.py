"""Where an installation's artifacts lie: in a directory, which is a cache where they are an object store's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """The place of all artifacts.

    Attributes:
        directory: of this machine.
        url: of the object store; None where there is none, and the directory is all.
    """

    directory: Path
    url: str | None = None

    def path(self, location: str) -> Path:
        """Directory of an artifact, or of its local copy, by its location in the catalog."""
        return self.directory / location

    def origin(self, location: str) -> str | None:
        """URL of an artifact, where there is a store."""
        return None if self.url is None else f"{self.url}/{location}"
