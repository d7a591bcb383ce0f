"""The catalog: every query of the application, as functions.

They take a session first, flush, and never commit: the transaction is their caller's (`app.db.transaction`). What
they refuse they refuse with an error of `app.errors` or `engine.errors`, before anything is written.
"""

from app.catalog.datasets import (
    UnitDescription,
    add_dataset,
    describe_units,
    get_dataset,
    list_datasets,
    list_documents,
    list_units,
    load_documents,
)
from app.catalog.deletion import (
    ByDocuments,
    BySubset,
    ByUnits,
    Containing,
    Deletion,
    Matching,
    ResolvedDeletion,
    SubsetRule,
    resolve_units,
)
from app.catalog.pages import Page
from app.catalog.sketches import (
    check_sketch,
    current_versions,
    get_sketch,
    get_version,
    list_sketches,
    list_versions,
    promote,
    register_version,
    retire,
)
from app.catalog.subsets import add_subset, get_subset, list_subsets
from app.catalog.verifications import (
    Claim,
    add_verification,
    claim_verification,
    fail_verification,
    finish_verification,
    get_verification,
    list_verifications,
    measurements_of,
    next_verification,
    release_claim,
    renew_claim,
)

__all__ = [
    "ByDocuments",
    "BySubset",
    "ByUnits",
    "Claim",
    "Containing",
    "Deletion",
    "Matching",
    "Page",
    "ResolvedDeletion",
    "SubsetRule",
    "UnitDescription",
    "add_dataset",
    "add_subset",
    "add_verification",
    "check_sketch",
    "claim_verification",
    "current_versions",
    "describe_units",
    "fail_verification",
    "finish_verification",
    "get_dataset",
    "get_sketch",
    "get_subset",
    "get_verification",
    "get_version",
    "list_datasets",
    "list_documents",
    "list_sketches",
    "list_subsets",
    "list_units",
    "list_verifications",
    "list_versions",
    "load_documents",
    "measurements_of",
    "next_verification",
    "promote",
    "register_version",
    "release_claim",
    "renew_claim",
    "resolve_units",
    "retire",
]
