"""`/docs`: the API as a page that needs nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from looktwice.serve.problems import Problem

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).parents[1] / "docs_page"
FILES = ("docs.js", "docs.css")


@router.get("/docs")
async def docs() -> Response:
    """Return the page."""
    return FileResponse(FOLDER / "index.html", headers={"Cache-Control": "no-cache"})


@router.get("/docs/{name}")
async def part(name: str) -> Response:
    """Return a script or style of the page."""
    if name not in FILES:
        raise Problem(404, "not_found", "There is nothing here.")
    return FileResponse(FOLDER / name, headers={"Cache-Control": "no-cache"})
