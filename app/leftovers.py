"""What lies in the artifacts directory and no row of the catalog names: given up, or left by killed builds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app import catalog
from app.db import Database, transaction
from engine.store import is_being_built, workspace_of
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
    being worked in, isn't left over.

    Args:
        database: the catalog.
        artifacts_dir: where artifacts lie.
        idle_seconds: how long nothing may have changed in them.
    """
    found = [_leftover(path, artifacts_dir) for path in sorted(_directories_with_files(artifacts_dir))]
    # After the look at the disk: what was registered meanwhile is named.
    with transaction(database, writes=False) as session:
        named = {artifacts_dir / location for location in catalog.named_locations(session)}
    kept = {place for path in named for place in (path, workspace_of(path), directory_at(path))}
    return [
        one
        for one in found
        if one.path not in kept
        and not kept & set(one.path.parents)
        and one.idle_seconds >= idle_seconds
        and not is_being_built(one.path)
    ]


def remove_leftovers(leftovers: Sequence[Leftover], artifacts_dir: Path) -> None:
    """Remove directories, and those above them that are empty then.

    Raises:
        OSError: one can't be removed.
    """
    for one in leftovers:
        shutil.rmtree(one.path)
        for above in one.path.parents:
            if above == artifacts_dir or any(above.iterdir()):
                break
            above.rmdir()


def _directories_with_files(directory: Path) -> Iterator[Path]:
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            if any(entry.is_file() for entry in path.iterdir()):
                yield path
            else:
                yield from _directories_with_files(path)


def _leftover(path: Path, artifacts_dir: Path) -> Leftover:
    stats = [entry.stat() for entry in (path, *path.rglob("*"))]
    return Leftover(
        path=path,
        location=path.relative_to(artifacts_dir).as_posix(),
        bytes=sum(stat.st_size for stat in stats[1:]),
        idle_seconds=time.time() - max(stat.st_mtime for stat in stats),
    )
