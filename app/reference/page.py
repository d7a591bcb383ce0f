"""The page at `/docs` and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

from app.pages import PageFiles, page_headers

# Swagger UI sets styles of elements in its markup; its pictures are in its style sheet.
_HEADERS: Final = page_headers(styles="'unsafe-inline'", pictures="data:")

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Neverseen: API</title>
<link rel="icon" href="/explorer/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/reference/swagger-ui.css">
<script src="/reference/swagger-ui-bundle.js" defer></script>
<script src="/reference/reference.js" defer></script>
</head>
<body><div id="reference"></div></body>
</html>
"""

router = APIRouter(include_in_schema=False)


@router.api_route("/docs", methods=["GET", "HEAD"], response_class=HTMLResponse)
async def reference() -> HTMLResponse:
    """The page, which needs no key; what is tried out there may."""
    return HTMLResponse(_PAGE, headers=_HEADERS)


def install(app: FastAPI) -> None:
    """Add the page and its files to an application."""
    app.include_router(router)
    files = PageFiles(Path(__file__).with_name("static"), _HEADERS, package=("fastapi_swagger", "resources"))
    app.mount("/reference", files, name="reference_files")
