"""The data that come with the package; their provenance is in README.md beside them."""

from __future__ import annotations

from importlib.resources import files

from engine.documents import Documents, parse_documents


def census_names() -> Documents:
    """The 5,163 first names of the 1990 US Census lists, shuffled once and for all."""
    return parse_documents(files(__name__).joinpath("census_names.txt").read_text(encoding="utf-8"))
