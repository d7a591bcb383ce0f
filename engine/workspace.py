"""The directory in which a build grows, until it gets the artifact's name, and the files that workers write there.

What is here is complete: a file gets its name once it is on the disk. `engine.remote` is the same in an object store.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from torch import Tensor

from engine.errors import ArtifactError, ConfigurationError
from engine.store import (
    MANIFEST,
    Artifact,
    File,
    Manifest,
    Plan,
    described,
    flush,
    reason,
    save_tensors,
    serialised_manifest,
    serialised_plan,
)


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
    """Files of a build in a directory."""

    path: Path

    def find(self, name: str) -> File | None:
        """Size and SHA-256 of a finished file; None where it isn't finished."""
        path = self.path / name
        return described(path) if path.exists() else None

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """Write a safetensors file; its size and SHA-256.

        Raises:
            ArtifactError: as `save_tensors`.
        """
        path = self.path / name
        # Named apart from what another worker may write at the same time.
        save_tensors(path, tensors, temporary=path.with_name(f"{name}.{uuid4().hex}.tmp"))
        return described(path)


def finished_files(destination: Path) -> set[str]:
    """Names of the tensor files that there are already: an artifact's, or those that a killed build has left.

    A build of another plan at the same place isn't told apart: it would be begun anew.
    """
    return {
        path.name for directory in (destination, workspace_of(destination)) for path in directory.glob("*.safetensors")
    }


def is_being_built(path: Path) -> bool:
    """Whether a process works in a directory, as in a `Workspace`."""
    try:
        os.close(lock_directory(path))
    except ConfigurationError:
        return True
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
        """
        self.destination = destination
        self.path = workspace_of(destination)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"The directory {self.path.name} can't be written: {error.strerror}.") from error
        self._lock = lock_directory(self.path)
        serialised = serialised_plan(plan)
        plan_file = self.path / "plan.json"
        if not plan_file.exists() or plan_file.read_bytes() != serialised:
            for entry in self.path.iterdir():
                entry.unlink()
            self._write("plan.json", serialised)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def has(self, name: str) -> bool:
        """Whether a file is finished."""
        return (self.path / name).exists()

    @property
    def files(self) -> BlockFiles:
        """Its tensor files, for workers to write."""
        return LocalFiles(self.path)

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """Write a safetensors file; its size and SHA-256.

        Raises:
            ArtifactError: as `save_tensors`.
        """
        return self.files.save(name, tensors)

    def describe(self, known: Mapping[str, File] | None = None) -> dict[str, File]:
        """Size and checksum of every tensor file; those that are known already aren't read."""
        known = known or {}
        return {path.name: known.get(path.name) or described(path) for path in sorted(self.path.glob("*.safetensors"))}

    def seconds(self, more: float = 0.0) -> float:
        """Wall time spent so far over all attempts, after adding some."""
        file = self.path / "seconds.json"
        spent = float(json.loads(file.read_text())) if file.exists() else 0.0
        if more:
            self._write("seconds.json", json.dumps(spent + more).encode())
        return spent + more

    def publish(self, manifest: Manifest) -> Artifact:
        """Write the manifest and give the directory its name: from here on it is an artifact."""
        content = serialised_manifest(manifest)
        self._write(MANIFEST, content)
        for entry in self.path.iterdir():
            if entry.name != MANIFEST and entry.name not in manifest.files:
                entry.unlink()
        flush(self.path)
        self.path.rename(self.destination)
        flush(self.destination.parent)
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

    Raises:
        ConfigurationError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(
            "Another process is building this artifact; wait for it, or choose another place."
        ) from None
    return descriptor
