"""The page at `/` and its files."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from app.pages import PageFiles, page_headers
from app.parts import parts_of
from app.privacy.page import STYLE_DIGEST

_FILES: Final = Path(__file__).with_name("static")

# Evidence is shown in a frame, which is held to this policy, too: its one style sheet is known by its digest.
_HEADERS: Final = page_headers(styles=f"'sha256-{STYLE_DIGEST}'")

_templates = Environment(
    loader=PackageLoader("app.explorer"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"], response_class=HTMLResponse)
async def explorer(request: Request) -> HTMLResponse:
    """The page. It holds nothing that needs a key."""
    page = _templates.get_template("explorer.html").render(
        modules=sorted(path.name for path in _FILES.glob("*.js")),
        most_measurements=parts_of(request).settings.max_measurements,
        version=version("neverseen"),
    )
    return HTMLResponse(page, headers=_HEADERS)


def install(app: FastAPI) -> None:
    """Add the page and its files to an application."""
    app.include_router(router)
    app.mount("/explorer", PageFiles(_FILES, _HEADERS), name="explorer_files")
