"""Where artifacts lie: a directory of this machine, or an object store that fsspec speaks to.

A directory is a `Path`. An object store is a URL, ``s3://bucket/prefix``, ``gs://bucket/prefix``, or ``memory://name``,
which lives in this process and is for tests. Credentials and endpoints are the clients' business, which read what they
always read: `AWS_…` variables, `~/.aws`, a machine's role; `GOOGLE_APPLICATION_CREDENTIALS`.

An object is whole or not there: stores give it its name once all of it has come. What is transient, a cut connection or
a store that is busy, is tried again, waiting longer each time; what isn't, no such bucket or no right, is refused at
once. Nothing is remembered of a store's listings.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import fsspec
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from engine.errors import ArtifactError, ConfigurationError, StoreError
from engine.refusals import NO_BUCKET, MissingError, TornError, is_passing, is_unknown, refusal_of

logger = logging.getLogger(__name__)

Location: TypeAlias = Path | str
"""A directory, or the URL of a "directory" of an object store."""

PATIENCE_SECONDS: Final = 300.0
"""How long a store may be away before a build or an upload gives up."""

_CLIENTS: Final = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "memory": ("fsspec", "")}
"""By protocol: the module that speaks it, and the extra that brings that."""

_CLIENT_TRIES: Final = 2
"""Of a single request, by the client: a part of a large file is sooner sent again than the file. For how long a store
may be away is decided here."""

_LONGEST_WAIT_SECONDS: Final = 15.0

Result = TypeVar("Result")


def parse_location(text: str) -> Location:
    """The location that an argument or a setting names; ``file://`` is a directory.

    Raises:
        ConfigurationError: a URL of a kind that isn't known, without a bucket, or whose client isn't installed.
    """
    if "://" not in text:
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc or not parts.path:
            raise ConfigurationError("A file's URL has three slashes and the whole path: file:///srv/artifacts.")
        return Path(unquote(parts.path))
    if parts.scheme not in _CLIENTS:
        raise ConfigurationError(
            f"Artifacts lie in a directory, or at s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, not at {parts.scheme}://."
        )
    if not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(f"The URL of an object store is {parts.scheme}://BUCKET/PREFIX, and nothing more.")
    module, extra = _CLIENTS[parts.scheme]
    if find_spec(module) is None:
        raise ConfigurationError(f"{parts.scheme}:// needs the extra: pip install 'neverseen[{extra}]'.")
    return f"{parts.scheme}://{text.partition('://')[2].rstrip('/')}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An object of a store.

    Attributes:
        bytes: its size.
        changed_at: when it was written, UTC; None where the store doesn't say.
    """

    bytes: int
    changed_at: datetime | None

    def with_version(self, other: Entry) -> Entry:
        """Of this and another version of the same object."""
        times = [time for time in (self.changed_at, other.changed_at) if time is not None]
        return Entry(bytes=self.bytes + other.bytes, changed_at=max(times, default=None))


@dataclass(frozen=True, kw_only=True)
class _Version:
    """A version of an object, or the marker of S3 that it was removed.

    Attributes:
        path: bucket and name of the object.
        version: by which it is known; "null" of objects without versions.
        latest: whether it is what the name stands for.
        marker: whether it says that the object was removed.
        entry: its size, and when it was written.
    """

    path: str
    version: str
    latest: bool
    marker: bool
    entry: Entry


@dataclass(frozen=True)
class ObjectStore:
    """A "directory" of an object store. It opens nothing before it is asked, and may be pickled.

    Attributes:
        url: of it, without a slash at the end.
        patience_seconds: how long to try again while the store is away.
    """

    url: str
    patience_seconds: float = PATIENCE_SECONDS

    def within(self, name: str) -> ObjectStore:
        """A directory in it."""
        return ObjectStore(f"{self.url}/{name}", self.patience_seconds)

    def find(self, name: str) -> bytes | None:
        """An object's content, None where it isn't there.

        Raises:
            StoreError: the store refuses, or is away.
        """
        files, path = self._opened(name)
        try:
            content: bytes = self._persistently(f"{name} can't be read", lambda: files.cat_file(path))
        except MissingError:
            return None
        return content

    def read(self, name: str) -> bytes:
        """An object's content.

        Raises:
            ArtifactError: it isn't there.
            StoreError: the store refuses, or is away.
        """
        content = self.find(name)
        if content is None:
            raise ArtifactError(f"{name} is missing in the store.")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write an object, whole or not at all, in the place of one that may be there.

        Raises:
            StoreError: the store refuses, or is away.
        """
        files, path = self._opened(name)

        def put() -> None:
            files.pipe_file(path, content)
            _compare(files, path, len(content))

        self._write(name, put)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object where there is none; whether that was done. Of several at once one succeeds.

        Raises:
            StoreError: the store refuses, or is away.
        """
        files, path = self._opened(name)

        def put() -> bool:
            try:
                files.pipe_file(path, content, mode="create")
            except FileExistsError:
                return bool(files.cat_file(path) == content)  # the answer to the first try may have been lost
            _compare(files, path, len(content))
            return True

        return self._write(name, put)

    def upload(self, path: Path, name: str) -> None:
        """Write a file as an object, as `write`.

        Raises:
            StoreError: the store refuses, or is away.
            OSError: the file can't be read.
        """
        files, target = self._opened(name)
        size = path.stat().st_size

        def put() -> None:
            files.put_file(str(path), target)
            _compare(files, target, size)

        self._write(name, put, local=path)

    def download(self, name: str, path: Path) -> None:
        """Write an object to a file, which gets its name once all of it is there.

        Raises:
            ArtifactError: it isn't in the store, or the file can't be written.
            StoreError: the store refuses, or is away.
        """
        files, source = self._opened(name)
        temporary = path.with_name(f"{path.name}.{uuid4().hex}.part")

        def get() -> None:
            files.get_file(source, str(temporary))
            if temporary.stat().st_size != files.size(source):
                raise TornError

        try:
            temporary.touch()  # so that what is wrong with the directory is known before the store is asked
            self._persistently(f"{name} can't be read", get, local=temporary)
            temporary.rename(path)
        except MissingError as error:
            raise ArtifactError(f"{name} is missing in the store.") from error
        except OSError as error:
            raise ArtifactError(f"{name} can't be written: {error.strerror or 'no reason given'}.") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def names(self) -> set[str]:
        """Names of the objects in it, not of those in directories in it.

        Raises:
            StoreError: the store refuses, or is away.
        """
        return {name for name in self.entries() if "/" not in name}

    def entries(self, *, hidden: bool = False) -> dict[str, Entry]:
        """All objects in it and in directories in it, by name: ``directory/name``.

        Args:
            hidden: whether to list those, too, of which a bucket that keeps versions has older ones only, with the
                bytes of all versions.

        Raises:
            StoreError: the store refuses, or is away; or an object has a name that no file can have.
        """
        files, path = self._opened()
        try:
            versions = self._versions(f"{path}/") if hidden else None
            if versions is not None:
                return _named(path, ((one.path, one.entry) for one in versions))
            found = self._persistently("The store can't be listed", lambda: files.find(path, detail=True))
        except MissingError:
            return {}
        return _named(
            path,
            ((name, Entry(bytes=int(about["size"]), changed_at=_changed_at(about))) for name, about in found.items()),
        )

    def read_all(self) -> dict[str, bytes]:
        """The contents of the objects in it, by name; many at the same time.

        Raises:
            StoreError: the store refuses, or is away.
        """
        files, path = self._opened()
        names = self.names()
        if not names:
            return {}
        try:
            found = self._persistently(
                "The store can't be read", lambda: files.cat([f"{path}/{name}" for name in names])
            )
        except MissingError:  # removed meanwhile
            return {}
        return {name.removeprefix(path).strip("/"): content for name, content in found.items()}

    def size(self, name: str) -> int | None:
        """Of an object in bytes, None where it isn't there.

        Raises:
            StoreError: the store refuses, or is away.
        """
        files, path = self._opened(name)
        try:
            return int(self._persistently(f"{name} can't be looked at", lambda: files.size(path)))
        except MissingError:
            return None

    def remove(self, *names: str) -> None:
        """Remove objects, those of them that are there, with all versions that a bucket keeps.

        Versions are listed first and removed one by one, the latest last. What can't be removed so isn't hidden either:
        it is found again the next time.

        Raises:
            StoreError: the store refuses, or is away.
        """
        if not names:
            return
        files, path = self._opened()
        wanted = {f"{path}/{name}" for name in names}
        versions = self._versions(f"{path}/{names[0]}" if len(names) == 1 else f"{path}/")
        if versions is not None:
            self._remove_versions(one for one in versions if one.path in wanted)
            return
        for target in sorted(wanted):
            with contextlib.suppress(MissingError):
                self._persistently(
                    f"{target.removeprefix(path)[1:]} can't be removed", functools.partial(files.rm_file, target)
                )

    def remove_hidden(self) -> None:
        """Remove what a bucket that keeps versions keeps of objects that aren't there any more.

        Raises:
            StoreError: the store refuses, or is away.
        """
        _, path = self._opened()
        versions = self._versions(f"{path}/") or []
        there = {one.path for one in versions if one.latest and not one.marker}
        self._remove_versions(one for one in versions if one.path not in there)

    def _versions(self, prefix: str) -> list[_Version] | None:
        """All versions of the objects whose names begin so, the latest ones last; None where a store knows none.

        A bucket of S3 that never kept versions lists one of each object.
        """
        if not self.url.startswith("s3:"):
            return None
        files, _ = self._opened()

        def listed() -> list[_Version] | None:
            try:
                return list(_versions_of_s3(files, prefix))
            except OSError as error:
                if is_unknown(error):  # to a store that keeps none
                    return None
                raise

        try:
            found = self._persistently("The store's versions can't be listed", listed)
        except MissingError:
            return []
        # The latest of all is removed last: what is left when that fails is as visible as it was.
        return None if found is None else sorted(found, key=lambda one: one.latest)

    def _remove_versions(self, versions: Iterable[_Version]) -> None:
        files, path = self._opened()
        for one in versions:
            bucket, key, _ = files.split_path(one.path)
            remove = functools.partial(files.call_s3, "delete_object", Bucket=bucket, Key=key, VersionId=one.version)
            with contextlib.suppress(MissingError):
                self._persistently(f"{one.path.removeprefix(path)[1:]} can't be removed", remove)

    def _opened(self, name: str = "") -> tuple[Any, str]:
        """A client, and what it calls an object. Clients are kept by fsspec, one a thread."""
        files, path = fsspec.url_to_fs(self.url, **_options(self.url))
        if self.url.startswith("s3:"):
            files.retries = _CLIENT_TRIES
        return files, f"{path}/{name}" if name else path

    def _write(self, name: str, put: Callable[[], Result], *, local: Path | None = None) -> Result:
        try:
            return self._persistently(f"{name} can't be written", put, local=local)
        except MissingError as error:
            raise StoreError(f"{name} can't be written: {NO_BUCKET}") from error

    def _persistently(self, what: str, act: Callable[[], Result], *, local: Path | None = None) -> Result:
        """Do something, again while the store is away.

        Args:
            what: can't be done where it fails, in words.
            act: does it.
            local: a file of this machine that takes part: what is wrong with it is no refusal of the store's.
        """

        def tell(state: RetryCallState) -> None:
            assert state.outcome is not None
            error = state.outcome.exception()
            logger.warning("%s: %s. Trying again: %s", self.url, what, type(error).__name__)

        attempts = Retrying(
            retry=retry_if_exception(is_passing),
            stop=stop_after_delay(self.patience_seconds),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_SECONDS),
            before_sleep=tell,
            reraise=True,
        )
        try:
            return attempts(act)
        except Exception as error:
            of_file = isinstance(error, OSError) and local is not None and error.filename == str(local)
            if of_file or (refusal := refusal_of(what, error)) is None:
                raise
            raise refusal from error


def _options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = {"use_listings_cache": False}
    if url.startswith("s3:"):
        configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})  # by FSSPEC_S3_CONFIG_KWARGS
        retries = {"mode": "standard", "total_max_attempts": _CLIENT_TRIES}
        options["config_kwargs"] = {"retries": retries, **configured}
    return options


def _compare(files: Any, path: str, size: int) -> None:
    """What is there must have the size of what was written; the way there is guarded by the clients' own checksums."""
    try:
        found = files.size(path)
    except FileNotFoundError:
        found = None
    if found != size:
        raise TornError


def _versions_of_s3(files: Any, prefix: str) -> Iterator[_Version]:
    """All versions of the objects whose names begin so, as they are listed: of each the latest first."""
    bucket, key, _ = files.split_path(prefix)
    place: dict[str, str] = {}
    while True:
        found = files.call_s3("list_object_versions", Bucket=bucket, Prefix=key, **place)
        for kind in ("Versions", "DeleteMarkers"):
            for one in found.get(kind, ()):
                yield _Version(
                    path=f"{bucket}/{one['Key']}",
                    version=one["VersionId"],
                    latest=one["IsLatest"],
                    marker=kind == "DeleteMarkers",
                    entry=Entry(bytes=one.get("Size", 0), changed_at=_changed_at(one)),
                )
        if not found.get("IsTruncated"):
            return
        place = {"KeyMarker": found["NextKeyMarker"], "VersionIdMarker": found.get("NextVersionIdMarker", "")}


def _named(path: str, found: Iterable[tuple[str, Entry]]) -> dict[str, Entry]:
    """Objects by their names within a directory; those that only stand for directories aren't any.

    Raises:
        StoreError: a name leads elsewhere.
    """
    entries: dict[str, Entry] = {}
    for whole, entry in found:
        name = whole.removeprefix(f"{path}/")
        if whole == path or not name or name.endswith("/"):
            continue
        if not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise StoreError(f"The store holds an object that no file can be named like, {name!r}: remove it there.")
        before = entries.get(name)
        entries[name] = entry if before is None else before.with_version(entry)
    return entries


def _changed_at(about: dict[str, Any]) -> datetime | None:
    for key in ("LastModified", "updated", "mtime", "created"):
        match about.get(key):
            case datetime() as moment:
                return moment.astimezone(UTC)
            case float() | int() as seconds:
                return datetime.fromtimestamp(seconds, UTC)
            case str() as text:
                return datetime.fromisoformat(text).astimezone(UTC)
    return None
