"""Artifacts of a directory, put into an object store: how an installation moves to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from app import catalog
from app.db import Database, transaction
from app.predictor import Artifact
from app.secret import load_secret
from app.serving import located
from app.settings import Settings
from engine import supplements
from engine.errors import ArtifactError, ConfigurationError, StoreError
from engine.remote import find_published, upload
from engine.store import MANIFEST, open_artifact

Tell = Callable[[str], None]
"""Called with the label of each version once its artifact is in the store."""


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What is in the store now.

    Attributes:
        versions: sketch versions whose artifacts are.
        models: that were retrained beside them, and were put there now.
        damaged: what isn't, a sentence each.
    """

    versions: int
    models: int
    damaged: tuple[str, ...]


def upload_artifacts(database: Database, settings: Settings, *, tell: Tell = lambda label: None) -> Uploaded:
    """Put the artifacts that rows name, and what was retrained beside them, into the store. Again is harmless.

    Nothing is removed here. Models that were retrained without units which are erased by now aren't uploaded.

    Args:
        database: the catalog.
        settings: the directory and the store.
        tell: called as it goes on.

    Raises:
        ConfigurationError: there is no store.
        StoreError: the store refuses, or is away.
    """
    if settings.artifacts_url is None:
        raise ConfigurationError("There is no store to put artifacts into: set NEVERSEEN_ARTIFACTS_URL.")
    settings.artifacts.claim(load_secret(settings).installation)
    with transaction(database, writes=False) as session:
        named = [located(version, settings.artifacts) for version in catalog.kept_versions(session)]
        erased = {settings.artifacts.path(one.location): one.units for one in catalog.erased_artifacts(session)}
    versions, models, damaged = 0, 0, []
    for artifact in named:
        try:
            if artifact.path in erased:
                supplements.remove(artifact.path, erased[artifact.path])
            models += _uploaded(artifact)
        except StoreError:
            raise
        except (ArtifactError, ConfigurationError) as error:
            damaged.append(f"{artifact.label}: {error}")
        except OSError as error:
            damaged.append(f"{artifact.label}: a model without erased units can't be removed: {error.strerror}.")
        else:
            versions += 1
            tell(artifact.label)
    return Uploaded(versions=versions, models=models, damaged=tuple(damaged))


def _uploaded(artifact: Artifact) -> int:
    """Have an artifact in the store; how many models were put beside it."""
    assert artifact.origin is not None
    there = find_published(artifact.origin)
    if there is None:
        there = upload(open_artifact(artifact.path, checksum=artifact.checksum), artifact.origin)
    if there.checksum != artifact.checksum:
        raise ArtifactError("The store holds another artifact in its place.")
    if not (artifact.path / MANIFEST).exists():
        return 0  # it was built elsewhere
    opened = open_artifact(artifact.path, checksum=artifact.checksum, files=())
    return supplements.share(replace(opened, origin=artifact.origin))
