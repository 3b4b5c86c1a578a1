"""Load the candidates of a shortlist with their stored visual tokens, instead of their image files.

The user chooses the policy for candidates whose tokens are missing, older than their image, or damaged. Every case is
counted for the run's manifest and never becomes a silent zero.

error    the call stops with a message that names the ways out;
encode   the image is read and goes through the vision tower;
skip     the candidate counts as missing and keeps its place in the tail.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from looktwice.codecs import layout_from_json
from looktwice.errors import MediaError, Mismatch, StoreError, UnknownName, UsageError
from looktwice.sources import loader
from looktwice.sources.loader import CACHE_BYTES, CandidateRef, ImageLoader, Loaded, LoadError
from looktwice.token_index.sets import demand_tokens, open_set
from looktwice.types import Item, Layout, VisualTokens

if TYPE_CHECKING:
    from looktwice.store import TableReader, TokenRow

Policy: TypeAlias = Literal["error", "encode", "skip"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
QUERIES = 8  # coded queries kept: threads of a server take turns
CHUNK = 128  # candidates whose tokens are decoded and scored together

REASONS = {
    "no-tokens": "the table holds no visual tokens of this model and codec for it",
    "old-tokens": "its visual tokens were made from an older version of its image",
    "damaged-tokens": "its visual tokens cannot be decoded",
}
"""Reasons of `MediaError` that come from this module, with their descriptions."""


def policy_named(name: str) -> Policy:
    """Return the policy for candidates without stored tokens. Raises UnknownName."""
    if name not in POLICIES:
        raise UnknownName("policy for missing tokens", name, POLICIES)
    return name


class TokenLoader(ImageLoader):
    """Reads tokens from `table` for `scorer`; `codec` names the set if there are several.

    Tokens are decoded on the scorer's device and in its dtype. `asymmetric` leaves the query's tokens uncompressed; the
    paper compresses both sides (2604.13268: `asymmetry.apply` is off). `counts` adds up "stored", "missing", "old",
    "damaged" and, of the last three, those "encoded" or "skipped". Raises what `open_set` raises.
    """

    def __init__(
        self,
        table: TableReader,
        scorer: object,
        codec: str | None = None,
        *,
        policy: Policy = "error",
        asymmetric: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        super().__init__(cache_bytes)
        self.table = table
        self.maker = demand_tokens(scorer)
        self.policy = policy_named(policy)
        self.asymmetric = asymmetric
        self.set = open_set(table, self.maker.tokens_info(), codec)
        self.counts: Counter[str] = Counter()
        self._counting = Lock()  # several queries may load at once
        self._queries: deque[tuple[Item, Item]] = deque(maxlen=QUERIES)

    def load(self, entries: Sequence[Item | CandidateRef | LoadError]) -> Iterator[list[Loaded]]:
        """Yield items with their tokens, in order, in lists of CHUNK; the next list is decoded meanwhile.

        If images may have to be read, the lists are no longer than an ImageLoader's.
        """
        chunk = loader.CHUNK if self.policy == "encode" else CHUNK
        pieces = [entries[start : start + chunk] for start in range(0, len(entries), chunk)]
        with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
            ahead: list[Future[list[Item | CandidateRef | LoadError]]] = []
            for piece in pieces:
                ahead.append(pool.submit(self.attach, piece))
                if len(ahead) > 1:
                    yield from self._files(ahead.pop(0).result())
            for rest in ahead:
                yield from self._files(rest.result())

    def attach(self, entries: Sequence[Item | CandidateRef | LoadError]) -> list[Item | CandidateRef | LoadError]:
        """Replace each entry that has an image by an item with its tokens, or by the result of `policy`.

        Loaded items, texts and failed entries pass through unchanged. Raises UsageError under "error".
        """
        wanted = [entry for entry in entries if isinstance(entry, CandidateRef) and entry.uri is not None]
        rows = self.table.read_codes([entry.id for entry in wanted], self.set.key)
        problems: dict[str, str] = {}
        good: list[tuple[CandidateRef, TokenRow]] = []
        for entry, row in zip(wanted, rows, strict=True):
            if row is None:
                problems[entry.id] = "no-tokens"
            elif entry.sha256 not in (None, row.sha256):
                problems[entry.id] = "old-tokens"
            else:
                good.append((entry, row))
        tokens = self._decode([row for _, row in good])
        problems |= {row.id: "damaged-tokens" for (_, row), one in zip(good, tokens, strict=True) if one is None}
        self._count(len(wanted), problems)
        ready = {entry.id: one for (entry, _), one in zip(good, tokens, strict=True) if one is not None}
        return [self._place(entry, ready, problems) for entry in entries]

    def query(self, item: Item) -> Item:
        """Return a query as it will be shown: in the symmetric setting, its image's tokens go through the codec too.

        The same query gives the same object again, by which a scorer identifies its cached prompt prefix.
        """
        if self.asymmetric or item.image is None or item.tokens is not None:
            return item
        kept = next((coded for asked, coded in tuple(self._queries) if asked is item), None)
        if kept is None:
            tokens = self.set.codec.round_trip(self.maker.visual_tokens([item])[0])
            kept = replace(item, tokens=tokens)
            self._queries.append((item, kept))
        return kept

    @property
    def tokens_key(self) -> str:
        """Return the key of the token set."""
        return self.set.key

    def settings(self) -> Mapping[str, Any]:
        """Return the token set, the policy and the counts of candidates so far, for a run's manifest."""
        kept = ("tokens_key", "codec", "codebook_sha256")
        return {
            **{name: self.set.entry[name] for name in kept},
            "asymmetric": self.asymmetric,
            "missing_tokens": self.policy,
            "counts": dict(self.counts),
        }

    def _place(
        self, entry: Item | CandidateRef | LoadError, ready: Mapping[str, VisualTokens], problems: Mapping[str, str]
    ) -> Item | CandidateRef | LoadError:
        if not isinstance(entry, CandidateRef) or entry.uri is None:
            return entry
        if entry.id in ready:
            return Item(entry.id, text=entry.text, uri=entry.uri, sha256=entry.sha256, tokens=ready[entry.id])
        if self.policy == "encode":
            return entry
        reason = problems[entry.id]
        return LoadError(entry.id, MediaError(reason, REASONS[reason]))

    def _count(self, wanted: int, problems: Mapping[str, str]) -> None:
        kinds = Counter({"no-tokens": "missing", "old-tokens": "old"}.get(why, "damaged") for why in problems.values())
        with self._counting:
            self.counts += Counter({"stored": wanted - len(problems)}) + kinds
        if not problems:
            return
        if self.policy == "error":
            first = next(iter(problems))
            raise UsageError(
                f"{len(problems)} of {wanted} candidates have no usable stored tokens ({first!r}: "
                f"{REASONS[problems[first]]}); run looktwice add-tokens {self.table.path} --codec {self.set.codec}, or "
                "choose --missing-tokens encode or skip."
            )
        with self._counting:
            self.counts["encoded" if self.policy == "encode" else "skipped"] += len(problems)

    def _files(self, entries: Sequence[Item | CandidateRef | LoadError]) -> Iterator[list[Loaded]]:
        """Read the image files of the entries that still have no tokens."""
        if any(isinstance(entry, CandidateRef) for entry in entries):
            yield from super().load(entries)
        else:
            yield [entry for entry in entries if not isinstance(entry, CandidateRef)]

    def _decode(self, rows: Sequence[TokenRow]) -> list[VisualTokens | None]:
        """Decode all at once; after an error, decode each alone, so that only the damaged one fails."""
        device, dtype = self.maker.placement()
        try:
            layouts = [_layout(row) for row in rows]
            codes = [row.codes for row in rows]
            return [*self.set.codec.decode_batch(codes, layouts, device=device, dtype=dtype)]
        except (StoreError, Mismatch):
            if len(rows) == 1:
                return [None]
            return [one for row in rows for one in self._decode([row])]


def _layout(row: TokenRow) -> Layout:
    return layout_from_json(row.layout)
