"""Artifacts in an object store: built there block by block, uploaded, and fetched into a local directory.

    <url>/manifest.json                  as in a directory; an artifact is there when its manifest is
    <url>/*.safetensors                  its files
    <url>/plan.json                      while it is being built: by whom the place is taken
    <url>/.building/<digest>/<file>.json while it is being built: size and SHA-256 of a finished file of one plan

Object stores have no rename and no locks. So the files of a build lie where they belong from the beginning, and the
manifest, written last and only where there is none, makes them an artifact. What is in `.building` makes sure that
plans don't mix: a file is finished for a plan once its notice is there, which comes after it, and a build whose place
another plan has taken ends at its next file. Of two builds of one plan each takes what the other has finished, and
what one has published is the artifact of both; after that nothing is written.

Nothing is removed but what builds have written. A place that holds other things is refused.

Whoever opens an artifact of a store opens a local copy: `engine.copies`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save
from torch import Tensor

from engine.errors import ArtifactError, ConfigurationError
from engine.locations import PATIENCE_SECONDS, Location, ObjectStore
from engine.store import (
    MANIFEST,
    PARAMETERS,
    PLAN,
    Artifact,
    File,
    Manifest,
    Plan,
    parse_manifest,
    plan_digest,
    serialised_manifest,
    serialised_plan,
)
from engine.workspace import BlockFiles, Workspace

logger = logging.getLogger(__name__)

BUILDING: Final = ".building"

_NOTICE: Final = ".json"
_FILE: Final = TypeAdapter(File)

_OF_BUILDS: Final = re.compile(
    rf"{re.escape(PLAN)}|{re.escape(PARAMETERS)}|(axes|directions|retrained)-\d{{5,}}\.safetensors"
    rf"|{re.escape(BUILDING)}/[0-9a-f]+(\.seconds|/[^/]+{re.escape(_NOTICE)})"
)
"""Names of what a build writes, whatever its plan, but for the manifest."""

_TAKEN: Final = "Another build has taken this place; wait for it, or choose another."


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
            ConfigurationError: another build has taken the place, or it was removed.
            StoreError: the store refuses, or is away.
        """
        file = _noticed(self.notices.find(name + _NOTICE))
        if file is not None and self.store.size(name) == file.bytes:
            return file
        published = self.published()
        return None if published is None else published.files.get(name)

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """Write a safetensors file, whole or not at all, unless a twin has; size and SHA-256 of what is there.

        Raises:
            ConfigurationError: another build has taken the place, or it was removed.
            StoreError: the store refuses, or is away.
        """
        finished = self.find(name)
        if finished is not None:
            return finished
        content = save({key: tensor.contiguous().cpu() for key, tensor in tensors.items()})
        file = File(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        self.store.write(name, content)
        self._finish(name, file)
        return file

    def upload(self, name: str, path: Path, file: File) -> None:
        """Write what lies on the disk, and is so large and has this SHA-256, unless that is there.

        Raises:
            ConfigurationError, StoreError: as `save`.
            OSError: the file can't be read.
        """
        finished = self.find(name)
        if finished == file:
            return
        if finished is not None:  # of a twin that rounds otherwise: it isn't finished any more, unless it is published
            if self.published() is not None:
                return
            self.notices.remove(name + _NOTICE)
        self.store.upload(path, name)
        self._finish(name, file)

    def published(self) -> Manifest | None:
        """What a twin has published here; None while none has, and the place is this plan's.

        Raises:
            ArtifactError: what is there is damaged.
            ConfigurationError: another build has taken the place, or published there; or it was removed.
            StoreError: the store refuses, or is away.
        """
        found = self.store.find(PLAN)
        if found is not None:
            if plan_digest(found) != self.plan:
                raise ConfigurationError(_TAKEN)
            return None
        content = self.store.find(MANIFEST)  # it comes before the plan goes
        if content is None:
            raise ConfigurationError("What was built here was removed meanwhile; start the build again.")
        return self.adopt(content)

    def adopt(self, content: bytes) -> Manifest:
        """A manifest that is there, as that of a twin.

        Raises:
            ArtifactError: it is damaged.
            ConfigurationError: it is of another plan.
        """
        manifest = parse_manifest(content)
        if plan_digest(serialised_plan(manifest.plan)) != self.plan:
            raise ConfigurationError("An artifact has this place; choose another, or remove it first.")
        return manifest

    def _finish(self, name: str, file: File) -> None:
        self.notices.write(name + _NOTICE, _FILE.dump_json(file))


class RemoteWorkspace:
    """The place in an object store where a build grows, until `publish` makes it an artifact.

    Builds of the same plan go on with what others finished, also while these work: they write the same.
    """

    def __init__(self, store: ObjectStore, plan: Plan) -> None:
        """Open the place of an artifact; what another plan left there is removed. What a twin has published is adopted.

        Raises:
            ArtifactError: what is there is damaged.
            ConfigurationError: the artifact of another plan is there, or other things.
            StoreError: the store refuses, or is away.
        """
        self._store = store
        serialised = serialised_plan(plan)
        self._files = RemoteFiles(store, plan_digest(serialised))
        entries = store.entries()
        if MANIFEST in entries:
            self._finished = dict(self._files.adopt(store.read(MANIFEST)).files)
            return
        if not all(map(_OF_BUILDS.fullmatch, entries)):
            raise ConfigurationError("The destination holds other things; choose another place.")
        if store.find(PLAN) != serialised:
            # Notices go before there is a plan that believes them, then the plan is told, so that who works here stops.
            store.remove(*_within_building(entries))
            store.write(PLAN, serialised)
            store.remove(*(entries.keys() - {PLAN} - _within_building(entries)))
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
            OSError: the file can't be read.
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

    def seconds(self, more: float = 0.0, *, patiently: bool = True) -> float:
        """Wall time spent so far over all attempts, after adding some.

        Args:
            more: to add.
            patiently: whether to try again while the store is away.

        Raises:
            StoreError: the store refuses, or is away.
        """
        name = f"{BUILDING}/{self._files.plan}.seconds"
        store = self._store if patiently else replace(self._store, patience_seconds=0.0)
        found = store.find(name)
        spent = float(json.loads(found)) if found else 0.0
        plan = store.find(PLAN) if more else None
        if plan is not None and plan_digest(plan) == self._files.plan:  # else the place isn't this plan's any more
            store.write(name, json.dumps(spent + more).encode())
        return spent + more

    def publish(self, manifest: Manifest, *, content: bytes | None = None) -> Published:
        """Write the manifest: from here on it is an artifact. Where a twin was faster, its manifest is the artifact's.

        Args:
            manifest: to write.
            content: of the manifest, where it has been written before.

        Raises:
            ArtifactError: a file isn't as the manifest says.
            ConfigurationError: another build has taken the place, or it was removed.
            StoreError: the store refuses, or is away.
        """
        content = content or serialised_manifest(manifest)
        # The first look is for stores that write over what is there whatever they are asked, too.
        there = self._store.find(MANIFEST)
        if there is None and self._files.published() is None:
            noticed = self._noticed()
            for name, file in manifest.files.items():
                if noticed.get(name) != file:
                    raise ArtifactError(
                        f"{name} isn't in the store as it was written; start the build again, it goes on."
                    )
            if self._store.create(MANIFEST, content):
                there = content
        there = there or self._store.read(MANIFEST)
        published = self._files.adopt(there)
        self._clear(published)
        return Published(url=self._store.url, manifest=published, checksum=hashlib.sha256(there).hexdigest())

    def _clear(self, published: Manifest) -> None:
        """Remove what builds have left beside an artifact; the plan first, so that a twin sees that it is one."""
        entries = self._store.entries()
        self._store.remove(*({PLAN} & entries.keys()))
        left = {name for name in entries if _OF_BUILDS.fullmatch(name)}
        self._store.remove(*(left - published.files.keys() - {PLAN}))

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


def _within_building(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.startswith(f"{BUILDING}/")}


def _noticed(content: bytes | None) -> File | None:
    try:
        return None if content is None else _FILE.validate_json(content)
    except ValidationError:
        return None  # the file is written again
