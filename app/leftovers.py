"""What lies among the artifacts and no row of the catalog names: given up, or left by killed builds.

In the artifacts directory, and in the object store where there is one. The directory is then a copy: what goes from the
store goes from it, too.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sqlalchemy.orm import Session

from app import catalog
from app.artifacts import Artifacts
from app.db import Database, transaction
from engine.errors import ConfigurationError
from engine.locations import Entry, ObjectStore
from engine.remote import BUILDING, PLAN
from engine.store import MANIFEST
from engine.supplements import directory_at
from engine.workspace import is_being_built, lock_directory, workspace_of


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A directory that may go.

    Attributes:
        path: of it; None where it is one of the store.
        location: the same within the artifacts directory, or the store.
        bytes: that its files take.
        idle_seconds: since something in it changed.
    """

    path: Path | None
    location: str
    bytes: int
    idle_seconds: float

    @property
    def name(self) -> str:
        """Its location, for people."""
        return self.location if self.path is not None else f"{self.location} (in the store)"


def find_leftovers(database: Database, artifacts: Artifacts, *, idle_seconds: float) -> list[Leftover]:
    """Directories with files that belong to no version but deleted ones, in the order of their names; the store's last.

    A build writes its files before its row, and one that was killed goes on from them: what has changed lately, or is
    being worked in, isn't left over. Nor is a directory in which such ones lie: a stray file beside them stays. In the
    store nothing is held that is being worked in, and what has other files in it than artifacts have isn't left over.

    Args:
        database: the catalog.
        artifacts: where they lie.
        idle_seconds: how long nothing may have changed in them.

    Raises:
        StoreError: the store refuses, or is away.
    """
    directory = artifacts.directory
    found = {path: _leftover(path, directory) for path in sorted(_directories_with_files(directory))}
    stored = [] if artifacts.url is None else _stored(ObjectStore(artifacts.url))
    # After the look at the disk and the store: what was registered meanwhile is named.
    with transaction(database, writes=False) as session:
        kept = _kept(session, directory)
        named = _named(session)
    around = {above for path in kept for above in path.parents}
    here = [
        one
        for path, one in found.items()
        if path not in kept | around
        and not kept & set(path.parents)
        and one.idle_seconds >= idle_seconds
        and not is_being_built(path)
    ]
    within = [
        one
        for one in stored
        if not named & {one.location, *map(str, PurePosixPath(one.location).parents)}
        and one.idle_seconds >= idle_seconds
    ]
    return here + within


def remove_leftovers(
    database: Database, leftovers: Sequence[Leftover], artifacts: Artifacts, *, idle_seconds: float
) -> list[Leftover]:
    """Remove directories that are still left over, and those above them that are empty then.

    Each has a record in the audit, committed before it goes. No build can begin in one that is being removed.

    Args:
        database: the catalog.
        leftovers: what was found, maybe a while ago.
        artifacts: where they lie.
        idle_seconds: how long nothing may have changed in them, as when they were found.

    Returns:
        What was removed.

    Raises:
        OSError: one can't be removed.
        StoreError: the store refuses, or is away.
    """
    asked = {one.name for one in leftovers}
    still = [one for one in find_leftovers(database, artifacts, idle_seconds=idle_seconds) if one.name in asked]
    return [one for one in still if _removed(database, one, artifacts)]


def _removed(database: Database, one: Leftover, artifacts: Artifacts) -> bool:
    """Remove a directory, unless it is needed by now; whether that was done."""
    if one.path is None:
        assert artifacts.url is not None
        return _removed_from_store(database, one, ObjectStore(artifacts.url))
    try:
        lock = lock_directory(one.path)
    except ConfigurationError:
        return False
    try:
        with transaction(database) as session:
            if one.path in _kept(session, artifacts.directory):
                return False
            catalog.record(session, "artifact.remove", location=one.location)
        shutil.rmtree(one.path)
    finally:
        os.close(lock)
    for above in one.path.parents:
        if above == artifacts.directory or any(above.iterdir()):
            break
        above.rmdir()
    return True


def _removed_from_store(database: Database, one: Leftover, store: ObjectStore) -> bool:
    with transaction(database) as session:
        if one.location in _named(session):
            return False
        catalog.record(session, "artifact.remove", location=one.location)
    place = store.within(one.location)
    for name in sorted(place.entries(), key=lambda name: name != MANIFEST):  # without its manifest it is no artifact
        place.remove(name)
    return True


def _named(session: Session) -> set[str]:
    """Where the artifacts of versions and their supplements lie in the store."""
    named = catalog.named_locations(session)
    return named | {directory_at(Path(location)).as_posix() for location in named}


def _stored(store: ObjectStore) -> list[Leftover]:
    """The directories of a store that hold what artifacts are made of, and nothing else, nor further directories."""
    found: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
    for name, entry in store.entries().items():
        directory, _, file = name.rpartition("/")
        if f"/{BUILDING}" in directory:
            directory, _, file = name.partition(f"/{BUILDING}")
        found[directory][file] = entry
    return [
        _stored_leftover(location, entries.values())
        for location, entries in sorted(found.items())
        if location
        and all(_is_ours(name) for name in entries)
        and not any(other.startswith(f"{location}/") for other in found)
    ]


def _is_ours(name: str) -> bool:
    return name in {MANIFEST, PLAN} or name.startswith("/") or name.endswith(".safetensors")


def _stored_leftover(location: str, entries: Collection[Entry]) -> Leftover:
    now = time.time()
    changed = [now if entry.changed_at is None else entry.changed_at.timestamp() for entry in entries]
    return Leftover(
        path=None,
        location=location,
        bytes=sum(entry.bytes for entry in entries),
        idle_seconds=now - max(changed),
    )


def _kept(session: Session, directory: Path) -> set[Path]:
    """Where the artifacts of versions lie, where they are built, and where their supplements lie."""
    named = {directory / location for location in catalog.named_locations(session)}
    return {place for path in named for place in (path, workspace_of(path), directory_at(path))}


def _directories_with_files(directory: Path) -> Iterator[Path]:
    """Those in which no further ones lie: an artifact is one directory, and what is around it isn't its."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            within = list(_directories_with_files(path))
            if within:
                yield from within
            elif any(entry.is_file() for entry in path.iterdir()):
                yield path


def _leftover(path: Path, directory: Path) -> Leftover:
    stats = [entry.stat() for entry in (path, *path.rglob("*"))]
    return Leftover(
        path=path,
        location=path.relative_to(directory).as_posix(),
        bytes=sum(stat.st_size for stat in stats[1:]),
        idle_seconds=time.time() - max(stat.st_mtime for stat in stats),
    )
