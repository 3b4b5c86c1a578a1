"""Run `looktwice add-tokens`: images of a table → vision tower → codec → token rows, in atomic batches.

An image is encoded if it has no token row of this set, or one made from other bytes. The same call therefore goes on
after an interruption and repeats images that changed. A bad image becomes a ledger line of this set (stage
`tokens:KEY`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from looktwice.codecs import Codec, load_codebook, parse_codec, train_codebook
from looktwice.codecs.pq import PQ
from looktwice.codecs.training import FEW_TOKENS, MOST_TOKENS
from looktwice.errors import LooktwiceError, MediaError, TooManyFailures
from looktwice.score import TokenMaker
from looktwice.sources.loader import CandidateRef
from looktwice.store import LedgerEntry, TokenRow
from looktwice.token_index.crops import CroppedTokens
from looktwice.token_index.images import Encoded, Made, Progress, encode_images, image_refs, sample_tokens
from looktwice.token_index.rarity import refresh
from looktwice.token_index.sets import TokenSet, demand_tokens, load_set, make_set, matching

if TYPE_CHECKING:
    from looktwice.sources import Urls
    from looktwice.store import Table

COMMIT_ROWS, COMMIT_BYTES, COMMIT_SECONDS = 256, 2**26, 30.0  # the first that is reached; an interruption costs this
MANY_COMMITS = 16

Encode: TypeAlias = Callable[[TokenSet, Iterable[list[str]]], Iterable[Made]]
"""A way to encode the images of these ids; each comes back with its tokens or its error, in order."""


@dataclass(frozen=True, slots=True)
class TokensReport:
    """Counts of a run. `bytes` are codes written now; of `images`, the rest had tokens already or were `encoded`."""

    tokens_key: str
    codec: str
    codebook_sha256: str | None
    images: int
    encoded: int
    failed: int
    bytes: int
    seconds: float
    warnings: tuple[str, ...]

    @property
    def bytes_per_image(self) -> float:
        """Return the mean size of the codes written in this run; NaN if none were."""
        return self.bytes / self.encoded if self.encoded else math.nan


def add_tokens(
    table: Table,
    scorer: object,
    codec: str | Codec,
    *,
    codebook: str | Path | None = None,
    train_tokens: int = MOST_TOKENS,
    seed: int = 0,
    max_failures: int | None = None,
    urls: Urls = "refused",
    crops: bool = False,
    progress: Callable[[Progress], None] | None = None,
    encode: Encode | None = None,
) -> TokensReport:
    """Store compressed visual tokens for every image of `table` that has none of this model and codec yet.

    With `crops` they are those of four crops and of the whole image: a token set of its own, for the middle look.

    A codec that needs a codebook takes, in this order: the file `codebook`; the codebook that this table started with;
    one trained on up to `train_tokens` tokens of a sample of the table's own images (drawn by `seed`). `urls` says
    which images may be fetched. `encode` is another way to encode, such as
    `TokenJob.on` with the workers of a cluster.

    Raises UsageError for a scorer without visual tokens and for too few tokens to train on, Mismatch for a codec or
    codebook that does not fit the model, Locked, TooManyFailures once more than `max_failures` images have failed
    (rows written until then are kept).
    """
    maker: TokenMaker = demand_tokens(scorer)
    maker = CroppedTokens(maker) if crops else maker
    codec = parse_codec(codec) if isinstance(codec, str) else codec
    codec.quantiser.row_bytes(maker.tokens_info().width, 2)  # refuses a width that does not divide, before any work
    with table.writer():
        run = _Run(table, maker, progress or (lambda _: None), max_failures, urls, encode)
        run.begin(codec, codebook, train_tokens, seed)
        run.encode()
        run.note_rarity()
        if run.commits > MANY_COMMITS:
            table.compact()
        table.build_keys()
    return run.report()


@dataclass
class _Run:
    table: Table
    scorer: TokenMaker
    progress: Callable[[Progress], None]
    max_failures: int | None
    urls: Urls
    encode_elsewhere: Encode | None = None
    commits: int = 0
    encoded: int = 0
    failed: int = 0
    bytes: int = 0
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    set: TokenSet | None = None

    def begin(self, codec: Codec, codebook: str | Path | None, train_tokens: int, seed: int) -> None:
        """Find or make the token set, and store its codebook before the first row that needs it."""
        info = self.scorer.tokens_info()
        known = matching(self.table, info, str(codec))
        if codebook is not None:
            self.set = self._kept(codec.with_codebook(load_codebook(codebook)), {"codebook": "given"})
        elif codec.codebook is not None or not codec.needs_codebook:
            self.set = self._kept(codec, {})
        elif known:
            self.set = load_set(self.table, info, known[-1])
        else:
            self.set = self._trained(codec, train_tokens, seed)

    def _kept(self, codec: Codec, about: dict[str, Any]) -> TokenSet:
        made = make_set(self.scorer.tokens_info(), codec, about)
        info = self.scorer.tokens_info()
        if codec.codebook is not None and isinstance(codec.quantiser, PQ):
            codec.quantiser.check(codec.codebook, info.width, info.levels + 1)
            self.table.put_codebook(codec.codebook.to_bytes())
        if made.key not in [entry["tokens_key"] for entry in self.table.manifest.tokens]:
            self.table.note_tokens(made.entry)
        return made

    def _trained(self, codec: Codec, train_tokens: int, seed: int) -> TokenSet:
        assert isinstance(codec.quantiser, PQ)
        sample = sample_tokens(self.table, self.scorer, codec, train_tokens, seed, self.progress, urls=self.urls)
        count = sample.shape[1]
        if count < FEW_TOKENS:
            self.warnings.append(
                f"The codebook was trained on only {count:,} tokens; below {FEW_TOKENS:,} it fits badly. "
                "Train it again with more images, or load the codebook of a larger table."
            )
        self.progress(Progress("train", 0, count))
        begun = time.monotonic()
        trained = train_codebook(codec.quantiser, sample, seed=seed)
        self.progress(Progress("train", count, count, seconds=time.monotonic() - begun))
        return self._kept(codec.with_codebook(trained), {"trained": dict(trained.trained)})

    def encode(self) -> None:
        """Encode the images without tokens, committing on the way."""
        assert self.set is not None
        total = sum(map(len, self.table.pending_tokens(self.set.key)))
        batch = _Batch(self.table, self.set.key)
        encode = self.encode_elsewhere or self._encode_here
        for entry, done in encode(self.set, self.table.pending_tokens(self.set.key)):
            batch.add(entry, done)
            self._count(done)
            if batch.full:
                self.commits += batch.commit()
            self.progress(self._progress(total))
            if self.max_failures is not None and self.failed > self.max_failures:
                batch.commit()
                raise TooManyFailures.beyond(self.max_failures, f"{self.failed} images got no tokens", self.table.path)
        self.commits += batch.commit()

    def _encode_here(self, made: TokenSet, pending: Iterable[list[str]]) -> Iterator[Made]:
        for ids in pending:
            yield from encode_images(self.scorer, made.codec, image_refs(self.table, ids, self.urls))

    def note_rarity(self) -> None:
        """Store the sample that the middle look measures rarity on."""
        assert self.set is not None
        refresh(self.table, self.set)

    def _count(self, done: Encoded | LooktwiceError) -> None:
        if isinstance(done, LooktwiceError):
            self.failed += 1
        else:
            self.encoded += 1
            self.bytes += len(done.codes)

    def _progress(self, total: int) -> Progress:
        seconds = time.monotonic() - self.started
        return Progress("encode", self.encoded + self.failed, total, self.failed, self.bytes, seconds)

    def report(self) -> TokensReport:
        assert self.set is not None
        book = self.set.entry["codebook_sha256"]
        seconds = time.monotonic() - self.started
        images = self.table.count("width > 0")
        return TokensReport(
            self.set.key, str(self.set.codec), book, images, self.encoded, self.failed, self.bytes, seconds,
            tuple(self.warnings),
        )  # fmt: skip


@dataclass
class _Batch:
    """Rows and ledger lines that wait for the next commit."""

    table: Table
    key: str
    rows: list[TokenRow] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    failures: list[LedgerEntry] = field(default_factory=list)
    bytes: int = 0
    since: float = field(default_factory=time.monotonic)

    def add(self, entry: CandidateRef, done: Encoded | LooktwiceError) -> None:
        uri = entry.uri or entry.id
        self.uris.append(uri)
        if isinstance(done, LooktwiceError):
            reason = done.reason if isinstance(done, MediaError) else "model"
            self.failures.append(LedgerEntry(uri, self.stage, reason, _detail(done), item_id=entry.id))
            return
        self.rows.append(TokenRow(entry.id, entry.sha256 or "", self.key, done.layout, done.codes, done.levels))
        self.bytes += len(done.codes)

    @property
    def stage(self) -> str:
        """Return the ledger stage that lists failures of this set: an image may fail in one set and not in another."""
        return f"tokens:{self.key}"

    @property
    def full(self) -> bool:
        waiting = len(self.rows) + len(self.failures)
        old = waiting > 0 and time.monotonic() - self.since > COMMIT_SECONDS
        return waiting >= COMMIT_ROWS or self.bytes >= COMMIT_BYTES or old

    def commit(self) -> int:
        """Write the waiting rows and return the number of commits.

        The ledger is cleared first: an image without a row is simply done again, but one with a row would stay listed
        as failed.
        """
        written = bool(self.rows or self.failures)
        self.table.ledger.clear(self.uris, [self.stage, "tokens"])  # "tokens": stage of all sets in older tables
        self.table.put_codes(self.rows)
        self.table.ledger.put(self.failures)
        self.rows, self.uris, self.failures, self.bytes = [], [], [], 0
        self.since = time.monotonic()
        return int(written)


def _detail(error: LooktwiceError) -> str:
    return error.detail if isinstance(error, MediaError) else str(error)
