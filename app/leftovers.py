"""What lies among the artifacts and no row of the catalog names: given up, or left by killed builds.

In the artifacts directory, and in the object store where there is one. The directory is then a copy: what goes from the
store goes from it, too. From a store of another installation nothing is removed (`app.artifacts`).
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
from engine.remote import BUILDING
from engine.store import MANIFEST, PLAN
from engine.supplement_file import is_file_name
from engine.supplements import SUFFIX, directory_at
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


def find_leftovers(
    database: Database, artifacts: Artifacts, *, idle_seconds: float, installation: str | None = None
) -> list[Leftover]:
    """Directories with files that belong to no version but deleted ones, in the order of their names; the store's last.

    A build writes its files before its row, and one that was killed goes on from them: what has changed lately, or is
    being worked in, isn't left over. Nor is a directory in which such ones lie: a stray file beside them stays. In the
    store nothing is held that is being worked in, and only what builds or retrains have left is left over: what has
    other files in it, or nothing that tells it from other people's, isn't.

    Args:
        database: the catalog.
        artifacts: where they lie.
        idle_seconds: how long nothing may have changed in them.
        installation: what its secret tells it by; needed where there is a store.

    Raises:
        ConfigurationError: the store is another installation's, or doesn't say whose it is.
        StoreError: the store refuses, or is away.
    """
    artifacts.check_owner(installation)
    directory = artifacts.directory
    looked = {path: _leftover(path, directory) for path in sorted(_directories_with_files(directory))}
    found = {path: one for path, one in looked.items() if one is not None}  # else it went meanwhile
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
    database: Database,
    leftovers: Sequence[Leftover],
    artifacts: Artifacts,
    *,
    idle_seconds: float,
    installation: str | None = None,
) -> list[Leftover]:
    """Remove directories that are still left over, and those above them that are empty then.

    Each has a record in the audit, committed before it goes. No build can begin in one that is being removed.

    Args:
        database: the catalog.
        leftovers: what was found, maybe a while ago.
        artifacts: where they lie.
        idle_seconds: how long nothing may have changed in them, as when they were found.
        installation: as they were found.

    Returns:
        What was removed.

    Raises:
        ConfigurationError: as `find_leftovers`.
        OSError: one can't be removed.
        StoreError: the store refuses, or is away.
    """
    asked = {one.name for one in leftovers}
    found = find_leftovers(database, artifacts, idle_seconds=idle_seconds, installation=installation)
    return [one for one in found if one.name in asked and _removed(database, one, artifacts)]


def _removed(database: Database, one: Leftover, artifacts: Artifacts) -> bool:
    """Remove a directory, unless it is needed by now; whether that was done."""
    if one.path is None:
        assert artifacts.url is not None
        return _removed_from_store(database, one, ObjectStore(artifacts.url))
    try:
        lock = lock_directory(one.path)
    except (ConfigurationError, FileNotFoundError):  # it is worked in, or went meanwhile
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
    names = place.entries(hidden=True)
    place.remove(MANIFEST)  # first: without it it is no artifact
    place.remove(*names)
    return True


def _named(session: Session) -> set[str]:
    """Where the artifacts of versions and their supplements lie in the store."""
    named = catalog.named_locations(session)
    return named | {directory_at(Path(location)).as_posix() for location in named}


def _stored(store: ObjectStore) -> list[Leftover]:
    """The directories of a store that hold what artifacts are made of, and nothing else, nor further directories.

    What a bucket that keeps versions has hidden counts: it goes, too.
    """
    found: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
    for name, entry in store.entries(hidden=True).items():
        directory, _, file = name.rpartition("/")
        if f"/{BUILDING}" in directory:
            directory, _, file = name.partition(f"/{BUILDING}")
        found[directory][file] = entry
    return [
        _stored_leftover(location, entries.values())
        for location, entries in sorted(found.items())
        if location
        and _is_ours(location, entries.keys())
        and not any(other.startswith(f"{location}/") for other in found)
    ]


def _is_ours(location: str, names: Collection[str]) -> bool:
    """Whether a directory of a store holds a supplement, or a build's files; names in `.building` have a slash."""
    if location.endswith(SUFFIX):
        return all(map(is_file_name, names))
    of_builds = {name for name in names if name in {MANIFEST, PLAN} or name.startswith("/")}
    return bool(of_builds) and all(name.endswith(".safetensors") for name in set(names) - of_builds)


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
    for path in _within(directory):
        if path.is_dir() and not path.is_symlink():
            within = list(_directories_with_files(path))
            if within:
                yield from within
            elif any(entry.is_file() for entry in _within(path)):
                yield path


def _within(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # it went meanwhile
        return []


def _leftover(path: Path, directory: Path) -> Leftover | None:
    """What is known of a directory; None where it isn't there any more. A build beside may write and rename in it."""
    about = _about(path)
    if about is None:
        return None
    entries = [found for entry in path.rglob("*") if (found := _about(entry)) is not None]
    return Leftover(
        path=path,
        location=path.relative_to(directory).as_posix(),
        bytes=sum(one.st_size for one in entries),
        idle_seconds=time.time() - max(one.st_mtime for one in (about, *entries)),
    )


def _about(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()  # a link may lead nowhere
    except FileNotFoundError:
        return None
