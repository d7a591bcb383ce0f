"""Local copies of artifacts that are kept in an object store: of all of one, or of the files that are needed of it."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import ArtifactError
from engine.locations import ObjectStore
from engine.store import MANIFEST, Artifact, Manifest, open_artifact, parse_manifest, verify
from engine.workspace import LOCK

logger = logging.getLogger(__name__)

FETCH_PATIENCE_SECONDS: Final = 60.0
"""How long opening an artifact waits for a store that is away: somebody may wait for the answer. What was fetched
stays, and the next one goes on from there."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where an artifact is found, from any process that shares the directory or reaches the object store.

    Attributes:
        path: its directory; with an origin, of the local copy.
        checksum: SHA-256 of its manifest.
        origin: URL of the artifact in an object store, if it is kept in one.
    """

    path: Path
    checksum: str
    origin: str | None = None

    def open(self, files: Collection[str] | None = None) -> Artifact:
        """Open the artifact with some of its files, or all, verified; what isn't here is fetched.

        Raises:
            ArtifactError: it is missing, damaged, foreign, or can't be fetched.
        """
        if self.origin is None:
            return open_artifact(self.path, checksum=self.checksum, files=files)
        return fetch(self.origin, self.path, checksum=self.checksum, files=files)


def fetch(
    url: str,
    path: Path,
    *,
    checksum: str | None = None,
    files: Collection[str] | None = None,
    patience_seconds: float = FETCH_PATIENCE_SECONDS,
) -> Artifact:
    """Open the local copy of an artifact, after fetching what of it is missing or damaged.

    Where nothing is, the store isn't asked, and may be away. Several processes may do this at once: one fetches.

    Args:
        url: of the artifact.
        path: directory of the copy; made where it isn't there.
        checksum: what the manifest's SHA-256 must be; None accepts any.
        files: names of those that are needed; None is all of them.
        patience_seconds: how long to try again while the store is away.

    Raises:
        ArtifactError: it is missing in the store, damaged there or exchanged, or can't be written here.
        StoreError: the store refuses, or is away.
    """
    wanted = None if files is None else frozenset(files)
    try:
        return _opened(url, path, checksum, wanted)
    except ArtifactError:
        pass
    store = ObjectStore(url, patience_seconds)
    with _held(path):
        try:
            return _opened(url, path, checksum, wanted)  # another process may have fetched it meanwhile
        except ArtifactError as error:
            logger.info("Fetching %s: %s", url, error)
        try:
            for left in path.glob("*.part"):  # by a process that was killed
                left.unlink(missing_ok=True)
        except OSError as error:
            raise ArtifactError(f"The directory {path.name} can't be written: {error.strerror}.") from error
        content = _manifest(store, path, checksum)
        manifest = parse_manifest(content)
        for name in manifest.files if wanted is None else wanted:
            _fetch_file(store, path, name, manifest)
        try:
            (path / f"{MANIFEST}.part").write_bytes(content)
            (path / f"{MANIFEST}.part").rename(path / MANIFEST)
        except OSError as error:
            raise ArtifactError(f"{MANIFEST} can't be written: {error.strerror}.") from error
        return _opened(url, path, checksum, wanted)


def drop_incomplete(path: Path) -> bool:
    """Remove a local copy that lacks files, as where the artifact is gone that it was of; whether that was done.

    An artifact that was built here has all its files; what has them, and what has others, stays.

    Raises:
        ArtifactError: it can't be removed.
    """
    if not path.is_dir() or path.is_symlink():
        return False
    names = {file.name for file in path.iterdir()}
    try:
        needed = open_artifact(path, files=()).manifest.files.keys() if MANIFEST in names else None
    except ArtifactError:
        return False
    others = [name for name in names - {MANIFEST, LOCK} if not name.endswith((".safetensors", ".part"))]
    if others or (needed is not None and needed <= names):
        return False
    with _held(path):
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise ArtifactError(f"The directory {path.name} can't be removed: {error.strerror}.") from error
    return True


def _opened(url: str, path: Path, checksum: str | None, files: frozenset[str] | None) -> Artifact:
    local = open_artifact(path, checksum=checksum, files=files)
    return Artifact(path=path, manifest=local.manifest, checksum=local.checksum, origin=url)


def _manifest(store: ObjectStore, path: Path, checksum: str | None) -> bytes:
    """The manifest's content: the copy's where it is the right one, else the store's."""
    try:
        content = (path / MANIFEST).read_bytes()
        parse_manifest(content)
    except (OSError, ArtifactError):
        content = b""
    if content and checksum in (None, hashlib.sha256(content).hexdigest()):
        return content
    content = store.read(MANIFEST)
    found = hashlib.sha256(content).hexdigest()
    if checksum not in (None, found):
        raise ArtifactError(
            f"The store's manifest.json has SHA-256 {found[:12]}…, expected {checksum[:12]}…: damaged or exchanged."
        )
    return content


def _fetch_file(store: ObjectStore, path: Path, name: str, manifest: Manifest) -> None:
    """Fetch a file, unless it is there and sound; once more where what came is damaged."""
    if name not in manifest.files:
        raise ArtifactError(f"The artifact has no {name}.")
    try:
        verify(path, name, manifest)
        return
    except ArtifactError:
        store.download(name, path / name)
    try:
        verify(path, name, manifest)
    except ArtifactError as error:
        logger.warning("Fetched from %s, and once more: %s", store.url, error)
        store.download(name, path / name)
        try:
            verify(path, name, manifest)
        except ArtifactError as again:
            (path / name).unlink(missing_ok=True)
            raise ArtifactError(f"The store's copy is damaged: {again}") from again


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """A copy's directory, made where it isn't there, held while something is put into it; others wait."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ArtifactError(f"The directory {path.name} can't be written: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
