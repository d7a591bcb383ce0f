"""Signatures of Standard Webhooks (standardwebhooks.com, 1.0.0), of our own events and beside other protocols' headers.

webhook-id          the same at every attempt: who has seen it needn't look at it again
webhook-timestamp   of the attempt
webhook-signature   of id, timestamp and body, one for each secret, so that secrets can be changed without a gap
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook


def signature_headers(message_id: str, body: str, secrets: Sequence[str], *, now: datetime) -> dict[str, str]:
    """The headers that sign a message.

    Args:
        message_id: the same at every attempt.
        body: as it is sent, in UTF-8.
        secrets: whsec_…, the newest first; at least one.
        now: this moment.
    """
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, now, body) for secret in secrets),
    }
