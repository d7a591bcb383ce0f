"""From the names in a question to a sketch version and units, from memory as far as nothing can have moved.

What is in the catalog never changes, but for which version is current, which is retired, and what is erased. So one
small row is read for each question, the version's id and state, and how many units of its dataset were erased, as they
are committed at that moment, whoever committed them; what is remembered from before an erasure is forgotten; a version
that has just been promoted answers from when it is resident (`app.serving`). All else is remembered: what a version
is, a dataset's units and documents, and what a subset deletes. What isn't remembered yet, and whatever has to be
refused, goes through the catalog in a transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from app import catalog
from app.artifacts import Artifacts
from app.catalog import BySubset, Deletion, HeldMembership, ResolvedDeletion
from app.db import Database, transaction
from app.kept import KeptReader
from app.predictor import Artifact
from app.serving import Serving, artifact_of
from app.tables import Dataset, SketchVersion
from engine.cache import ByteCache

_MEMBERSHIP_BYTES: Final = 64 * 2**20
"""For the units and documents of datasets: some 300,000 units. Larger datasets are asked of the database."""

_SUBSET_BYTES: Final = 16 * 2**20
_VERSION_BYTES: Final = 2**20
_BYTES_OF_UNIT_NUMBER, _BYTES_OF_ENTRY = 40, 1_000


@dataclass(frozen=True, kw_only=True)
class Version:
    """What of a sketch version never changes.

    Attributes:
        sketch: name of the sketch.
        number: of the version.
        artifact: what the predictor must know of it.
        dataset: its dataset's row, no longer of any session; how much of it was erased may change.
        contains_erased: whether any of it was, when this was read.
    """

    sketch: str
    number: int
    artifact: Artifact
    dataset: Dataset
    contains_erased: bool


@dataclass(frozen=True, kw_only=True)
class _Standing:
    """What of a version that is served may change.

    Attributes:
        version_id: its key.
        erased: how many units of its dataset were erased.
    """

    version_id: int
    erased: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """A version that is served, and what of its dataset is deleted."""

    version: Version
    deletion: ResolvedDeletion


class Lookup:
    """Finds what questions name. Safe to use from several threads."""

    def __init__(self, database: Database, artifacts: Artifacts, serving: Serving) -> None:
        """Nothing is remembered yet.

        Args:
            database: the catalog.
            artifacts: where they lie.
            serving: which version answers for the current one.
        """
        self._database, self._artifacts, self._serving = database, artifacts, serving
        self._reader = KeptReader(database)
        # By how many units were erased, too: nothing that was read before an erasure answers after it.
        self._versions: ByteCache[_Standing, Version] = ByteCache(_VERSION_BYTES, size=lambda _: _BYTES_OF_ENTRY)
        self._memberships: ByteCache[tuple[int, int], HeldMembership] = ByteCache(
            _MEMBERSHIP_BYTES, size=lambda held: catalog.held_bytes(held.dataset)
        )
        self._subsets: ByteCache[tuple[int, int, str], ResolvedDeletion] = ByteCache(
            _SUBSET_BYTES, size=lambda deletion: _BYTES_OF_ENTRY + _BYTES_OF_UNIT_NUMBER * len(deletion.units)
        )

    def find(self, sketch: str, number: int | None, delete: Deletion) -> Found:
        """A version of a sketch and the units that a deletion takes away.

        Args:
            sketch: its name.
            number: of the version; None is the current one.
            delete: what to delete of the sketch's dataset.

        Raises:
            NotFoundError: an unknown sketch, version, subset or unit.
            DeletionSetError: as `catalog.resolve_units`.
            ConflictError: the version is retired.
        """
        standing = self._ready_version(sketch, number, connect=True)
        if standing is None:
            return self._asked(sketch, number, delete)
        version = self._versions.get(standing, lambda: self._version(standing.version_id))
        return self.resolve(version, delete)

    def resolve(self, version: Version, delete: Deletion) -> Found:
        """The units that a deletion takes away from what a version was built from.

        Raises:
            NotFoundError: an unknown subset or unit.
            DeletionSetError: as `catalog.resolve_units`.
        """
        return Found(version=version, deletion=self._resolved(version.dataset, delete))

    def find_version(self, sketch: str, number: int | None) -> Version:
        """A version of a sketch, for a question that deletes nothing in particular.

        Raises:
            NotFoundError: an unknown sketch or version.
            ConflictError: the version is retired.
        """
        standing = self._ready_version(sketch, number, connect=True)
        if standing is not None:
            return self._versions.get(standing, lambda: self._version(standing.version_id))
        with transaction(self._database, writes=False) as session:
            return self._described(self._row(session, sketch, number))

    def remembered(self, sketch: str, number: int | None, delete: Deletion) -> Found | None:
        """What `find` gives, where it takes no more than one reading; None where it may take longer, or refuse.

        Raises:
            NotFoundError: an unknown unit.
            DeletionSetError: as `catalog.resolve_units`.
        """
        standing = self._ready_version(sketch, number, connect=False)
        version = None if standing is None else self._versions.peek(standing)
        if version is None:
            return None
        if isinstance(delete, BySubset):
            deletion = self._subsets.peek((*_of_dataset(version.dataset), delete.name))
        else:
            held = self._memberships.peek(_of_dataset(version.dataset))
            deletion = None if held is None else catalog.resolve_named(held, delete)
        return None if deletion is None else Found(version=version, deletion=deletion)

    def forget(self, erased: dict[int, int]) -> None:
        """Forget what was read of datasets before units of them were erased; a version's row tells nothing of them.

        Args:
            erased: how many units were, by the id of the dataset.
        """
        self._memberships.drop(lambda key: key[1] != erased.get(key[0], 0))
        self._subsets.drop(lambda key: key[1] != erased.get(key[0], 0))

    def _ready_version(self, sketch: str, number: int | None, *, connect: bool) -> _Standing | None:
        """A version that is served, as it is committed now; None where there is none or it isn't known."""
        if number is not None:
            parameters = {"sketch": sketch, "number": number}
            return _ready(self._reader.row(catalog.NUMBERED_STANDING, parameters, connect=connect))
        current = _ready(self._reader.row(catalog.CURRENT_STANDING, {"sketch": sketch}, connect=connect))
        if current is None:
            return None
        served = self._serving.version_for(sketch, current.version_id)
        if served == current.version_id:
            return current
        # Loading the current one takes a moment; meanwhile what was current before answers, if it still may.
        return _ready(self._reader.row(catalog.STANDING_OF_ID, {"version_id": served}, connect=connect)) or current

    def close(self) -> None:
        """Let go of the database."""
        self._reader.close()

    def _resolved(self, dataset: Dataset, delete: Deletion) -> ResolvedDeletion:
        if isinstance(delete, BySubset):
            key = (*_of_dataset(dataset), delete.name)
            return self._subsets.get(key, lambda: self._resolved_by_catalog(dataset, delete))
        if catalog.held_bytes(dataset) > _MEMBERSHIP_BYTES // 2:
            return self._resolved_by_catalog(dataset, delete)
        held = self._memberships.get(_of_dataset(dataset), lambda: self._membership(dataset))
        return catalog.resolve_named(held, delete)

    def _resolved_by_catalog(self, dataset: Dataset, delete: Deletion) -> ResolvedDeletion:
        with transaction(self._database, writes=False) as session:
            return catalog.resolve_units(session, dataset, delete)

    def _membership(self, dataset: Dataset) -> HeldMembership:
        with transaction(self._database, writes=False) as session:
            return catalog.hold_membership(session, dataset)

    def _version(self, version_id: int) -> Version:
        with transaction(self._database, writes=False) as session:
            return self._described(catalog.get_version_of_id(session, version_id))

    def _asked(self, sketch: str, number: int | None, delete: Deletion) -> Found:
        """All of it asked of the catalog, which says why where there is nothing to find."""
        with transaction(self._database, writes=False) as session:
            row = self._row(session, sketch, number)
            deletion = catalog.resolve_units(session, row.dataset, delete)
            return Found(version=self._described(row), deletion=deletion)

    def _row(self, session: Session, sketch: str, number: int | None) -> SketchVersion:
        row = catalog.get_version(session, sketch, number)
        if number is not None:
            return row
        served = self._serving.version_for(sketch, row.id)
        if served == row.id:
            return row
        before = catalog.get_version_of_id(session, served)
        return before if before.state == "ready" else row

    def _described(self, row: SketchVersion) -> Version:
        return Version(
            sketch=row.sketch.name,
            number=row.number,
            artifact=artifact_of(row, self._artifacts),
            dataset=row.dataset,
            contains_erased=row.contains_erased,
        )


def _of_dataset(dataset: Dataset) -> tuple[int, int]:
    """What is remembered of a dataset is remembered by: its id, and how many of its units were erased."""
    return dataset.id, dataset.erased_units


def _ready(standing: tuple[Any, ...] | None) -> _Standing | None:
    if standing is None or standing[1] != "ready":
        return None
    return _Standing(version_id=standing[0], erased=standing[2])
