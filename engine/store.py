"""The artifact of a sketch: a directory that describes itself, whole or not there at all.

    manifest.json             what it is, how it was made, and size and SHA-256 of every file beside it
    parameters.safetensors    `initial.<name>` and `trained.<name>`: the parameter matrices of the ordinary run
    block-00000.safetensors   `order<r>.real`, `order<r>.imaginary`, [directions of the block, P]: coefficients of the
    trained parameters …                         further blocks, in the order of the directions

Directions aren't stored: they are drawn again from the seed, and the manifest holds a few of their numbers to tell
whether that worked. Texts of documents aren't stored either, only their fingerprint.

A build works in a sibling directory, ``<name>.partial`` (`engine.workspace`); every file in it is complete once it has
its name, and the last act renames the directory. Afterwards nothing is ever changed. On opening, every file is compared
with its checksum, then memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.configuration import SketchConfiguration
from engine.errors import ArtifactError, ConfigurationError

FORMAT: Literal["neverseen-sketch"] = "neverseen-sketch"
FORMAT_VERSION: Literal[1] = 1
MANIFEST = "manifest.json"
PLAN = "plan.json"
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
        processor: what of the machine decides them, for people to compare: `engine.blocks.processor`.
    """

    device: str
    fused: bool
    native: bool = False  # artifacts that don't say were made before there was such code
    processor: str = ""  # artifacts that don't say are of any

    @property
    def sentence(self) -> str:
        """Part of one, for people."""
        how = "native code" if self.native else "compiled torch" if self.fused else "torch"
        return f"by {how} on {self.device} ({self.processor or 'not said which'})"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a build depends on: equal plans give equal artifacts.

    Attributes:
        configuration: what is built.
        source: the documents that it is built from.
        execution: how.
        drawing: how anchors are drawn, `engine.anchors.DRAWING`.
    """

    configuration: SketchConfiguration
    source: Source
    execution: Execution
    drawing: int = 1  # artifacts that don't say were drawn the first way


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
    name: str | None = None,
) -> None:
    """Write a safetensors file; it gets its name once it is on disk.

    Args:
        path: its name.
        tensors: what it holds.
        metadata: of the file.
        temporary: its name till then, on the same file system; another one for each of several writers.
        name: what people call it.

    Raises:
        ArtifactError: no space, or no right to write.
    """
    temporary = temporary or path.with_name(path.name + ".tmp")
    try:
        save_file({key: tensor.contiguous().cpu() for key, tensor in tensors.items()}, temporary, metadata=metadata)
        flush(temporary)
        temporary.rename(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise ArtifactError(f"{name or path.name} can't be written: {reason(error)}.") from error


def serialised_plan(plan: Plan) -> bytes:
    """A plan as it lies beside what is being built."""
    return _PLAN.dump_json(plan, indent=2)


def parse_plan(content: bytes) -> Plan | None:
    """The plan that lies beside what is being built; None where it is none of this release."""
    try:
        return _PLAN.validate_json(content)
    except (ValidationError, ConfigurationError):
        return None


def plan_digest(serialised: bytes) -> str:
    """What tells files of one plan from those of another."""
    return hashlib.sha256(serialised).hexdigest()[:16]


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
        raise ArtifactError(f"{name} can't be read: {reason(error)}.") from error


def _compare(path: Path, name: str, file: File) -> None:
    if not path.is_file():
        raise ArtifactError(f"{name} is missing.")
    if path.stat().st_size != file.bytes:
        raise ArtifactError(
            f"{name} has {path.stat().st_size:,} bytes and should have {file.bytes:,}: truncated or exchanged."
        )
    if _sha256(path) != file.sha256:
        raise ArtifactError(f"{name} doesn't have its SHA-256: damaged.")


def described(path: Path) -> File:
    """Size and SHA-256 of a file."""
    return File(bytes=path.stat().st_size, sha256=_sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: Exception) -> str:
    """What went wrong, without the path that an OSError tells."""
    return (error.strerror or "no reason given") if isinstance(error, OSError) else str(error)


def flush(path: Path) -> None:
    """Have the system write a file, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
