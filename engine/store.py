"""The artifact of a sketch: a directory that describes itself, whole or not there at all.

    manifest.json             what it is, how it was made, and size and SHA-256 of every file beside it
    parameters.safetensors    `initial.<name>` and `trained.<name>`: the parameter matrices of the ordinary run
    block-00000.safetensors   `order<r>.real`, `order<r>.imaginary`, [directions of the block, P]: coefficients of the
    trained parameters …                         further blocks, in the order of the directions

Directions aren't stored: they are drawn again from the seed, and the manifest holds a few of their numbers to tell
whether that worked. Texts of documents aren't stored either, only their fingerprint.

A build works in a sibling directory, ``<name>.partial``; every file in it is complete once it has its name, and the
last act renames the directory. Afterwards nothing is ever changed. On opening, every file is compared with its
checksum, then memory-mapped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol
from uuid import uuid4

from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.configuration import SketchConfiguration
from engine.errors import ArtifactError, ConfigurationError

FORMAT: Literal["neverseen-sketch"] = "neverseen-sketch"
FORMAT_VERSION: Literal[1] = 1
MANIFEST = "manifest.json"
PARAMETERS = "parameters.safetensors"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The documents that a sketch was made of: their fingerprint and numbers of documents (n) and units (m)."""

    fingerprint: str
    documents: int
    units: int


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What decides the last bits of a result, besides the configuration.

    Attributes:
        device: "cpu" or "cuda".
        fused: whether torch compiles the optimiser's update.
        native: whether native code trains, and not torch.
    """

    device: str
    fused: bool
    native: bool = False  # artifacts that don't say were made before there was such code


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a build depends on: equal plans give equal artifacts."""

    configuration: SketchConfiguration
    source: Source
    execution: Execution


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of the artifact."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about an artifact but its numbers.

    Attributes:
        plan: what it was built from.
        shapes: the parameter matrices by name.
        direction_probe: a few numbers of the first and the last direction: [real, imaginary] pairs.
        files: by name.
        versions: of the libraries that took part.
        build_seconds: wall time, over all attempts.
        created_at: UTC.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    plan: Plan
    shapes: dict[str, tuple[int, int]]
    direction_probe: list[tuple[float, float]]
    files: dict[str, File]
    versions: dict[str, str]
    build_seconds: float
    created_at: datetime
    format: Literal["neverseen-sketch"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION

    @property
    def configuration(self) -> SketchConfiguration:
        """The sketch's configuration."""
        return self.plan.configuration

    @property
    def size_bytes(self) -> int:
        """Of all files, the manifest not counted."""
        return sum(file.bytes for file in self.files.values())


_MANIFEST = TypeAdapter(Manifest)
_PLAN = TypeAdapter(Plan)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A complete artifact on disk.

    Attributes:
        path: its directory.
        manifest: what it says of itself.
        checksum: SHA-256 of the manifest, and so, through the checksums in it, of everything.
        origin: URL of the artifact that this is a local copy of, maybe of a part; None where it is none.
    """

    path: Path
    manifest: Manifest
    checksum: str
    origin: str | None = None


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
        return _described(path) if path.exists() else None

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """Write a safetensors file; its size and SHA-256.

        Raises:
            ArtifactError: as `save_tensors`.
        """
        path = self.path / name
        # Named apart from what another worker may write at the same time.
        save_tensors(path, tensors, temporary=path.with_name(f"{name}.{uuid4().hex}.tmp"))
        return _described(path)


def open_artifact(path: Path, *, checksum: str | None = None, files: Collection[str] | None = None) -> Artifact:
    """Open an artifact after comparing its files with their checksums.

    Args:
        path: its directory.
        checksum: what the manifest's SHA-256 must be; None accepts any.
        files: names of those that are needed; None is all of them. Others needn't be there.

    Raises:
        ArtifactError: it is missing, foreign, of another format version, truncated or damaged.
    """
    try:
        content = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise ArtifactError("There is no artifact: manifest.json is missing or can't be read.") from error
    found = hashlib.sha256(content).hexdigest()
    if checksum is not None and found != checksum:
        raise ArtifactError(
            f"manifest.json has SHA-256 {found[:12]}…, expected {checksum[:12]}…: damaged or exchanged."
        )
    manifest = parse_manifest(content)
    for name in manifest.files if files is None else files:
        verify(path, name, manifest)
    return Artifact(path=path, manifest=manifest, checksum=found)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, memory-mapped.

    Raises:
        ArtifactError: not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path.name} isn't a readable safetensors file.") from error


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    metadata: dict[str, str] | None = None,
    temporary: Path | None = None,
) -> None:
    """Write a safetensors file; it gets its name once it is on disk.

    Args:
        path: its name.
        tensors: what it holds.
        metadata: of the file.
        temporary: its name till then, on the same file system; another one for each of several writers.

    Raises:
        ArtifactError: no space, or no right to write.
    """
    temporary = temporary or path.with_name(path.name + ".tmp")
    try:
        save_file({key: tensor.contiguous().cpu() for key, tensor in tensors.items()}, temporary, metadata=metadata)
        _flush(temporary)
        temporary.rename(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise ArtifactError(f"{path.name} can't be written: {_reason(error)}.") from error


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
        return {path.name: known.get(path.name) or _described(path) for path in sorted(self.path.glob("*.safetensors"))}

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
        _flush(self.path)
        self.path.rename(self.destination)
        _flush(self.destination.parent)
        return Artifact(path=self.destination, manifest=manifest, checksum=hashlib.sha256(content).hexdigest())

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.path / (name + ".tmp")
        try:
            temporary.write_bytes(content)
            _flush(temporary)
            temporary.rename(self.path / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ArtifactError(f"{name} can't be written: {_reason(error)}.") from error


def workspace_of(destination: Path) -> Path:
    """Where a build grows whose artifact will be at a place."""
    return destination.with_name(destination.name + ".partial")


def serialised_plan(plan: Plan) -> bytes:
    """A plan as it lies beside what is being built."""
    return _PLAN.dump_json(plan, indent=2)


def serialised_manifest(manifest: Manifest) -> bytes:
    """The content of manifest.json."""
    return _MANIFEST.dump_json(manifest, indent=2)


def parse_manifest(content: bytes) -> Manifest:
    """What manifest.json says.

    Raises:
        ArtifactError: it is foreign, of another format version, or damaged.
    """
    try:
        header = json.loads(content)
        foreign = not isinstance(header, dict) or header.get("format") != FORMAT
    except ValueError:
        foreign = True
    if foreign:
        raise ArtifactError("manifest.json isn't one of a Neverseen sketch.")
    if header.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"The artifact has format version {header.get('format_version')!r}; this release reads {FORMAT_VERSION}."
        )
    try:
        manifest = _MANIFEST.validate_json(content)
    except (ValidationError, ConfigurationError) as error:
        raise ArtifactError(f"manifest.json is damaged: {error}.") from error
    needed = {PARAMETERS, *(block.file for block in manifest.configuration.blocks(manifest.plan.source.units))}
    if needed != manifest.files.keys():
        raise ArtifactError(f"manifest.json doesn't fit its configuration: {min(needed ^ manifest.files.keys())}.")
    return manifest


def verify(directory: Path, name: str, manifest: Manifest) -> None:
    """Compare a file with what a manifest says of it.

    Raises:
        ArtifactError: it is missing, truncated or damaged, or the manifest knows no such file.
    """
    if name not in manifest.files:
        raise ArtifactError(f"The artifact has no {name}.")
    try:
        _compare(directory / name, name, manifest.files[name])
    except OSError as error:
        raise ArtifactError(f"{name} can't be read: {_reason(error)}.") from error


def _compare(path: Path, name: str, file: File) -> None:
    if not path.is_file():
        raise ArtifactError(f"{name} is missing.")
    if path.stat().st_size != file.bytes:
        raise ArtifactError(
            f"{name} has {path.stat().st_size:,} bytes and should have {file.bytes:,}: truncated or exchanged."
        )
    if _sha256(path) != file.sha256:
        raise ArtifactError(f"{name} doesn't have its SHA-256: damaged.")


def _described(path: Path) -> File:
    return File(bytes=path.stat().st_size, sha256=_sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    """What went wrong, without the path that an OSError tells."""
    return (error.strerror or "no reason given") if isinstance(error, OSError) else str(error)


def _flush(path: Path) -> None:
    """Have the system write a file, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
