"""The log on standard error: a JSON object a line, or text for people. Every line says which request it belongs to."""

from __future__ import annotations

import logging
import sys
from typing import Final

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.observation import request_id
from app.settings import Settings

_QUIET: Final = ("uvicorn.access", "httpx", "httpcore")
_TEXT: Final = "%(levelname)-7s %(message)s%(about)s"


def set_up_logging(settings: Settings) -> None:
    """Log what the settings say, in their format, for the whole process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_told)
    if settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty()):
        handler.setFormatter(
            JsonFormatter(
                ["asctime", "levelname", "name", "message", "request_id"],
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
                reserved_attrs=(*RESERVED_ATTRS, "about", "color_message"),
            )
        )
    else:
        handler.setFormatter(logging.Formatter(_TEXT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("app").setLevel(settings.log_level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _told(record: logging.LogRecord) -> bool:
    """Add to a line which request it belongs to, and for people how long that took."""
    record.request_id = request_id.get()
    milliseconds = getattr(record, "milliseconds", None)
    record.about = "" if milliseconds is None else f"  {milliseconds:.1f} ms"
    return True
