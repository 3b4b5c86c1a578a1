"""Write the answers of `search` and `rerank`: hits, a run file, a report, one line of summary, the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from looktwice.cli.console import emit, json_line, mute_stdout, note, number, plural, progress, say, table
from looktwice.cli.explained import in_words
from looktwice.cli.outputs import Output, has_room_beside, settings_beside
from looktwice.cli.summary import advise, summarise
from looktwice.errors import LooktwiceError
from looktwice.files import followed, write_whole

if TYPE_CHECKING:
    from looktwice.report import QueryView
    from looktwice.report.viewer import Viewer
    from looktwice.search.answer import Answer
    from looktwice.search.middle_stage import MiddleStage
    from looktwice.search.run_record import RunStats
    from looktwice.sources.loader import Resolver
    from looktwice.sources.queries import Queries
    from looktwice.types import Hit

MOST_IN_REPORT = 200
GONE = ("missing", "dangling-link")
"""Reasons of images that are not where they were."""


@dataclass
class Outputs:
    """The outputs of answers. `find` resolves the candidates of a report; `queries` is the file of queries, if any.

    `tag` names the run in its file and manifest; `extra` are further keys of the manifest. With `middle`, reports and
    explanations say which tokens matched.
    """

    json: bool
    run: Path | None
    report: Path | None
    find: Resolver
    queries: Queries | None = None
    explain: bool = False
    tag: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    middle: MiddleStage | None = None
    _run: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    _views: list[QueryView] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        output: Output,
        find: Resolver,
        queries: Queries | None = None,
        extra: Mapping[str, Any] | None = None,
        middle: MiddleStage | None = None,
    ) -> Outputs:
        """Return the outputs that a verb's options ask for."""
        named = {} if output.tag is None else {"tag": output.tag}
        more = {**named, **(extra or {})}
        return cls(output.json, output.run, output.report, find, queries, output.explain, output.tag, more, middle)

    def write(self, answers: Iterable[Answer]) -> None:
        """Write every answer. Exits with code 3 if a query or a candidate could not be read or scored."""
        from looktwice.search.run_record import RunStats, run_manifest

        total, settings, failed = RunStats(), dict[str, Any](), dict[str, LooktwiceError]()
        for answer in self._counted(answers):
            if answer.error is not None:
                failed[answer.error.query] = answer.error
                continue
            total.add(answer.stats)
            settings = dict(answer.settings)
            self._one(answer)
        if failed and not total.queries:
            raise next(iter(failed.values()))
        manifest = run_manifest({**settings, **self.extra}, total)
        self._files(manifest)
        summarise(manifest)
        advise(manifest)
        for name, why in list(total.unreadable.items())[:5]:
            note(f"Not scored: {name}: {why}")
        if len(total.unreadable) > 5:
            note(f"… and {len(total.unreadable) - 5:,} more that could not be read.")
        _say_what_is_gone(total)
        broken: dict[str, LooktwiceError] = {**(self.queries.broken if self.queries is not None else {}), **failed}
        for name, problem in broken.items():
            note(f"Query {name} was skipped: {problem}.")
        if broken or total.scored < total.requested:
            raise typer.Exit(3)

    def _counted(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        if self.queries is None:
            yield from answers
            return
        with progress("queries", "queries", len(self.queries)) as bar:
            for answer in answers:
                yield answer
                bar.advance()

    def _one(self, answer: Answer) -> None:
        name = answer.query.id
        if self.run is not None:
            self._run[name] = [(hit.id, hit.score) for hit in answer.ranking]
        if self.report is not None and len(self._views) < MOST_IN_REPORT:
            self._views.append(self._viewer.view(answer))
        try:
            self._show(name, answer)
        except BrokenPipeError:  # the reader (head, less) has closed the pipe; files are still written
            if self.run is None and self.report is None:
                raise
            mute_stdout()

    def _show(self, name: str, answer: Answer) -> None:
        if answer.least_p is not None and not answer.hits:
            note(f"No hit has p ≥ {answer.least_p:.4f}, as that precision takes; leave out --min-precision to see all.")
        if self.json or self.queries is None or (self.run is None and self.report is None):
            title = None if self.queries is None else f"query {name}"
            show_hits(name, self._hits(answer), json=self.json, explain=self.explain, title=title)

    def _hits(self, answer: Answer) -> list[Hit]:
        """Return the hits; with --explain, those of a middle look say which tokens matched."""
        if not self.explain or self.middle is None or answer.middle is None:
            return answer.hits
        from looktwice.search.match_map import matches_of

        found = matches_of(self.middle, answer.query, [hit.id for hit in answer.hits])
        own = {name: {"matches": [match.record() for match in rows]} for name, rows in found.items()}
        return [replace(hit, explain={**(hit.explain or {}), **own.get(hit.id, {})}) for hit in answer.hits]

    @cached_property
    def _viewer(self) -> Viewer:
        from looktwice.report.viewer import Viewer

        return Viewer(self.find, middle=self.middle)

    def _files(self, manifest: Mapping[str, Any]) -> None:
        if self.run is not None:
            from looktwice.evaluate import write_run

            made_by, is_file = "", has_room_beside(self.run)
            if not is_file:
                sys.stdout.flush()  # the run may go to stdout too, so keep the order
            write_run(followed(self.run), self._run, self.tag or "looktwice")
            if is_file:
                beside = settings_beside(self.run)
                write_whole(beside, (json.dumps(json.loads(json_line(manifest)), indent=1) + "\n").encode())
                made_by = f", their settings in {beside}"
            note(f"{plural(sum(map(bool, self._run.values())), 'ranking')} in {self.run}{made_by}.")
        if self.report is not None:
            from looktwice.report import write_report

            total = manifest["queries"]
            write_report(followed(self.report), title="looktwice", manifest=manifest, queries=self._views, total=total)
            cut = f" (the first {len(self._views):,} of {total:,} queries)" if len(self._views) < total else ""
            note(f"Report: {self.report}{cut}")


def _say_what_is_gone(total: RunStats) -> None:
    gone = sum(error.reason in GONE for error in total.unreadable.values())
    if gone:
        note(
            f"{gone:,} of {total.requested:,} are gone; run index again, or mount their disk. "
            "They keep the places that the first look gave them."
        )
    if n := len(total.previewed):
        note(f"{plural(n, 'original image')} could not be opened; the second look saw their previews.")


def show_hits(name: str, hits: Sequence[Hit], *, json: bool, explain: bool, title: str | None = None) -> None:
    """Write the hits of one query: JSON lines, or a table and, with `explain`, sentences on each score."""
    if json:
        for hit in hits:
            emit(record(name, hit))
        return
    _table(hits, title)
    for hit in hits if explain else ():
        say(f"{hit.rank} {hit.id}: {in_words(hit)}")


def record(query: str, hit: Hit) -> dict[str, Any]:
    """Return one line of --json."""
    return {
        "query": query,
        "rank": hit.rank,
        "id": hit.id,
        "score": hit.score,
        "coarse": hit.coarse,
        "p": hit.p,
        "scored": hit.scored,
        "explain": hit.explain,
        "uri": hit.uri,
        "text": hit.text,
        "metadata": hit.metadata,
        **({"folded": hit.folded} if hit.folded else {}),
        **({} if hit.maxsim is None else {"maxsim": hit.maxsim}),
    }


def _table(hits: Sequence[Hit], title: str | None) -> None:
    """Write hits as a table, with columns for a middle look and for folded near-duplicates where there are any."""
    middle = any(hit.maxsim is not None for hit in hits)
    columns = ["#", "id", ">score", ">coarse", *([">maxsim"] if middle else []), ">p", ">moved"]
    rows = [_cells(hit, middle) for hit in hits]
    if any(hit.folded for hit in hits):
        columns.append(">alike")
        rows = [(*row, f"+{len(hit.folded)}" if hit.folded else "") for row, hit in zip(rows, hits, strict=True)]
    table(columns, rows, title=title)


def _cells(hit: Hit, middle: bool) -> tuple[object, ...]:
    before = (hit.explain or {}).get("coarse_rank")
    moved = "" if not before or before == hit.rank else f"{'↑' if before > hit.rank else '↓'}{abs(before - hit.rank)}"
    scores = [number(score) for score in (hit.score, hit.coarse, *([hit.maxsim] if middle else []))]
    return hit.rank, hit.id, *scores, "gone" if hit.status == "missing" else number(hit.p), moved
