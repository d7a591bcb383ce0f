"""Artifacts in an object store: built there block by block, uploaded, and fetched into a local directory.

    <url>/manifest.json                  as in a directory; an artifact is there when its manifest is
    <url>/*.safetensors                  its files
    <url>/plan.json                      while it is being built: by whom the place is taken
    <url>/.building/<digest>/<file>.json while it is being built: size and SHA-256 of a finished file of one plan

Object stores have no rename and no locks. So the files of a build lie where they belong from the beginning, and the
manifest, written last and only where there is none, makes them an artifact. What is in `.building` makes sure that
plans don't mix: a file is finished for a plan once its notice is there, which comes after it, and a build whose place
another plan has taken ends at its next file. Two builds of one plan write the same bits, and one manifest.

Whoever opens an artifact of a store opens a local copy: `engine.copies`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save
from torch import Tensor

from engine.errors import ArtifactError, ConfigurationError
from engine.locations import PATIENCE_SECONDS, Location, ObjectStore
from engine.store import (
    MANIFEST,
    Artifact,
    File,
    Manifest,
    Plan,
    parse_manifest,
    serialised_manifest,
    serialised_plan,
)
from engine.workspace import BlockFiles, Workspace

logger = logging.getLogger(__name__)

PLAN: Final = "plan.json"
BUILDING: Final = ".building"

_NOTICE: Final = ".json"
_DIGEST_LENGTH: Final = 16
_FILE: Final = TypeAdapter(File)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A complete artifact in an object store.

    Attributes:
        url: where.
        manifest: what it says of itself.
        checksum: SHA-256 of the manifest, and so, through the checksums in it, of everything.
    """

    url: str
    manifest: Manifest
    checksum: str


@dataclass(frozen=True)
class RemoteFiles:
    """Files of a build in an object store.

    Attributes:
        store: the artifact's place.
        plan: digest of the plan that they are of.
    """

    store: ObjectStore
    plan: str

    @property
    def notices(self) -> ObjectStore:
        """Where is said which files are finished."""
        return self.store.within(f"{BUILDING}/{self.plan}")

    def find(self, name: str) -> File | None:
        """Size and SHA-256 of a finished file; None where it isn't finished.

        Raises:
            StoreError: the store refuses, or is away.
        """
        file = _noticed(self.notices.find(name + _NOTICE))
        return file if file is not None and self.store.size(name) == file.bytes else None

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """Write a safetensors file, whole or not at all; its size and SHA-256.

        Raises:
            ConfigurationError: another build has taken the place.
            StoreError: the store refuses, or is away.
        """
        content = save({key: tensor.contiguous().cpu() for key, tensor in tensors.items()})
        file = File(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        self.check_place()
        self.store.write(name, content)
        self._finish(name, file)
        return file

    def upload(self, name: str, path: Path, file: File) -> None:
        """Write what lies on the disk, and is so large and has this SHA-256.

        Raises:
            ConfigurationError, StoreError: as `save`.
        """
        self.check_place()
        self.store.upload(path, name)
        self._finish(name, file)

    def check_place(self) -> None:
        """Make sure that no build of another plan works here.

        Raises:
            ConfigurationError: one does.
            StoreError: the store refuses, or is away.
        """
        found = self.store.find(PLAN)
        if found is not None and _digest(found) != self.plan:
            raise ConfigurationError("Another build has taken this place; wait for it, or choose another.")

    def _finish(self, name: str, file: File) -> None:
        self.notices.write(name + _NOTICE, _FILE.dump_json(file))


class RemoteWorkspace:
    """The place in an object store where a build grows, until `publish` makes it an artifact.

    Builds of the same plan go on with what others finished, also while these work: they write the same.
    """

    def __init__(self, store: ObjectStore, plan: Plan) -> None:
        """Open the place of an artifact; what another plan left there is removed.

        Raises:
            ConfigurationError: an artifact is there.
            StoreError: the store refuses, or is away.
        """
        self._store = store
        serialised = serialised_plan(plan)
        self._files = RemoteFiles(store, _digest(serialised))
        entries = store.entries()
        if MANIFEST in entries:
            raise ConfigurationError("An artifact has this place; choose another, or remove it first.")
        if store.find(PLAN) != serialised:
            store.write(PLAN, serialised)  # first, so that who works here stops
            for name in entries.keys() - {PLAN}:
                store.remove(name)
        self._finished = self._noticed()

    def __enter__(self) -> RemoteWorkspace:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    @property
    def files(self) -> BlockFiles:
        """Its tensor files, for workers to write."""
        return self._files

    def has(self, name: str) -> bool:
        """Whether a file was finished, by what was known when the workspace was opened, and was saved here since."""
        return name in self._finished

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """Write a safetensors file; its size and SHA-256.

        Raises:
            ConfigurationError, StoreError: as `RemoteFiles.save`.
        """
        self._finished[name] = self._files.save(name, tensors)
        return self._finished[name]

    def upload(self, name: str, path: Path, file: File) -> None:
        """Write what lies on the disk, unless it is there already.

        Raises:
            ConfigurationError, StoreError: as `RemoteFiles.save`.
        """
        if self._finished.get(name) != file:
            self._files.upload(name, path, file)
            self._finished[name] = file

    def describe(self, known: Mapping[str, File] | None = None) -> dict[str, File]:
        """Size and checksum of every tensor file, as its writer found them.

        Raises:
            StoreError: the store refuses, or is away.
        """
        return dict(sorted({**self._noticed(), **self._finished, **(known or {})}.items()))

    def seconds(self, more: float = 0.0) -> float:
        """Wall time spent so far over all attempts, after adding some.

        Raises:
            StoreError: the store refuses, or is away.
        """
        name = f"{BUILDING}/{self._files.plan}.seconds"
        found = self._store.find(name)
        spent = float(json.loads(found)) if found else 0.0
        if more:
            self._store.write(name, json.dumps(spent + more).encode())
        return spent + more

    def publish(self, manifest: Manifest, *, content: bytes | None = None) -> Published:
        """Write the manifest: from here on it is an artifact. Where a twin was faster, its manifest is the artifact's.

        Args:
            manifest: to write.
            content: of the manifest, where it has been written before.

        Raises:
            ArtifactError: a file isn't as the manifest says.
            ConfigurationError: another build has taken the place.
            StoreError: the store refuses, or is away.
        """
        content = content or serialised_manifest(manifest)
        entries = self._store.entries()
        for name, file in manifest.files.items():
            if name not in entries or entries[name].bytes != file.bytes:
                raise ArtifactError(f"{name} isn't in the store as it was written; start the build again, it goes on.")
        self._files.check_place()
        # The first look is for stores that write over what is there whatever they are asked.
        if MANIFEST in entries or not self._store.create(MANIFEST, content):
            content = self._store.read(MANIFEST)
            if parse_manifest(content).files != manifest.files:
                raise ConfigurationError("Another build has published here meanwhile; choose another place.")
        for name in entries.keys() - {MANIFEST} - manifest.files.keys():
            self._store.remove(name)
        return _published(self._store, content)

    def _noticed(self) -> dict[str, File]:
        """The finished files of the plan."""
        sizes = {name: entry.bytes for name, entry in self._store.entries().items()}
        notices = {
            name.removesuffix(_NOTICE): _noticed(content) for name, content in self._files.notices.read_all().items()
        }
        return {name: file for name, file in notices.items() if file is not None and sizes.get(name) == file.bytes}


def open_workspace(destination: Location, plan: Plan) -> AbstractContextManager[Workspace | RemoteWorkspace]:
    """Open the workspace of a destination, empty unless it was left by a build with the same plan.

    Raises:
        ConfigurationError: another process is building there, or an artifact of a store has the place.
        ArtifactError: it can't be written.
    """
    if isinstance(destination, Path):
        return Workspace(destination, plan)
    return RemoteWorkspace(ObjectStore(destination), plan)


def find_published(url: str, *, patience_seconds: float = PATIENCE_SECONDS) -> Published | None:
    """The artifact at a place of a store, by its manifest; its files aren't looked at. None where there is none.

    Raises:
        ArtifactError: what is there is foreign, of another format version, or damaged.
        StoreError: the store refuses, or is away.
    """
    store = ObjectStore(url, patience_seconds)
    content = store.find(MANIFEST)
    return None if content is None else _published(store, content)


def upload(artifact: Artifact, url: str) -> Published:
    """Put an artifact into a store, file by file and the manifest last. What an upload that was cut left is used.

    Args:
        artifact: an opened one, all of it.
        url: its place.

    Returns:
        What is there now: where the same sketch was there before, that one, whose manifest may tell another moment.

    Raises:
        ConfigurationError: another sketch has the place, or another build has taken it.
        ArtifactError: a file can't be read.
        StoreError: the store refuses, or is away.
    """
    there = find_published(url)
    if there is not None:
        check_same_sketch(there.manifest, artifact.manifest.plan)
        return there
    with RemoteWorkspace(ObjectStore(url), artifact.manifest.plan) as workspace:
        for name, file in artifact.manifest.files.items():
            try:
                workspace.upload(name, artifact.path / name, file)
            except OSError as error:
                raise ArtifactError(f"{name} can't be read: {error.strerror}.") from error
        return workspace.publish(artifact.manifest, content=(artifact.path / MANIFEST).read_bytes())


def check_same_sketch(manifest: Manifest, plan: Plan) -> None:
    """Make sure that an artifact is of a plan; on which machine it was executed decides its last bits only.

    Raises:
        ConfigurationError: it is another sketch.
    """
    if (manifest.plan.configuration, manifest.plan.source) != (plan.configuration, plan.source):
        raise ConfigurationError("The destination holds another sketch; choose another place, or remove it first.")


def _published(store: ObjectStore, content: bytes) -> Published:
    return Published(url=store.url, manifest=parse_manifest(content), checksum=hashlib.sha256(content).hexdigest())


def _noticed(content: bytes | None) -> File | None:
    try:
        return None if content is None else _FILE.validate_json(content)
    except ValidationError:
        return None  # the file is written again


def _digest(serialised: bytes) -> str:
    return hashlib.sha256(serialised).hexdigest()[:_DIGEST_LENGTH]
