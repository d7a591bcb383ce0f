"""The file of a model that was retrained after an artifact was built; `engine.supplements` keeps them.

    parameters    [P], the trained parameters, flat, in the order of `ModelConfiguration.shapes`, as trained
    units         [|D|], int64, ascending: the deletion set
    metadata      `format`, `format_version`, `artifact` (its checksum), `sha256` (of units and parameters)

Its name is the SHA-256 of artifact and deletion set, so a set is retrained once, whoever asks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import ArtifactError, DeletionSetError
from engine.question import check_units
from engine.store import Artifact

FORMAT: Final = "neverseen-supplement"
FORMAT_VERSION: Final = "1"
ENDING: Final = ".safetensors"

_NAME: Final = re.compile(rf"[0-9a-f]{{64}}{re.escape(ENDING)}")


def file_name(checksum: str, units: Sequence[int]) -> str:
    """The name of the file of a deletion set, beside the artifact of this checksum."""
    content = json.dumps([checksum, sorted(units)])
    return hashlib.sha256(content.encode()).hexdigest() + ENDING


def is_file_name(name: str) -> bool:
    """Whether a file of a supplement can be named so; no other name is taken from a store."""
    return _NAME.fullmatch(name) is not None


def contents(artifact: Artifact, units: Sequence[int], model: Tensor) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file.

    Args:
        artifact: that the model was retrained for.
        units: of the deletion set, ascending.
        model: the trained parameters, [P].
    """
    tensors = {"parameters": model, "units": torch.tensor(units, dtype=torch.int64)}
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "artifact": artifact.checksum,
        "sha256": _digest(tensors["units"], model),
    }
    return tensors, metadata


def read_file(artifact: Artifact, path: Path) -> tuple[tuple[int, ...], Tensor]:
    """Deletion set and parameters of a file.

    Raises:
        ArtifactError: it is missing, damaged, foreign, or of another format version.
    """
    name = f"{path.name[:12]}…"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{name} isn't a readable safetensors file.") from error
    if metadata.get("format") != FORMAT or tensors.keys() != {"parameters", "units"}:
        raise ArtifactError(f"{name} isn't a file of a supplement.")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"{name} has format version {metadata.get('format_version')!r}; this release reads {FORMAT_VERSION}."
        )
    if metadata.get("artifact") != artifact.checksum:
        raise ArtifactError(f"{name} belongs to another artifact.")
    model, units = tensors["parameters"], tensors["units"]
    configuration = artifact.manifest.configuration
    if (model.shape, model.dtype) != ((configuration.model.parameter_count,), configuration.torch_dtype):
        raise ArtifactError(f"{name} doesn't hold the parameters of the artifact's model.")
    if metadata.get("sha256") != _digest(units, model):
        raise ArtifactError(f"{name} doesn't have its SHA-256: damaged.")
    numbers = tuple(units.tolist())
    try:
        check_units(numbers, artifact.manifest.plan.source.units)
    except DeletionSetError as error:
        raise ArtifactError(f"{name} isn't about a deletion set: {error}") from error
    if path.name != file_name(artifact.checksum, numbers):
        raise ArtifactError(f"{name} doesn't have the name of its deletion set.")
    return numbers, model


def _digest(units: Tensor, model: Tensor) -> str:
    return hashlib.sha256(units.numpy().tobytes() + model.numpy().tobytes()).hexdigest()
