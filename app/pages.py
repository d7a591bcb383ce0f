"""What pages of ours have in common: files that lie here, and the policy that browsers hold them to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope


def page_headers(*, styles: str = "", pictures: str = "") -> dict[str, str]:
    """The headers of a page and its files: nothing from elsewhere, no script that is inline, and in nobody's frame.

    Args:
        styles: further sources of style sheets, as a policy names them.
        pictures: likewise.
    """
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {styles}".strip(),
        f"img-src 'self' {pictures}".strip(),
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",  # kept, and compared by its tag: no old script meets a new page
    }


class PageFiles(StaticFiles):
    """The files of a page, with its headers."""

    def __init__(self, directory: Path, headers: Mapping[str, str], *, package: tuple[str, str] | None = None) -> None:
        """Looks for nothing yet.

        Args:
            directory: of our files.
            headers: of all answers.
            package: name of one that brings others, and the directory in it.
        """
        super().__init__(directory=directory, packages=None if package is None else [package])
        self._headers = headers

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or why not."""
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response
