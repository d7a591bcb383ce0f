"""Where an installation's artifacts lie: in a directory, which is a cache where they are an object store's.

A store says whose it is: an object ``installation`` beside the artifacts holds a digest that the installation's secret
makes. Whoever builds or uploads writes it where there is none; from a store of somebody else's `gc` removes nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import ConfigurationError
from engine.locations import ObjectStore

logger = logging.getLogger(__name__)

OWNER: Final = "installation"


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

    def claim(self, installation: str) -> None:
        """Have the store say that it is an installation's, where it says nothing yet; nothing without a store.

        Args:
            installation: what its secret tells it by.

        Raises:
            StoreError: the store refuses, or is away.
        """
        if self.url is None:
            return
        store = ObjectStore(self.url)
        owner = store.find(OWNER)
        if owner is None and store.create(OWNER, installation.encode()):
            return
        if (owner or store.find(OWNER)) != installation.encode():
            logger.warning("The store is another installation's, whose `sketches gc` may remove what is put there.")

    def check_owner(self, installation: str | None) -> None:
        """Make sure that a store is an installation's, or empty, before anything is removed from it.

        Args:
            installation: what its secret tells it by; None is nobody.

        Raises:
            ConfigurationError: it is another one's, or doesn't say whose it is.
            StoreError: it refuses, or is away.
        """
        if self.url is None:
            return
        store = ObjectStore(self.url)
        owner = store.find(OWNER)
        if owner is None and store.entries(hidden=True):
            raise ConfigurationError(
                "The store doesn't say whose it is, and nothing is removed from it. If it is this installation's, "
                "neverseen sketches upload says so there."
            )
        if owner is not None and (installation is None or owner != installation.encode()):
            raise ConfigurationError(
                "The store is another installation's, which has another secret: nothing is removed from it. If the "
                f"secret was changed, remove the object {OWNER!r} from it, and run neverseen sketches upload."
            )
