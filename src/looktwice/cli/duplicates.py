"""`looktwice duplicates`: list groups of near-duplicates, as a linter would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.answers import MOST_IN_REPORT
from looktwice.cli.console import emit, note, number, plural, progress, table
from looktwice.cli.groups import grouped, names
from looktwice.cli.outputs import check_outputs
from looktwice.cli.unused import refuse_servers, refuse_tokens, refuse_unused

if TYPE_CHECKING:
    from looktwice.search.duplicates import DuplicateGroup
    from looktwice.store import Table

SECOND = {*names(options.Rerank, options.StoredTokens), "min_p"}
"""Parameters that only the second look uses."""

MOST_NOTES = 5


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("duplicates", short_help="List groups of near-duplicates.")(duplicates)


@grouped
def duplicates(
    ctx: typer.Context,
    path: options.TablePath,
    *,
    min_cosine: options.MinCosine = 0.97,
    where: options.Where = None,
    second_look: Annotated[
        bool, typer.Option("--rerank", help="Ask the MLLM about every pair, and list only those with --min-p.")
    ] = False,
    min_p: Annotated[float, typer.Option(help="Least p of a pair that is listed; needs --rerank.")] = 0.5,
    rerank: options.Rerank,
    tokens: options.StoredTokens,
    compute: options.Compute,
    urls: options.UrlOptions,
    report: Annotated[Path | None, typer.Option(help="Write one HTML file that shows the groups as images.")] = None,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 even if there are duplicates.")] = False,
    json: options.Json = False,
) -> None:
    """List groups of items that look the same: the one to keep, and its near-duplicates.

    The one to keep is the largest image, and a file rather than a link to it. Every pair is compared, so the time grows
    with the square of the table: some seconds for 20,000 items, minutes for 100,000. Nothing is deleted; `looktwice
    delete` does that.

    With --rerank, items that the MLLM could not see are no duplicates: notes say so, and --json lists them as
    "unscored".

    The exit code is 3 if there are duplicates or items that could not be scored, else 0.

    Examples:

      looktwice duplicates photos.lt --report duplicates.html

      looktwice duplicates photos.lt --json | jq -r ".duplicates[].id" | xargs -d "\\n" looktwice delete photos.lt --
    """
    from looktwice.search.distinct import least_cosine
    from looktwice.search.duplicates import find_duplicates
    from looktwice.store import Table

    if not second_look:
        refuse_unused(ctx, SECOND, "without --rerank")
    refuse_servers(ctx)
    check_outputs(None, report)
    compute.set_threads()
    least, opened = least_cosine(min_cosine), Table.open(path)
    assert least is not None
    groups = find_duplicates(opened, least, where)
    if second_look:
        refuse_tokens(ctx, opened, tokens.codec)
        groups = _looked_at(groups, opened, rerank, compute, min_p, {"urls": urls.allowed, **tokens.choice})
    unscored, all_groups = [group for group in groups if group.error], groups
    groups = [group for group in groups if group.duplicates]
    _show(all_groups if json else groups, json)
    if report is not None:
        _report(report, opened, groups, {"table": str(path), "min_cosine": least, "second_look": second_look}, urls)
    _note_found(groups, opened.count(where))
    _note_unscored(unscored)
    if (groups and not exit_zero) or unscored:
        raise typer.Exit(3)


def _looked_at(
    groups: Sequence[DuplicateGroup],
    opened: Table,
    rerank: options.Rerank,
    compute: options.Compute,
    min_p: float,
    how: Mapping[str, Any],
) -> list[DuplicateGroup]:
    """Ask the MLLM about every pair."""
    from looktwice.search.duplicates import look_twice
    from looktwice.search.retriever import Retriever

    found = []
    look = rerank.load(compute)
    with closing(look), progress("groups", "groups", len(groups)) as bar:
        for group in look_twice(groups, Retriever(opened, scorer=look, **how), min_p):
            found.append(group)
            bar.advance()
    return found


def _note_found(groups: Sequence[DuplicateGroup], items: int) -> None:
    extra = sum(len(group.duplicates) for group in groups)
    many = f"{plural(extra, 'near-duplicate')} in {plural(len(groups), 'group')}"
    note(f"{many}, of {plural(items, 'item')}." if groups else "No near-duplicates.")


def _note_unscored(groups: Sequence[DuplicateGroup]) -> None:
    """Name what may be a duplicate, but was not scored."""
    for group in groups[:MOST_NOTES]:
        note(f"Not looked at, in the group of {group.keep!r}: {group.error}")
    if len(groups) > MOST_NOTES:
        note(f"Not looked at: items of {plural(len(groups) - MOST_NOTES, 'more group')}; --json names all.")


def _show(groups: Sequence[DuplicateGroup], json: bool) -> None:
    if json:
        for group in groups:
            emit(group.record())
    elif groups:
        rows = [
            (n if i == 0 else "", group.keep if i == 0 else "", one.id, number(one.coarse), number(one.p))
            for n, group in enumerate(groups, start=1)
            for i, one in enumerate(group.duplicates)
        ]
        table(["#", "keep", "near-duplicate", ">coarse", ">p"], rows)


def _report(
    target: Path, opened: Table, groups: Sequence[DuplicateGroup], manifest: dict[str, object], urls: options.UrlOptions
) -> None:
    from looktwice.files import followed
    from looktwice.report import write_report
    from looktwice.report.viewer import group_views
    from looktwice.search.resolve import in_table

    shown = groups[:MOST_IN_REPORT]
    views = group_views(in_table(opened, urls.allowed), shown)
    title = f"Near-duplicates in {opened.path}"
    write_report(followed(target), title=title, manifest=manifest, queries=views, total=len(groups))
    note(f"Report: {target}")
