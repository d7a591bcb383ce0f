"""A message to a peer, before it is written for the deliverer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "event", "opendsr_callback", "fides_resume", "fides_pre_approval", "transcend_report", "ketch_status", "test"
]


@dataclass(frozen=True, kw_only=True)
class Message:
    """What is to be sent.

    Attributes:
        kind: what it is of which protocol; how its answers are understood follows from it.
        url: where to. It may hold a token: it is sealed.
        body: JSON, without any identity.
        headers: beside those that the deliverer makes at each attempt: signatures, times.
        method: of HTTP.
    """

    kind: Kind
    url: str
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
