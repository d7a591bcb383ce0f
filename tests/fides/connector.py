"""Calls a service by Fides' connector, and says how it takes the answers; run by the Python of .venv-fides.

Reads calls from standard input, a JSON list; writes what came of them as the last line.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import fides.api.db.base  # type: ignore[import-not-found]  # noqa: F401 - without it the tables aren't all there
from fides.api.models.connectionconfig import ConnectionConfig, ConnectionType  # type: ignore[import-not-found]
from fides.api.models.privacy_request.webhook import SecondPartyRequestFormat  # type: ignore[import-not-found]
from fides.api.schemas.external_https import SecondPartyResponseFormat  # type: ignore[import-not-found]
from fides.api.service.connectors.http_connector import HTTPSConnector  # type: ignore[import-not-found]

REPLIES = {
    "pre": {"reply-to": "resume"},
    "post": {},
    "pre_approval": {"reply-to-approve": "pre-approve/eligible", "reply-to-deny": "pre-approve/not-eligible"},
}


def call(given: dict[str, Any]) -> dict[str, Any]:
    """Make a call as `PrivacyRequest.trigger_policy_webhook` and `trigger_pre_approval_webhook` make it."""
    config = ConnectionConfig(key="neverseen", connection_type=ConnectionType.https, secrets=given["secrets"])
    listens = given["callback_type"] != "pre_approval"
    body = SecondPartyRequestFormat(
        privacy_request_id=given["id"],
        privacy_request_status="in_processing",
        direction="two_way",
        callback_type=given["callback_type"],
        identity={"email": given["email"], **given.get("identity", {})},
        policy_action=given["action"],
        privacy_request={"id": given["id"], "due_date": "2027-01-09T07:17:52.521700+00:00", "custom_fields": None},
        timestamp=datetime.utcnow(),  # noqa: DTZ003 - as Fides does
    )
    base = f"/privacy-request/{given['id']}"
    replies = {name: f"{base}/{path}" for name, path in REPLIES[given["callback_type"]].items()}
    try:
        answer = HTTPSConnector(config).execute(
            body.model_dump(mode="json"),
            response_expected=listens,
            additional_headers={**replies, "reply-to-token": "e..token"} if replies else {},
        )
        halt = SecondPartyResponseFormat(**answer).halt if listens else None
    except Exception as error:  # noqa: BLE001 - which it is, is what is asked
        return {"halt": None, "refused": type(error).__name__}
    return {"halt": halt, "refused": None}


print(json.dumps([call(one) for one in json.load(sys.stdin)]))  # noqa: T201
