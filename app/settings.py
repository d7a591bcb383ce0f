"""Every setting of the application: environment variables that begin with NEVERSEEN_."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.artifacts import Artifacts
from engine.errors import ConfigurationError
from engine.locations import parse_location


def _catalog_in(values: dict[str, Any]) -> str:
    return f"sqlite:///{values['data_dir'] / 'catalog.sqlite'}"


def _artifacts_in(values: dict[str, Any]) -> Path:
    directory: Path = values["data_dir"] / "artifacts"
    return directory


def _signing_key_in(values: dict[str, Any]) -> Path:
    file: Path = values["data_dir"] / "signing-key.pem"
    return file


class Settings(BaseSettings):
    """The settings, read from the environment; an explicit argument wins over it."""

    model_config = SettingsConfigDict(env_prefix="NEVERSEEN_", frozen=True, extra="ignore", validate_default=True)

    data_dir: Path = Field(default=Path("var"), description="Directory of the catalog and the artifacts.")
    artifacts_dir: Path = Field(
        default_factory=_artifacts_in, description="Directory of the artifacts; artifacts in the data directory."
    )
    artifacts_url: str | None = Field(
        default=None,
        description="Object store of the artifacts, s3://… or gs://…; the artifacts directory is then a cache of it.",
    )
    signing_key_file: Path = Field(
        default_factory=_signing_key_in,
        description="Key that evidence is signed with, PEM; `signing-key.pem` in the data directory, made once.",
    )
    database_url: str = Field(
        default_factory=_catalog_in,
        repr=False,  # it may hold a password
        description="Catalog's database, sqlite:///PATH or postgresql://…; catalog.sqlite in the data directory.",
    )
    device: str = Field(
        default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Where sketches are resident: cpu, cuda or cuda:N."
    )
    resident_bytes: int = Field(
        default=2 * 2**30, gt=0, description="Budget for resident sketches; the least recently used goes first."
    )
    table_cache_bytes: int = Field(default=256 * 2**20, ge=0, description="Budget for cached measurement tables.")
    cluster: str | None = Field(
        default=None,
        min_length=1,
        description="Ray cluster that holds the sketches in shards: auto, local or ADDRESS; by default none.",
    )
    shards: int | None = Field(
        default=None, gt=0, description="Shards of a sketch; by default one for each GPU, or else for each machine."
    )
    least_share: float = Field(
        default=0.5, gt=0, le=1, description="Of the shards, what must be there to measure with; with fewer, 503."
    )
    host: str = Field(default="127.0.0.1", description="Address that the server listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that the server listens on; 0 takes a free one.")
    max_body_bytes: int = Field(default=16 * 2**20, gt=0, description="Largest body of a request; a larger one is 413.")
    max_measurements: int = Field(default=64, gt=0, le=64, description="Most measurements of a request.")
    max_units: int = Field(default=100_000, gt=0, description="Most units of a deletion set that is asked about.")
    requests_per_minute: int = Field(
        default=0, ge=0, description="Of a key, in each process; 0 is no limit. A key's own limit wins."
    )
    queue_length: int = Field(
        default=128, gt=0, description="Questions that wait for the engine; further ones are refused with 503."
    )
    request_seconds: float = Field(default=60, gt=0, description="Time for a request, from its head to its answer.")
    body_seconds: float = Field(default=15, gt=0, description="Time for a request's body to arrive.")
    head_seconds: float = Field(default=10, gt=0, description="Time for a request's head to arrive.")
    max_connections: int = Field(default=2_000, gt=0, description="Open connections; further ones are refused.")
    secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Key of the hashes in the catalog; by default a file `secret` in the data directory, made once.",
    )
    encryption_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Key that secrets of connections are encrypted with in the catalog; by default made of the secret.",
    )
    privacy_worker: bool = Field(
        default=True, description="Whether the service works on erasure requests; else `neverseen worker` has to."
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description='Origins whose pages may call the API, a JSON list; ["https://app.example.org"].'
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="Of the log on standard error; auto is text on a terminal, else json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")

    @property
    def artifacts(self) -> Artifacts:
        """Where artifacts lie."""
        return Artifacts(directory=self.artifacts_dir, url=self.artifacts_url)

    @field_validator("artifacts_url")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            location = parse_location(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        if isinstance(location, Path):
            raise ValueError("not an object store: give s3://BUCKET/PREFIX, or NEVERSEEN_ARTIFACTS_DIR for a directory")
        return location

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        try:
            url = make_url(value)
        except ArgumentError:
            raise ValueError("not a database URL: give sqlite:///PATH or postgresql://USER@HOST/NAME") from None
        match url.get_backend_name():
            case "postgresql" | "postgres":
                url = url.set(drivername="postgresql+psycopg")
            case "sqlite" if url.database in (None, "", ":memory:"):
                raise ValueError("a SQLite catalog is a file (a database in memory is one for each thread)")
            case "sqlite":
                pass
            case backend:
                raise ValueError(f"{backend} isn't supported: SQLite and PostgreSQL are")
        return url.render_as_string(hide_password=False)
