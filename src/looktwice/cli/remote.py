"""Search by a running server: the same output and exit codes as a search of a folder, without loading a model."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import typer

from looktwice.cli.answers import show_hits
from looktwice.cli.bare import bare_kind
from looktwice.cli.console import note
from looktwice.cli.question import is_file
from looktwice.cli.summary import summarise
from looktwice.cli.unused import is_given, refuse_examples, refuse_middle, refuse_unused
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.cli.options import Output
    from looktwice.cli.question import Question
    from looktwice.client import Client, RemoteAnswer

_ADDRESS = re.compile(r"(https?):/+([^/]+)(?:/(.*))?\Z", re.IGNORECASE)
CHOSEN = ("distinct", "examples", "maxsim", "zoom", "shown")
KNOWN = frozenset(
    {
        *("path", "query", "image", "text", "like", "unlike", "k", "shortlist", "where", "no_rerank", "prompt"),
        *("fusion", "explain", "json", *CHOSEN),
    }
)
"""Parameters of `search` that a server takes."""
OWN_FIX = {
    "api_key_file": "put the server's key into the variable LOOKTWICE_API_KEY",
    "queries": "a server takes one query at a time: search its table without it, or use looktwice.Client",
    "tables": "name one table in the address, such as http://HOST:PORT/photos, or use looktwice.Client with table=[…]",
}
"""What to do in place of some parameters."""
OTHER_FIX = "leave it out, or search the table without a server: looktwice search TABLE"


def is_address(path: Path) -> bool:
    """Return whether TABLE is the address of a server; a Path has lost one of its slashes.

    >>> is_address(Path("http://127.0.0.1:8765")), is_address(Path("photos.lt"))
    (True, False)
    """
    return _ADDRESS.match(str(path)) is not None


def search(ctx: typer.Context, path: Path, question: Question, output: Output) -> None:
    """Search by the server at `path`, and write its answer. Exits with code 3 if a candidate was not scored."""
    _refuse_others(ctx)
    query = (question.query, question.image, question.text) != (None, None, None)
    refuse_examples(ctx, query + len(question.like or ()))
    url, table = _split(path)
    fields: dict[str, Any] = {"table": table, "explain": True, "rerank": not ctx.params["no_rerank"]}
    fields |= {name: _given(ctx, name) for name in ("prompt", "fusion", "shortlist", *CHOSEN)}
    fields |= {"k": ctx.params["k"], "where": _filter(ctx.params["where"])}
    name, query = _query(question)
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # its command line, which loads rich's widgets
    from looktwice.client import Client

    with Client(url) as client:
        fields |= {side: _examples(client, table, getattr(question, side)) for side in ("like", "unlike")}
        answer = client.search(query, **fields)
    _refuse_unused(ctx, answer.manifest)
    if show(name, answer, output.json, output.explain):
        raise typer.Exit(3)


def show(name: str, answer: RemoteAnswer, json: bool, explain: bool) -> bool:
    """Write an answer; return whether candidates were left without a score. Raises ServerError for another form."""
    from looktwice.client.answers import in_our_form

    with in_our_form():
        show_hits(name, answer.hits, json=json, explain=explain)
        sys.stdout.flush()
        summarise(answer.manifest)
        return _say_what_is_left(answer.manifest["candidates"])


def _say_what_is_left(counts: Mapping[str, Any]) -> bool:
    """Say how many candidates were not scored, and why; return whether there are any."""
    left: int = counts["requested"] - counts["scored"]
    if left > 0:
        why = ", ".join(f"{count} {reason}" for reason, count in counts["reasons"].items()) or "no usable answer"
        note(f"Not scored: {left:,} candidates ({why}); they rank below the others.")
    return left > 0


def _filter(where: str | None) -> Mapping[str, Any] | None:
    """Return a filter as a server takes it. Raises UsageError for SQL."""
    if where is None:
        return None
    try:
        found = json.loads(where)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError('A server takes filters as JSON only; write one such as: --where \'{"year": {">": 2020}}\'')
    return found


def _given(ctx: typer.Context, name: str) -> Any:
    """Return the value of an option that was given, None for its default: the server has defaults of its own."""
    return ctx.params[name] if is_given(ctx, name) else None


def _split(path: Path) -> tuple[str, str | None]:
    """Return the address of the server, and the table that its path names, if any."""
    found = _ADDRESS.match(str(path))
    assert found is not None
    table = (found[3] or "").strip("/")
    return f"{found[1].lower()}://{quote(found[2], safe='[]:@')}", unquote(table) or None


def _query(question: Question) -> tuple[str, Any]:
    """Return the query's name and what to send. Raises UsageError as for a folder."""
    if question.query is not None:
        if question.image is not None or question.text is not None:
            raise UsageError("QUERY excludes --image and --text; give only one of them.")
        image = bare_kind(question.query) == "image"
        return question.query, {"image": Path(question.query)} if image else {"text": question.query}
    given: dict[str, Any] = {} if question.text is None else {"text": question.text}
    if question.image is not None:
        given["image"] = question.image
    if not given and not question.like:
        raise UsageError("The query is missing; give an image file, a text, or examples with --like.")
    return str(question.image or question.text or " + ".join(question.like or ())), given or None


def _examples(client: Client, table: str | None, names: list[str] | None) -> list[Any] | None:
    """Return examples as a search of a folder reads them: a file is an image; else the table decides."""
    if not names:
        return None
    known = [str(one["name"]) for one in client.tables()] if table is None else [table]
    return [_example(client, known, name) for name in names]


def _example(client: Client, tables: list[str], name: str) -> Any:
    """Return one example: the path of an image, the id of an item, or a text. Raises UsageError for the path of none.

    Without one table to ask, a name counts as an id: the search will say what is wrong.
    """
    from looktwice.search.inputs import looks_like_path

    if is_file(name):
        return Path(name)
    if len(tables) != 1 or _has_item(client, tables[0], name):
        return name
    if looks_like_path(name):
        raise UsageError(f"{name!r} is neither a file nor an item of {tables[0]}; check the name.")
    return {"text": name}


def _has_item(client: Client, table: str, name: str) -> bool:
    try:
        client.get(name, table)
    except UsageError:  # a wrong table or key is refused again by the search
        return False
    return True


def _refuse_unused(ctx: typer.Context, manifest: Mapping[str, Any]) -> None:
    """Raise UsageError for a given option that had no effect: only the answer says which looks the server takes."""
    middle, second = "middle_look" in manifest, manifest.get("second_look") is not None
    refuse_middle(ctx, int(middle))
    if not second:
        refuse_unused(ctx, ("prompt", "fusion", "shown"), "on a server without a second look")
    if not second and not middle:
        refuse_unused(ctx, ("examples",), "without a middle look or a second look")


def _refuse_others(ctx: typer.Context) -> None:
    """Raise UsageError for a given option that no request has, with what to do: of `serve` only options that it has."""
    from looktwice.cli.serve import serve

    for option in ctx.command.params:
        if option.name in KNOWN or not is_given(ctx, str(option.name)):
            continue
        name = option.opts[0]
        there = option.name in signature(serve).parameters
        fix = f"set it where the server is started: looktwice serve TABLE {name}" if there else OTHER_FIX
        raise UsageError(f"{name} cannot be sent to a server; {OWN_FIX.get(str(option.name), fix)}.")
