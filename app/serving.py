"""From the catalog's rows to resident artifacts: what the predictor is given to serve."""

from __future__ import annotations

import logging
from pathlib import Path
from time import perf_counter

from app import catalog
from app.db import Database, transaction
from app.errors import ConflictError
from app.predictor import Artifact, Predictor
from app.tables import SketchVersion
from engine.errors import ArtifactError

logger = logging.getLogger(__name__)


def artifact_of(version: SketchVersion, artifacts_dir: Path) -> Artifact:
    """What the predictor must know of a version.

    Raises:
        ConflictError: the version is retired.
    """
    if version.state != "ready":
        raise ConflictError(f"{version.label} is {version.state} and isn't served; ask the current version.")
    return Artifact(
        version_id=version.id,
        label=version.label,
        path=artifacts_dir / version.location,
        checksum=version.checksum,
    )


def load_current(database: Database, predictor: Predictor, artifacts_dir: Path) -> None:
    """Make the current versions of all sketches resident, logging each; a damaged one keeps no other from serving."""
    with transaction(database, writes=False) as session:
        artifacts = [artifact_of(version, artifacts_dir) for version in catalog.current_versions(session)]
    for artifact in artifacts:
        started = perf_counter()
        try:
            loaded = predictor.load(artifact)
        except ArtifactError as error:
            logger.error("Not served: %s", error)
        else:
            logger.info("Loaded %s: %.1f MB in %.2f s", loaded.label, loaded.bytes / 1e6, perf_counter() - started)
