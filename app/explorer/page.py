"""The page at `/`, its files, and the policy that browsers hold both to: nothing from elsewhere, nothing inline."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.parts import parts_of
from app.privacy.page import STYLE_DIGEST

FILES: Final = Path(__file__).with_name("static")

# Evidence is shown in a frame, which is held to this policy, too: its one style sheet is known by its digest.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' 'sha256-{STYLE_DIGEST}'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, and compared by its tag: no old script meets a new page
}

_templates = Environment(
    loader=PackageLoader("app.explorer"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)

router = APIRouter(include_in_schema=False)


@router.get("/", response_class=HTMLResponse)
async def explorer(request: Request) -> HTMLResponse:
    """The page. It holds nothing that needs a key."""
    modules = sorted(path.name for path in FILES.glob("*.js"))
    page = _templates.get_template("explorer.html").render(
        modules=modules,
        most_measurements=parts_of(request).settings.max_measurements,
        version=version("neverseen"),
    )
    return HTMLResponse(page, headers=_HEADERS)


class _Files(StaticFiles):
    """Files under the page's own policy."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or why not."""
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def install(app: FastAPI) -> None:
    """Add the page and its files to an application."""
    app.include_router(router)
    app.mount("/explorer", _Files(directory=FILES), name="explorer_files")
