"""Pinned subsets: the model is really retrained without each, and kept in the supplement of a sketch version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from app import catalog
from app.catalog import BySubset
from app.db import Database, transaction
from app.erasure import check_retrained
from app.errors import ConflictError
from app.predictor import Artifact as Located
from app.serving import artifact_of
from app.settings import Settings
from app.tables import SketchVersion
from engine import supplements
from engine.documents import Documents
from engine.retrain import Retrain
from engine.retrain import retrain as retrain_here
from engine.store import Artifact
from engine.train import Progress

MOST_PINS: Final = 64
"""Subsets that a build pins: some seconds of retraining at the demo's size."""


@dataclass(frozen=True, kw_only=True)
class Pins:
    """Subsets to pin to a sketch version.

    Attributes:
        label: of the version: "names v1".
        version: where that lies.
        artifact: of the version, opened.
        documents: of its dataset.
        subsets: the unit numbers of each by its name.
        missing: those that aren't pinned yet.
        left_out: how many more the dataset has.
    """

    label: str
    version: Located
    artifact: Artifact
    documents: Documents
    subsets: dict[str, list[int]]
    missing: dict[str, list[int]]
    left_out: int = 0


def one_pin(
    database: Database, settings: Settings, *, dataset: str, subset: str, sketch: str, version: int | None
) -> Pins:
    """One subset.

    Args:
        database: the catalog.
        settings: where artifacts lie.
        dataset: whose subset it is, and which the sketch is of.
        subset: its name.
        sketch: name of the sketch.
        version: number of the version; None is the current one.

    Raises:
        NotFoundError: an unknown name or version.
        ConflictError: the sketch is of another dataset, or the version is retired.
        ArtifactError: the artifact is missing or damaged.
    """
    with transaction(database, writes=False) as session:
        wanted = catalog.get_dataset(session, dataset)
        row = catalog.get_version(session, sketch, version)
        if row.dataset_id != wanted.id:
            raise ConflictError(f"{row.label} is of the dataset {row.dataset.name!r}, not {dataset!r}.")
        return _pins(session, settings, row, [subset])


def all_pins(database: Database, settings: Settings, *, sketch: str, version: int, most: int = MOST_PINS) -> Pins:
    """The subsets of a sketch's dataset, the first `most` of them by name.

    Raises:
        NotFoundError, ConflictError, ArtifactError: as `one_pin`.
    """
    with transaction(database, writes=False) as session:
        row = catalog.get_version(session, sketch, version)
        page = catalog.list_subsets(session, row.dataset, limit=most, offset=0)
        names = [subset.name for subset in page.items]
        return _pins(session, settings, row, names, left_out=page.total - len(names))


def pin(
    database: Database, settings: Settings, pins: Pins, *, retrain: Retrain = retrain_here, progress: Progress
) -> None:
    """Retrain without each subset that isn't pinned yet, and keep the models.

    Args:
        database: the catalog.
        settings: the device.
        pins: what to pin.
        retrain: trains the models, on this machine if nothing is said.
        progress: of the retrains.

    Raises:
        ConflictError: units of the dataset were erased meanwhile.
        EngineError: what the engine refuses: no right to write, a retrain that diverges.
    """
    supplements.add(
        pins.artifact,
        pins.documents,
        list(pins.missing.values()),
        device=settings.device,
        retrain=retrain,
        progress=progress,
    )
    check_retrained(database, pins.version)


def _pins(session: Session, settings: Settings, row: SketchVersion, names: Sequence[str], *, left_out: int = 0) -> Pins:
    artifact, dataset = artifact_of(row, settings.artifacts), row.dataset
    subsets = {name: catalog.resolve_units(session, dataset, BySubset(name)).units for name in names}
    opened = artifact.open(files=())  # a retrain needs the manifest only
    return Pins(
        label=artifact.label,
        version=artifact,
        artifact=opened,
        documents=catalog.load_documents(session, dataset),
        subsets=subsets,
        missing={name: units for name, units in subsets.items() if not supplements.contains(opened, units)},
        left_out=left_out,
    )
