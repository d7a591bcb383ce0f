"""A client of the service, synchronous and asynchronous, with the service's own schemas.

    from app.client import Neverseen, loss

    with Neverseen("http://127.0.0.1:8000", key="nvs_…") as neverseen:
        answer = neverseen.predict("names", subset="has-x", measurements=[loss("max")])
        print(answer.predictions[0])

There is one method for each operation of the API, named as it is in the API's document, and for each list one that
fetches on (`iterate_documents`). Wrong arguments are refused before anything is sent. What the service refuses is a
`NeverseenError`; what it refuses for the moment is asked again first.

    operation   what a request is           questions, resources, privacy   the operations
    transport   headers, patience, retries  answers, errors        what becomes of what comes back
    blocking, asynchronous   the two clients
"""

from app.client.asynchronous import AsyncNeverseen
from app.client.blocking import Neverseen
from app.client.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NeverseenError,
    NotFoundError,
    TooManyRequestsError,
    UnauthorisedError,
    UnavailableError,
)
from app.client.questions import log_probability, loss, next_token
from app.schemas.batch import BatchAnswer, BatchItem
from app.schemas.datasets import NewDocument
from app.schemas.predict import Deletion, DistributionAnswer, MeasurementBody, PredictAnswer, PredictionAnswer

__all__ = [
    "AsyncNeverseen",
    "BatchAnswer",
    "BatchItem",
    "ConflictError",
    "Deletion",
    "DistributionAnswer",
    "ForbiddenError",
    "InvalidRequestError",
    "MeasurementBody",
    "Neverseen",
    "NeverseenError",
    "NewDocument",
    "NotFoundError",
    "PredictAnswer",
    "PredictionAnswer",
    "TooManyRequestsError",
    "UnauthorisedError",
    "UnavailableError",
    "log_probability",
    "loss",
    "next_token",
]
