"""The directory in which a build grows, until it gets the artifact's name, and the files that workers write there.

    <name>.partial/plan.json                     whose place it is
    <name>.partial/lock                          held by the process that builds
    <name>.partial/<file>.<digest>.safetensors   a finished file of one plan; it gets the artifact's name at the end
    <name>.partial/seconds.json                  time spent

What is here is complete: a file gets its name once it is on the disk. The digest is the plan's. So whoever writes late
(a node that was cut off, a process of a machine whose locks aren't seen here) leaves nothing that another plan's build
would take for its own, and is told that the place was taken. `engine.remote` is the same in an object store.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from uuid import uuid4

from torch import Tensor

from engine.errors import ArtifactError, ConfigurationError
from engine.store import (
    MANIFEST,
    PLAN,
    Artifact,
    File,
    Manifest,
    Plan,
    described,
    flush,
    plan_digest,
    reason,
    save_tensors,
    serialised_manifest,
    serialised_plan,
)

LOCK: Final = "lock"

_SECONDS: Final = "seconds.json"
_TENSORS: Final = ".safetensors"
_TAKEN: Final = "Another build has taken this place; wait for it, or choose another."
_HELD: Final = "Another process is building this artifact; wait for it, or choose another place."


class BlockFiles(Protocol):
    """Where the tensor files of a build lie. It may be pickled: workers use it, in processes and on other machines."""

    def find(self, name: str) -> File | None:
        """Size and SHA-256 of a finished file; None where it isn't finished."""
        ...

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """Write a safetensors file, whole or not at all; its size and SHA-256.

        Raises:
            ArtifactError: it can't be written.
        """
        ...


@dataclass(frozen=True)
class LocalFiles:
    """Files of a build in a directory.

    Attributes:
        path: the directory.
        plan: digest of the plan that they are of.
    """

    path: Path
    plan: str

    def find(self, name: str) -> File | None:
        """Size and SHA-256 of a finished file; None where it isn't finished.

        Raises:
            ConfigurationError: another build has taken the place.
        """
        self.check_place()
        try:
            return described(self.place_of(name))
        except FileNotFoundError:
            return None

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """Write a safetensors file; its size and SHA-256.

        Raises:
            ConfigurationError: another build has taken the place.
            ArtifactError: as `save_tensors`.
        """
        self.check_place()
        path = self.place_of(name)
        # Named apart from what another worker may write at the same time.
        temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
        save_tensors(path, tensors, temporary=temporary, name=name)
        try:
            self.check_place()
        except ConfigurationError:
            path.unlink(missing_ok=True)
            raise
        return described(path)

    def place_of(self, name: str) -> Path:
        """Where a file lies until the artifact is published."""
        return self.path / f"{name.removesuffix(_TENSORS)}.{self.plan}{_TENSORS}"

    def finished(self) -> dict[str, Path]:
        """Where the finished files lie, by their names."""
        ending = f".{self.plan}{_TENSORS}"
        return {path.name.removesuffix(ending) + _TENSORS: path for path in sorted(self.path.glob(f"*{ending}"))}

    def check_place(self) -> None:
        """Make sure that no build of another plan works here.

        Raises:
            ConfigurationError: one does.
        """
        with contextlib.suppress(OSError):  # what isn't there can't be written either, which says more
            if plan_digest((self.path / PLAN).read_bytes()) != self.plan:
                raise ConfigurationError(_TAKEN)


def finished_files(destination: Path) -> set[str]:
    """Names of the tensor files that there are already: an artifact's, or those that a killed build has left.

    A build of another plan at the same place isn't told apart: it would be begun anew.
    """
    built = {path.name for path in destination.glob(f"*{_TENSORS}")}
    return built | {name for name, _ in _left(workspace_of(destination))}


def _left(path: Path) -> Iterator[tuple[str, Path]]:
    """Names of the files of any plan in a workspace, and where they lie."""
    for place in path.glob(f"*.*{_TENSORS}"):
        yield place.name.partition(".")[0] + _TENSORS, place


def is_being_built(path: Path) -> bool:
    """Whether a process works in a directory, as in a `Workspace`."""
    if not (path / LOCK).exists():
        return False
    try:
        os.close(lock_directory(path))
    except (ConfigurationError, PermissionError):  # maybe by somebody else
        return True
    except FileNotFoundError:
        pass
    return False


class Workspace:
    """The directory in which a build grows, until `publish` gives it its name.

    Only one process may hold it; blocks that a killed build finished are found again by the next one with the same
    plan.
    """

    def __init__(self, destination: Path, plan: Plan) -> None:
        """Open the workspace of a destination, empty unless it was left by a build with the same plan.

        Raises:
            ConfigurationError: another process is building there.
            ArtifactError: it can't be written, or locked.
        """
        self.destination = destination
        self.path = workspace_of(destination)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"The directory {self.path.name} can't be written: {error.strerror}.") from error
        try:
            self._lock = lock_directory(self.path)
        except OSError as error:
            raise ArtifactError(f"The directory {self.path.name} can't be locked: {error.strerror}.") from error
        serialised = serialised_plan(plan)
        self._files = LocalFiles(self.path, plan_digest(serialised))
        plan_file = self.path / PLAN
        kept = {PLAN, LOCK}
        if plan_file.exists() and plan_file.read_bytes() == serialised:
            for entry in self.path.glob(f"*{_TENSORS}"):
                if entry.name.count(".") == 1:  # of a publication that was cut
                    entry.rename(self._files.place_of(entry.name))
            kept |= {_SECONDS, *(path.name for path in self._files.finished().values())}
        else:
            self._write(PLAN, serialised)  # first, so that who works here stops
        _keep(self.path, kept)  # not other plans', nor what writers left that were killed

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def has(self, name: str) -> bool:
        """Whether a file is finished."""
        return self._files.place_of(name).exists()

    @property
    def files(self) -> BlockFiles:
        """Its tensor files, for workers to write."""
        return self._files

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """Write a safetensors file; its size and SHA-256.

        Raises:
            ConfigurationError, ArtifactError: as `LocalFiles.save`.
        """
        return self._files.save(name, tensors)

    def describe(self, known: Mapping[str, File] | None = None) -> dict[str, File]:
        """Size and checksum of every tensor file; those that are known already aren't read."""
        known = known or {}
        return {name: known.get(name) or described(path) for name, path in self._files.finished().items()}

    def seconds(self, more: float = 0.0, *, patiently: bool = True) -> float:
        """Wall time spent so far over all attempts, after adding some. Patience is for stores."""
        file = self.path / _SECONDS
        spent = float(json.loads(file.read_text())) if file.exists() else 0.0
        if more:
            self._write(_SECONDS, json.dumps(spent + more).encode())
        return spent + more

    def publish(self, manifest: Manifest) -> Artifact:
        """Write the manifest and give the directory its name: from here on it is an artifact.

        Raises:
            ArtifactError: a file isn't as the manifest says, or can't be written.
            ConfigurationError: another build has taken the place.
        """
        content = serialised_manifest(manifest)
        self._files.check_place()
        for name, file in manifest.files.items():
            place = self._files.place_of(name)
            try:
                if place.stat().st_size != file.bytes:
                    raise ArtifactError(f"{name} isn't there as it was written; start the build again, it goes on.")
                place.rename(self.path / name)
            except OSError as error:
                raise ArtifactError(f"{name} can't be published: {reason(error)}.") from error
        self._write(MANIFEST, content)
        artifact = {MANIFEST, *manifest.files}
        _keep(self.path, artifact | {LOCK})
        flush(self.path)
        try:
            self.path.rename(self.destination)
        except OSError as error:
            if not self.destination.exists():
                raise ArtifactError(f"{self.destination.name} can't be written: {reason(error)}.") from error
            raise ConfigurationError("Another build has published here meanwhile; choose another place.") from error
        flush(self.destination.parent)
        _keep(self.destination, artifact)  # nobody who writes late finds the way here
        return Artifact(path=self.destination, manifest=manifest, checksum=hashlib.sha256(content).hexdigest())

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.path / (name + ".tmp")
        try:
            temporary.write_bytes(content)
            flush(temporary)
            temporary.rename(self.path / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ArtifactError(f"{name} can't be written: {reason(error)}.") from error


def workspace_of(destination: Path) -> Path:
    """Where a build grows whose artifact will be at a place."""
    return destination.with_name(destination.name + ".partial")


def lock_directory(path: Path) -> int:
    """Hold a directory, as builds do where they work, until the descriptor that is returned is closed.

    What is locked is a file in it, opened for writing: NFS has locks for such alone.

    Raises:
        ConfigurationError: another process holds it.
        OSError: it isn't there, or can't be locked.
    """
    file = path / LOCK
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigurationError(_HELD) from None
        except FileNotFoundError:
            pass  # who held it has published, or removed the directory
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _keep(path: Path, names: set[str]) -> None:
    """Remove what else is in a directory."""
    for entry in path.iterdir():
        if entry.name not in names:
            entry.unlink(missing_ok=True)
