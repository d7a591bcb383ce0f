"""Settings: where they come from, what is refused, and that each is documented."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from app.settings import Settings

README = Path(__file__).parent.parent.parent / "README.md"


def test_defaults_lie_in_the_data_directory(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/catalog.sqlite"
    assert settings.artifacts_dir == tmp_path / "artifacts"


def test_without_anything_the_data_directory_is_var() -> None:
    assert Settings().data_dir == Path("var")
    assert Settings().database_url == "sqlite:///var/catalog.sqlite"


def test_the_environment_sets_what_arguments_dont(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEVERSEEN_PORT", "9000")
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", "/data")
    assert Settings().port == 9000
    assert Settings(port=9001).port == 9001
    assert Settings().artifacts_dir == Path("/data/artifacts")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"])
def test_every_spelling_of_postgresql_means_the_one_driver(scheme: str) -> None:
    settings = Settings(database_url=f"{scheme}://me:s%40cret@host:5433/catalog")
    assert settings.database_url == "postgresql+psycopg://me:s%40cret@host:5433/catalog"


def test_a_password_isnt_shown() -> None:
    assert "hunter2" not in repr(Settings(database_url="postgresql://me:hunter2@host/catalog"))


def test_the_secret_isnt_shown() -> None:
    assert "hunter2" not in repr(Settings(secret=SecretStr("hunter2" * 8)))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 32"):
        Settings(secret=SecretStr("hunter2"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "sqlite://"),
        ("database_url", "sqlite:///:memory:"),
        ("database_url", "mysql://host/catalog"),
        ("database_url", "catalog.sqlite"),
        ("device", "tpu"),
        ("port", "65536"),
        ("port", "-1"),
        ("resident_bytes", "0"),
        ("max_body_bytes", "0"),
        ("table_cache_bytes", "-1"),
    ],
)
def test_a_setting_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"NEVERSEEN_{name.upper()}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert [error["loc"] for error in refused.value.errors()] == [(name,)]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described_and_in_the_readme(name: str) -> None:
    assert Settings.model_fields[name].description
    assert f"`NEVERSEEN_{name.upper()}`" in README.read_text()
