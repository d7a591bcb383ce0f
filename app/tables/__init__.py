"""The SQL tables of the catalog. What a table may hold is said by its constraints; queries are `catalog`'s part.

    datasets ─┬─ units ─┬─ documents
              │         ├─ subset_members ─ subsets ─ datasets
              │         └─ identity_links                     whose they are
              └─ sketches ── sketch_versions ── verifications    (sketches.current_version_id points back)
    reports                         what is measured of a dataset's sketch for a person's request
    privacy_connections ── deliveries ── erasure_requests     who asks, what is told, what is done
    api_keys                        who may ask
    audit_records ─ audit_chain     what was asked and changed; a record is never changed, which triggers see to

A dataset and all that belongs to it never changes once it is there, but that a person's part may be erased. Documents
and units are numbered from 0 within their dataset.
"""

from app.tables.access import ApiKey, AuditChain, AuditRecord
from app.tables.datasets import Dataset, Document, Subset, SubsetMember, Unit
from app.tables.privacy import Delivery, ErasureRequest, IdentityLink, PrivacyConnection, Report
from app.tables.root import Table, UtcDateTime
from app.tables.sketches import Sketch, SketchVersion, Verification

__all__ = [
    "ApiKey",
    "AuditChain",
    "AuditRecord",
    "Dataset",
    "Delivery",
    "Document",
    "ErasureRequest",
    "IdentityLink",
    "PrivacyConnection",
    "Report",
    "Sketch",
    "SketchVersion",
    "Subset",
    "SubsetMember",
    "Table",
    "Unit",
    "UtcDateTime",
    "Verification",
]
