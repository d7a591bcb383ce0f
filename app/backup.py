"""A copy of what an installation holds, made while it serves: the catalog, the artifacts that it names, the keys.

    DIRECTORY/catalog.sqlite    the catalog as it was at one moment; of PostgreSQL catalog.dump, made by pg_dump before
    DIRECTORY/artifacts/…       what its rows name, and what was retrained beside that
    DIRECTORY/secret            where it is a file
    DIRECTORY/signing-key.pem   that evidence is signed with, where it is in the data directory

With SQLite that is a data directory to serve from. The catalog comes first: rows are never without their files, so that
what is copied afterwards has all that was named. pg_dump isn't run from here, since it must be as new as the server and
is usually beside it: its file is handed over, so that it is older than what is copied.

Where artifacts lie in an object store, what the artifacts directory lacks, or has damaged, is fetched from there into
the backup: it is whole without the store.

All grows in ``DIRECTORY.partial``, is compared with its checksums, and gets its name once it is on disk.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sqlalchemy import URL, make_url
from sqlalchemy.orm import Session

from app import catalog
from app.artifacts import Artifacts
from app.db import Database, connect, open_database, schema_is_current, transaction
from app.errors import ConflictError, NotFoundError, SchemaError, UnavailableError
from app.settings import Settings
from engine.copies import fetch
from engine.errors import ArtifactError, ConfigurationError, StoreError
from engine.store import Artifact, open_artifact
from engine.supplements import COPY_OF, SUFFIX, directory_at, disown, read, refresh
from engine.train import Progress

_DUMP: Final = b"PGDMP"  # what pg_dump's custom format begins with
_CHUNK_BYTES: Final = 2**20
_SHOWN: Final = frozenset({"dbname", "host", "hostaddr", "port", "sslmode", "user"})
"""What may be said of a database's URL."""


class _GoneError(ArtifactError):
    """A file that isn't there any more."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What was copied.

    Attributes:
        versions: sketch versions whose artifacts were.
        bytes: of all files.
        damaged: what is damaged, a sentence each: such an artifact is left out, a retrained model beside one isn't.
    """

    versions: int
    bytes: int
    damaged: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Named:
    """An artifact that a row names."""

    label: str
    checksum: str
    bytes: int


def back_up(settings: Settings, directory: Path, *, dump: Path | None, progress: Progress) -> Backup:
    """Copy an installation, which may serve and build meanwhile. Nothing in it is changed, nor migrated.

    Args:
        settings: where the catalog, the artifacts and the secret are.
        directory: to make; it and `directory.partial` must not be there.
        dump: of PostgreSQL, the catalog in pg_dump's custom format; None with SQLite.
        progress: called with copied megabytes and all of them.

    Raises:
        ConflictError: the directory is there, or lies where it would be taken for artifacts.
        ConfigurationError: a dump that is missing, not wanted, or none.
        NotFoundError: there is no catalog.
        SchemaError: the catalog is another version's.
        UnavailableError: SQLite can't copy its file.
        ArtifactError: the catalog's file is damaged.
        StoreError: the store of the artifacts refuses, or is away.
        OSError: something can't be written, or not be read for want of a right.
    """
    _check_dump(settings, dump)
    partial = directory.with_name(directory.name + ".partial")
    if directory.exists():
        raise ConflictError(f"{directory.name} is there already; choose another name for the backup.")
    if partial.exists():
        raise ConflictError(f"{partial.name} is there: another backup is being made, or was killed. Then remove it.")
    if directory.resolve().is_relative_to(settings.artifacts_dir.resolve()):
        raise ConflictError("A backup among the artifacts would be taken for leftovers; choose another place.")
    database = _opened(settings)
    partial.mkdir(mode=0o700, parents=True)
    try:
        made = _copied(database, settings, partial, dump, progress)
        for place in (*(path for path in partial.rglob("*") if path.is_dir()), partial):
            _flush(place)
        partial.rename(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        database.dispose()
    _flush(directory.parent)
    return made


def _check_dump(settings: Settings, dump: Path | None) -> None:
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        if dump is not None:
            raise ConfigurationError("The catalog is SQLite's, and is copied from its file: leave out --dump.")
    elif dump is None:
        query = {name: value for name, value in url.query.items() if name in _SHOWN}  # a password may stand there
        shown = URL.create("postgresql", url.username, None, url.host, url.port, url.database, query)
        raise ConfigurationError(
            "The catalog is PostgreSQL's, and is to be dumped first: "
            f"pg_dump --format=custom --file=catalog.dump '{shown.render_as_string()}'. Then give --dump catalog.dump."
        )
    else:
        with dump.open("rb") as file:
            if file.read(len(_DUMP)) != _DUMP:
                raise ConfigurationError(f"{dump.name} isn't what pg_dump --format=custom writes.")


def _opened(settings: Settings) -> Database:
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise NotFoundError("There is no catalog. Is NEVERSEEN_DATA_DIR right, or NEVERSEEN_DATABASE_URL?")
    database = open_database(settings)
    if not schema_is_current(database):
        database.dispose()
        raise SchemaError("The catalog is another version's. Make the backup with the version that serves it.")
    return database


def _copied(database: Database, settings: Settings, target: Path, dump: Path | None, progress: Progress) -> Backup:
    """The catalog, then what it names, then the keys."""
    if dump is None:
        size_bytes = _copy_sqlite(database, target / "catalog.sqlite")
        named = _named_by_copy(target / "catalog.sqlite")
    else:
        size_bytes = _copy(dump, target / "catalog.dump")
        with transaction(database, writes=False) as session:
            named = _named(session)
    (target / "artifacts").mkdir()
    damaged = list(_copy_artifacts(named, settings.artifacts, target / "artifacts", progress))
    whole = [location for location in named if (target / "artifacts" / location).exists()]
    size_bytes += sum(file.stat().st_size for location in whole for file in _files(target / "artifacts" / location))
    secret = settings.data_dir / "secret"
    if settings.secret is None and secret.exists():
        size_bytes += _copy(secret, target / "secret", mode=0o600)
    signing_key = settings.data_dir / "signing-key.pem"
    if settings.signing_key_file == signing_key and signing_key.exists():
        size_bytes += _copy(signing_key, target / signing_key.name, mode=0o600)
    return Backup(versions=len(whole), bytes=size_bytes, damaged=tuple(damaged))


def _copy_sqlite(database: Database, target: Path) -> int:
    """Copy the catalog at one moment; who writes meanwhile isn't held up."""
    connection = database.raw_connection()
    try:
        with closing(sqlite3.connect(target)) as copy:
            source = connection.driver_connection
            assert isinstance(source, sqlite3.Connection)
            source.backup(copy)  # all pages in one step: in several, each write would make it begin again
            found = copy.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"The catalog can't be copied: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise ArtifactError(f"The catalog's file is damaged: {error}.") from error
    finally:
        connection.close()
    if found != "ok":
        raise ArtifactError(f"The catalog's file is damaged: {found}.")
    return target.stat().st_size


def _named_by_copy(path: Path) -> dict[str, _Named]:
    database = connect(URL.create("sqlite", database=str(path)))
    try:
        with transaction(database, writes=False) as session:
            return _named(session)
    finally:
        database.dispose()


def _named(session: Session) -> dict[str, _Named]:
    """The artifacts that rows name, by their location within the artifacts directory."""
    return {
        version.location: _Named(label=version.label, checksum=version.checksum, bytes=version.size_bytes)
        for version in catalog.kept_versions(session)
    }


def _copy_artifacts(
    named: Mapping[str, _Named], artifacts: Artifacts, target: Path, progress: Progress
) -> Iterator[str]:
    """Copy artifacts, and compare the copies with their checksums: what is damaged, a sentence each."""
    source = artifacts.directory
    here = {location: sum(map(_size, _files(source / location))) for location in named}
    planned = {
        location: max(one.bytes, here[location]) if artifacts.url else here[location] for location, one in named.items()
    }
    done, total = 0, sum(planned.values())
    progress(0, _megabytes(total))
    for location, artifact in named.items():
        copy, copied = target / location, 0
        try:
            for file in _files(source / location):  # by now: models that are retrained, or erased, come and go
                copied += _copy_found(file, target / file.relative_to(source), artifacts)
                progress(_megabytes(done + min(copied, planned[location])), _megabytes(total))
            opened = _opened_copy(copy, artifact.checksum, artifacts.origin(location))
            for error in read(opened).damaged:
                yield f"{artifact.label}: of the models retrained beside it, {error}"
        except StoreError:
            raise
        except ArtifactError as error:
            for left_out in (copy, directory_at(copy)):
                shutil.rmtree(left_out, ignore_errors=True)
            yield f"{artifact.label}: {error}"
        done += planned[location]
        progress(_megabytes(done), _megabytes(total))


def _copy_found(file: Path, target: Path, artifacts: Artifacts) -> int:
    """Copy a file of an artifact, or of what was retrained beside it: how many bytes it has.

    A retrained model may go meanwhile, and in a store there is all that is missing here.
    """
    try:
        return _copy(file, target)
    except _GoneError:
        if artifacts.url is None and not file.parent.name.endswith(SUFFIX):
            raise
    except ArtifactError:
        if artifacts.url is None:
            raise
    return 0


def _opened_copy(copy: Path, checksum: str, url: str | None) -> Artifact:
    """The copy of an artifact, after what it lacks was fetched from the store, if there is one."""
    opened = open_artifact(copy, checksum=checksum) if url is None else fetch(url, copy, checksum=checksum)
    refresh(opened)
    disown(copy)  # what is restored isn't to be dropped because a store has lost it
    for file in _files(copy):
        _flush(file)
    return opened


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _files(artifact: Path) -> list[Path]:
    """The files of an artifact, and of what was retrained beside it."""
    # Those that have their names: others are being written.
    return [
        *(path for path in artifact.glob("*") if path.is_file() and path.suffix != ".part"),
        *(path for path in directory_at(artifact).glob("*.safetensors") if path.is_file()),
        *(path for path in directory_at(artifact).glob(COPY_OF) if path.is_file()),
    ]


def _copy(source: Path, target: Path, *, mode: int = 0o666) -> int:
    """Copy a file to the disk: how many bytes it has.

    Raises:
        ArtifactError: the source isn't there any more, or can't be read to its end.
        OSError: the target can't be written, or the source may not be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        reading = source.open("rb")
    except FileNotFoundError as error:
        raise _GoneError(f"{source.name} is missing.") from error
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with reading, os.fdopen(descriptor, "wb") as writing:
        while chunk := _read(reading, source.name):
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
        return writing.tell()


def _read(file: BinaryIO, name: str) -> bytes:
    try:
        return file.read(_CHUNK_BYTES)
    except OSError as error:
        raise ArtifactError(f"{name} can't be read: {error.strerror}.") from error


def _megabytes(count: int) -> int:
    return -(-count // 10**6)


def _flush(path: Path) -> None:
    """Have the system write a file, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
