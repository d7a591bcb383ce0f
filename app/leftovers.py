"""What lies in the artifacts directory and no row of the catalog names: given up, or left by killed builds."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app import catalog
from app.db import Database, transaction
from engine.errors import ConfigurationError
from engine.store import is_being_built, lock_directory, workspace_of
from engine.supplements import directory_at


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A directory that may go.

    Attributes:
        path: of it.
        location: the same within the artifacts directory.
        bytes: that its files take.
        idle_seconds: since something in it changed.
    """

    path: Path
    location: str
    bytes: int
    idle_seconds: float


def find_leftovers(database: Database, artifacts_dir: Path, *, idle_seconds: float) -> list[Leftover]:
    """Directories with files that belong to no version but deleted ones, in the order of their names.

    A build writes its files before its row, and one that was killed goes on from them: what has changed lately, or is
    being worked in, isn't left over. Nor is a directory in which such ones lie: a stray file beside them stays.

    Args:
        database: the catalog.
        artifacts_dir: where artifacts lie.
        idle_seconds: how long nothing may have changed in them.
    """
    found = [_leftover(path, artifacts_dir) for path in sorted(_directories_with_files(artifacts_dir))]
    # After the look at the disk: what was registered meanwhile is named.
    with transaction(database, writes=False) as session:
        kept = _kept(session, artifacts_dir)
    around = {above for path in kept for above in path.parents}
    return [
        one
        for one in found
        if one.path not in kept | around
        and not kept & set(one.path.parents)
        and one.idle_seconds >= idle_seconds
        and not is_being_built(one.path)
    ]


def remove_leftovers(
    database: Database, leftovers: Sequence[Leftover], artifacts_dir: Path, *, idle_seconds: float
) -> list[Leftover]:
    """Remove directories that are still left over, and those above them that are empty then.

    Each has a record in the audit, committed before it goes. No build can begin in one that is being removed.

    Args:
        database: the catalog.
        leftovers: what was found, maybe a while ago.
        artifacts_dir: where artifacts lie.
        idle_seconds: how long nothing may have changed in them, as when they were found.

    Returns:
        What was removed.

    Raises:
        OSError: one can't be removed.
    """
    asked = {one.path for one in leftovers}
    still = [one for one in find_leftovers(database, artifacts_dir, idle_seconds=idle_seconds) if one.path in asked]
    return [one for one in still if _removed(database, one, artifacts_dir)]


def _removed(database: Database, one: Leftover, artifacts_dir: Path) -> bool:
    """Remove a directory, unless it is needed by now; whether that was done."""
    try:
        lock = lock_directory(one.path)
    except ConfigurationError:
        return False
    try:
        with transaction(database) as session:
            if one.path in _kept(session, artifacts_dir):
                return False
            catalog.record(session, "artifact.remove", location=one.location)
        shutil.rmtree(one.path)
    finally:
        os.close(lock)
    for above in one.path.parents:
        if above == artifacts_dir or any(above.iterdir()):
            break
        above.rmdir()
    return True


def _kept(session: Session, artifacts_dir: Path) -> set[Path]:
    """Where the artifacts of versions lie, where they are built, and where their supplements lie."""
    named = {artifacts_dir / location for location in catalog.named_locations(session)}
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


def _leftover(path: Path, artifacts_dir: Path) -> Leftover:
    stats = [entry.stat() for entry in (path, *path.rglob("*"))]
    return Leftover(
        path=path,
        location=path.relative_to(artifacts_dir).as_posix(),
        bytes=sum(stat.st_size for stat in stats[1:]),
        idle_seconds=time.time() - max(stat.st_mtime for stat in stats),
    )
