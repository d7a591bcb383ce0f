"""Models retrained after an artifact was built, kept beside it: its supplement.

An artifact never changes. What is retrained later, for a pinned subset or a verification, goes into a directory of its
own, ``<artifact>.anchors``, with one small file a deletion set (`engine.supplement_file`). A file gets its name once it
is on disk, and what it holds follows from its name, to rounding: several processes may add at once.

What is damaged or foreign is left out, and said: in the log, and in `Supplement.damaged`. It never keeps the artifact
from serving, and adding its deletion set again replaces it.

The supplement of an artifact of an object store lies there, too, at ``<url>.anchors/<file>``, and the directory is a
copy: what is added is written to the store first, `synchronise` makes the copy what the store has, no more and no less,
and what is removed goes from both. That it is a copy, and of what, is said by a file in it, ``copy-of``: without that
nothing is dropped, since what was retrained before there was a store is there only, until `share` puts it into it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from engine.documents import Documents
from engine.errors import ArtifactError, ConfigurationError, QuestionError, StoreError
from engine.locations import PATIENCE_SECONDS, ObjectStore
from engine.measure import Measurement, measure_models
from engine.model import matrices
from engine.question import check_units
from engine.retrain import Retrain
from engine.retrain import retrain as retrain_here
from engine.store import Artifact, save_tensors
from engine.supplement_file import ENDING, contents, file_name, is_file_name, read_file
from engine.train import Progress

logger = logging.getLogger(__name__)

SUFFIX: Final = ".anchors"
COPY_OF: Final = "copy-of"
_DRAFT_SECONDS: Final = 3600.0
"""From which age on a draft was left by a process that was killed."""

BATCH: Final = 64
"""Models that are retrained together, and lost together when the process is killed."""

_told: Final[set[Path]] = set()
"""Directories of which it was said that not all of them is in the store."""

Value: TypeAlias = float | list[float]
"""What a measurement gives: a number, or several."""


@dataclass(frozen=True, kw_only=True)
class Supplement:
    """What was retrained beside an artifact.

    Attributes:
        sets: B deletion sets, each its unit numbers, ascending; in order, none twice.
        models: the parameters of the model without each, of shape [B, P], on the CPU; `matrices` takes them apart.
        damaged: what was left out and why, a sentence a file.
    """

    sets: list[tuple[int, ...]]
    models: Tensor
    damaged: tuple[str, ...]


def directory_of(artifact: Artifact) -> Path:
    """Where the supplement of an artifact lies; it may not be there yet."""
    return directory_at(artifact.path)


def directory_at(path: Path) -> Path:
    """The same for an artifact at a place, be it there or not."""
    return path.with_name(path.name + SUFFIX)


def store_at(url: str, *, patience_seconds: float = PATIENCE_SECONDS) -> ObjectStore:
    """Where the supplement of an artifact lies that has this URL."""
    return ObjectStore(url + SUFFIX, patience_seconds)


def stamp(artifact: Artifact) -> int | None:
    """A number that changes when something was added, None where there is no supplement; one look at the disk.

    Take it before `read`: what is added in between is noticed the next time.
    """
    try:
        return os.stat(f"{artifact.path}{SUFFIX}").st_mtime_ns  # noqa: PTH116 - every answer asks, and a path is slow
    except OSError:
        return None


def read(artifact: Artifact) -> Supplement:
    """Everything that was retrained beside an artifact, each file verified; what is damaged is left out, and logged."""
    found: list[tuple[tuple[int, ...], Tensor]] = []
    damaged: list[str] = []
    try:
        paths = [path for path in directory_of(artifact).iterdir() if path.suffix == ENDING]
    except FileNotFoundError:
        paths = []
    except OSError as error:
        paths = []
        damaged.append(f"its directory can't be read: {error.strerror}.")
    for path in sorted(paths):
        try:
            found.append(read_file(artifact, path))
        except ArtifactError as error:
            damaged.append(str(error))
    for message in damaged:
        logger.warning("Left out of the supplement of artifact %s…: %s", artifact.checksum[:12], message)
    found.sort(key=lambda entry: entry[0])
    configuration = artifact.manifest.configuration
    none = torch.empty((0, configuration.model.parameter_count), dtype=configuration.torch_dtype)
    return Supplement(
        sets=[units for units, _ in found],
        models=torch.stack([model for _, model in found]) if found else none,
        damaged=tuple(damaged),
    )


def contains(artifact: Artifact, units: Sequence[int]) -> bool:
    """Whether the model without these units is there, and sound."""
    try:
        read_file(artifact, _place(artifact, units))
    except ArtifactError:
        return False
    return True


def add(
    artifact: Artifact,
    documents: Documents,
    deletion_sets: Sequence[Sequence[int]],
    *,
    device: str = "cpu",
    retrain: Retrain = retrain_here,
    progress: Progress = lambda done, total: None,
) -> list[Path]:
    """Retrain the model without each of some deletion sets, where that wasn't done yet, and keep the results.

    Args:
        artifact: an opened one.
        documents: that it was built from.
        deletion_sets: unit numbers, in any order.
        device: "cpu", or a CUDA device.
        retrain: trains the models, on this machine if nothing is said.
        progress: called with finished model·steps and all of them; where everything is there, once, as all done.

    Returns:
        The file of every set, in the order of the sets.

    Raises:
        ArtifactError: the documents aren't the artifact's, or the supplement can't be written.
        DeletionSetError: a set that is none.
        ConfigurationError: the device isn't there, or retraining diverged.
    """
    source, configuration = artifact.manifest.plan.source, artifact.manifest.configuration
    if documents.fingerprint != source.fingerprint:
        raise ArtifactError("The sketch was built from other documents (their fingerprints differ).")
    for units in deletion_sets:
        check_units(units, source.units)
    missing = {_canonical(units): None for units in deletion_sets if not contains(artifact, units)}
    steps = len(documents) * configuration.training.epochs
    if not missing:
        progress(steps, steps)
    for start in range(0, len(missing), BATCH):
        batch = list(missing)[start : start + BATCH]

        def report(done: int, total: int, before: int = start * steps) -> None:
            progress(before + done, len(missing) * steps)

        matrices = retrain(documents, configuration, batch, batch=BATCH, device=device, progress=report)
        models = torch.cat([matrix.flatten(1) for matrix in matrices.values()], dim=1).cpu()
        if not models.isfinite().all():
            raise ConfigurationError(
                "Retraining without a deletion set diverged. Lower learning_rate or raise epsilon."
            )
        for units, model in zip(batch, models, strict=True):
            _save(artifact, units, model)
    return [_place(artifact, units) for units in deletion_sets]


def synchronise(
    path: Path, url: str, *, patience_seconds: float = PATIENCE_SECONDS, again: Collection[str] = ()
) -> None:
    """Make the local copy of a supplement what the store has: fetch what was added there, drop what was removed.

    What is no copy of that store keeps what it has, and is one once all of it is there.

    Args:
        path: of the artifact's copy, be it there or not.
        url: of the artifact.
        patience_seconds: how long to try again while the store is away.
        again: names to fetch even where the file has the right size.

    Raises:
        StoreError: the store refuses, or is away.
        ArtifactError: the copy can't be written.
        OSError: a file can't be removed; all others were.
    """
    store, directory = store_at(url, patience_seconds=patience_seconds), directory_at(path)
    there = {name: entry.bytes for name, entry in store.entries().items() if is_file_name(name)}
    here = _sizes(directory)
    missing = [name for name, size in there.items() if here.get(name) != size or name in again]
    _fetch(store, directory, missing)
    gone = here.keys() - there.keys()
    errors: list[OSError] = []
    if is_copy(path, url):
        _unlink(directory, gone, errors)
    elif gone:
        _tell_of_own(directory, len(gone))
        gone = set()
    elif directory.is_dir():
        _make_copy(directory, url)
    _drop_drafts(directory)
    if missing or gone:
        _touch(directory)
    if errors:
        raise errors[0]


def _fetch(store: ObjectStore, directory: Path, names: Collection[str]) -> None:
    if names:
        _make(directory)
    for name in names:
        try:
            store.download(name, directory / name)
        except StoreError:
            raise
        except ArtifactError:
            if name in store.names():  # else it was removed meanwhile
                raise


def _tell_of_own(directory: Path, count: int) -> None:
    if directory not in _told:
        logger.warning(
            "%s has %d retrained models that the store hasn't. They stay: neverseen sketches upload puts them there",
            directory.name,
            count,
        )
    _told.add(directory)


def _drop_drafts(directory: Path) -> None:
    for draft in directory.glob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > _DRAFT_SECONDS:
                draft.unlink()


def refresh(artifact: Artifact, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """As `synchronise`, and fetches what is damaged here again; nothing without an origin.

    Raises:
        StoreError, ArtifactError, OSError: as `synchronise`.
    """
    if artifact.origin is None:
        return
    damaged = set()
    for file in directory_of(artifact).glob(f"*{ENDING}"):
        try:
            read_file(artifact, file)
        except ArtifactError:
            damaged.add(file.name)
    synchronise(artifact.path, artifact.origin, patience_seconds=patience_seconds, again=damaged)


def is_copy(path: Path, url: str) -> bool:
    """Whether the supplement beside an artifact is a copy of the one in a store.

    Args:
        path: of the artifact, be it there or not.
        url: of the artifact in the store.
    """
    try:
        return (directory_at(path) / COPY_OF).read_text(encoding="utf-8") == url
    except (OSError, UnicodeDecodeError):
        return False


def disown(path: Path) -> None:
    """Have the supplement beside an artifact be no copy any more: what it has stays, whatever a store has.

    Raises:
        OSError: that can't be written.
    """
    (directory_at(path) / COPY_OF).unlink(missing_ok=True)


def share(artifact: Artifact) -> int:
    """Put into the store what of a supplement is here, sound, and not there; how many models that was.

    It is for a supplement that was no copy up to now: what was removed from the store would come back. It is one
    afterwards, unless something that isn't sound is here only.

    Raises:
        StoreError: the store refuses, or is away.
        ArtifactError: a file can't be read.
    """
    assert artifact.origin is not None
    store, count, sound = store_at(artifact.origin), 0, True
    there = store.names()
    for file in sorted(directory_of(artifact).glob(f"*{ENDING}")):
        if file.name in there:
            continue
        try:
            read_file(artifact, file)
        except ArtifactError as error:
            logger.warning("Not put into the store: %s", error)
            sound = False
            continue
        try:
            store.upload(file, file.name)
        except OSError as error:
            raise ArtifactError(f"{file.name[:12]}… can't be read: {error.strerror}.") from error
        count += 1
    if sound and directory_of(artifact).is_dir():
        _make_copy(directory_of(artifact), artifact.origin)
    return count


def remove(
    path: Path, units: Collection[int], *, url: str | None = None, patience_seconds: float = PATIENCE_SECONDS
) -> int:
    """Remove the models that were retrained without a set which any of some units is in, from the store, too.

    What is damaged goes, too, and drafts, which a killed process may have left: they don't tell whose they are. So does
    what a bucket that keeps versions has hidden of what was removed. A process that writes one at this moment fails.

    Args:
        path: of the artifact, be it there or not.
        units: numbers.
        url: of the artifact, where it lies in a store.
        patience_seconds: how long to try again while the store is away.

    Returns:
        How many models were removed.

    Raises:
        OSError: one can't be removed here; all others were.
        StoreError: the store refuses, or is away; here nothing is left.
    """
    directory, gone = directory_at(path), frozenset(units)
    errors: list[OSError] = []
    removed = _unlink(directory, _affected(directory, gone), errors)  # at once, be the store there or not
    if url is not None:
        store = store_at(url, patience_seconds=patience_seconds)
        try:
            synchronise(path, url, patience_seconds=patience_seconds)  # names don't tell the units
        except OSError as error:
            errors.append(error)
        affected = _affected(directory, gone)
        removed |= _unlink(directory, affected, errors)  # first: the next time all is fetched again, and seen
        store.remove(*filter(is_file_name, affected))
        store.remove_hidden()
    if removed:
        _touch(directory)
    if errors:
        raise errors[0]
    return len(removed)


def _unlink(directory: Path, names: Iterable[str], errors: list[OSError]) -> set[str]:
    """Remove files; those that were. What goes wrong with the others is added to the errors."""
    removed = set()
    for name in names:
        try:
            (directory / name).unlink(missing_ok=True)
            removed.add(name)
        except OSError as error:
            errors.append(error)
    return removed


def _affected(directory: Path, gone: frozenset[int]) -> list[str]:
    """Files whose deletion sets have one of these units in them, or that don't tell."""
    affected = []
    for file in sorted(directory.iterdir()) if directory.is_dir() else ():
        if file.name == COPY_OF:
            continue
        try:
            with safe_open(file, framework="pt") as opened:
                without = tuple(opened.get_tensor("units").tolist())
                of = (opened.metadata() or {}).get("artifact", "")
        except (SafetensorError, OSError, ValueError):
            without, of = (), ""
        misnamed = file.name != file_name(of, without)
        if gone & frozenset(without) or (misnamed and (file.suffix == ENDING or not without)):
            affected.append(file.name)
    return affected


def retrained_values(
    artifact: Artifact,
    documents: Documents,
    units: Sequence[int],
    measurements: Sequence[Measurement],
    *,
    device: str = "cpu",
    progress: Progress = lambda done, total: None,
) -> list[Value]:
    """The truth for a deletion set: measurements of the model retrained without it, which the supplement keeps.

    Args:
        artifact: an opened one.
        documents: that it was built from.
        units: the deletion set.
        measurements: what to measure.
        device: "cpu", or a CUDA device.
        progress: as of `add`.

    Returns:
        A value for each measurement, in its unit.

    Raises:
        ArtifactError, DeletionSetError, ConfigurationError: as `add`.
        QuestionError: a measurement that can't be made, or that isn't finite.
    """
    (path,) = add(artifact, documents, [units], device=device, progress=progress)
    _, model = read_file(artifact, path)
    configuration = artifact.manifest.configuration.model
    parameters = matrices(configuration, model[None])
    values: list[Value] = [measure_models(one, configuration, parameters)[0].tolist() for one in measurements]
    for value in values:
        if not all(map(math.isfinite, value if isinstance(value, list) else [value])):
            raise QuestionError("A measurement of the retrained model isn't a finite number.")
    return values


def _canonical(units: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(units))


def _place(artifact: Artifact, units: Sequence[int]) -> Path:
    return directory_of(artifact) / file_name(artifact.checksum, units)


def _save(artifact: Artifact, units: tuple[int, ...], model: Tensor) -> None:
    path = _place(artifact, units)
    tensors, metadata = contents(artifact, units, model)
    _make(path.parent)
    if artifact.origin is None:
        # Named apart from what another process may write at the same time.
        save_tensors(path, tensors, metadata=metadata, temporary=path.with_suffix(f".{uuid4().hex}.tmp"))
    else:  # first there: what isn't in the store is dropped here
        if not _sizes(path.parent):
            _make_copy(path.parent, artifact.origin)
        store = store_at(artifact.origin)
        store.write(path.name, save(tensors, metadata))
        store.download(path.name, path)
    _touch(path.parent)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"The supplement {directory.name} can't be written: {error.strerror}.") from error


def _sizes(directory: Path) -> dict[str, int]:
    """The files of a directory that are named as models are, and their bytes."""
    sizes = {}
    for file in directory.glob(f"*{ENDING}"):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            if is_file_name(file.name):
                sizes[file.name] = file.stat().st_size
    return sizes


def _make_copy(directory: Path, url: str) -> None:
    """Say that a directory is a copy of what a store has for the artifact at a URL."""
    draft = directory / f"{COPY_OF}.{uuid4().hex}.tmp"
    try:
        draft.write_text(url, encoding="utf-8")
        draft.rename(directory / COPY_OF)
    except OSError as error:
        raise ArtifactError(f"The supplement {directory.name} can't be written: {error.strerror}.") from error


def _touch(directory: Path) -> None:
    """Change the stamp: the system's clock of files is coarse, and two changes would be one."""
    with contextlib.suppress(PermissionError):  # only the owner may set it
        os.utime(directory, ns=(time.time_ns(),) * 2)
