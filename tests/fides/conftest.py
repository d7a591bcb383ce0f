"""The catalogs of the application's tests, and persons in them; of SQLite alone, for Fides sees no difference."""

from __future__ import annotations

import pytest

from tests.app.conftest import _no_settings_from_outside, artifact, database, settings, sketch, sqlite_template
from tests.app.privacy.conftest import linked, secret

__all__ = [
    "_no_settings_from_outside",
    "artifact",
    "database",
    "linked",
    "secret",
    "settings",
    "sketch",
    "sqlite_template",
]  # fixtures


@pytest.fixture
def backend() -> str:
    """The kind of database."""
    return "sqlite"
