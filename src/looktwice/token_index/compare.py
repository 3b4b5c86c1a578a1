"""Measure what codecs cost and change, on a sample of a table's own images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from looktwice.codecs import Codec, load_codebook, parse_codec, token_count, train_codebook
from looktwice.codecs.pq import PQ
from looktwice.codecs.training import FEW_TOKENS, MOST_TOKENS
from looktwice.errors import LooktwiceError, MediaError, UsageError
from looktwice.score import Scorer, TokenMaker
from looktwice.sources.loader import CandidateRef
from looktwice.token_index.images import Progress, draw_images, look_at, sample_tokens
from looktwice.token_index.sets import demand_tokens
from looktwice.types import Item, VisualTokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from looktwice.sources import Urls
    from looktwice.store import TableReader


@dataclass(frozen=True, slots=True)
class CodecRow:
    """One codec on the sample.

    `bytes_per_image` is the mean size of the codes; `tokens` the mean number of visual tokens shown to the language
    model; `error` is Σ|x − x̂|² / Σ|x|² over all tokens, each against the vector that stands for it; `delta_p` is the
    mean |p − p of uncompressed tokens| over the pairs; `tau` is the mean Kendall τ-b of the rankings against
    uncompressed, NaN if none has an order, with its 95 % interval over queries from `tau_low` to `tau_high`; `pairs`
    and `images` count what was measured.
    """

    codec: str
    bytes_per_image: float
    tokens: float
    error: float
    delta_p: float
    tau: float
    pairs: int
    images: int
    tau_low: float = math.nan
    tau_high: float = math.nan

    def record(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


def compare_codecs(
    table: TableReader,
    scorer: Scorer,
    specs: Sequence[str],
    *,
    queries: int = 8,
    depth: int = 24,
    asymmetric: bool = False,
    codebooks: Sequence[str] = (),
    train_tokens: int = MOST_TOKENS,
    seed: int = 0,
    urls: Urls = "refused",
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[list[CodecRow], list[str]]:
    """Compare codecs on real pairs: images of the table against the `depth` nearest others by vector.

    Codebooks are trained on other images of the table, unless `codebooks` (files) has one that fits. Returns one row
    per spec in order, and warnings. `urls` says which images may be fetched. Raises UsageError for a table with fewer
    than two readable images, and the errors of parsing and training.
    """
    scorer = Scorer.of(scorer)
    maker = demand_tokens(scorer)
    codecs = [parse_codec(spec) for spec in specs]
    pairs = _draw_pairs(table, maker, queries, depth, seed, urls)
    used = sorted({id_ for query, others in pairs for id_ in (query.id, *(item.id for item in others))})
    given = [load_codebook(path) for path in codebooks]
    warnings: list[str] = []
    ready = []
    for codec in codecs:
        found = next((book for book in given if book.quantiser_spec == str(codec.quantiser)), None)
        if found is not None:
            ready.append(codec.with_codebook(found))
        else:
            ready.append(_trained(table, maker, codec, train_tokens, seed, progress, used, warnings, urls))
    plain = [_scores(scorer, query, others) for query, others in pairs]
    return [_row(scorer, codec, pairs, plain, asymmetric) for codec in ready], warnings


Pairs = list[tuple[Item, list[Item]]]


def _draw_pairs(table: TableReader, maker: TokenMaker, queries: int, depth: int, seed: int, urls: Urls) -> Pairs:
    """Return images and their nearest others, all with the tower's own tokens."""
    chosen = [entry.id for entry in draw_images(table, queries, seed)]
    near = {
        row.id: [hit.id for hit in table.search(row.vector, depth + 1, "width > 0") if hit.id != row.id][:depth]
        for row in table.get(chosen)
    }
    needed = list(dict.fromkeys(id_ for id_, others in near.items() for id_ in (id_, *others)))
    items = {item.id: item for item in _with_tokens(table, maker, needed, urls)}
    pairs = [(items[id_], [items[o] for o in others if o in items]) for id_, others in near.items() if id_ in items]
    pairs = [(query, others) for query, others in pairs if others]
    if not pairs:
        raise UsageError(f"{table.path} has fewer than two readable images; index some first.")
    return pairs


def _with_tokens(table: TableReader, maker: TokenMaker, ids: Sequence[str], urls: Urls) -> list[Item]:
    entries = [CandidateRef(row.id, row.uri, row.sha256, row.text, urls) for row in table.get(ids)]
    seen = [(entry, tokens) for entry, tokens in look_at(maker, entries) if not isinstance(tokens, LooktwiceError)]
    return [Item(e.id, text=e.text, uri=e.uri, sha256=e.sha256, tokens=tokens) for e, tokens in seen]


def _trained(
    table: TableReader,
    maker: TokenMaker,
    codec: Codec,
    count: int,
    seed: int,
    progress: Callable[[Progress], None],
    used: Sequence[str],
    warnings: list[str],
    urls: Urls,
) -> Codec:
    if not isinstance(codec.quantiser, PQ):
        return codec
    spare = table.count("width > 0") > len(used) + 1
    sample = sample_tokens(table, maker, codec, count, seed, progress, used if spare else (), urls)
    if not spare:
        warnings.append(f"{codec} was trained on the images that measure it, as the table is small; index more images.")
    if sample.shape[1] < FEW_TOKENS:
        warnings.append(f"The codebook of {codec} was trained on only {sample.shape[1]:,} tokens; index more images.")
    return codec.with_codebook(train_codebook(codec.quantiser, sample, seed=seed))


def _row(scorer: Scorer, codec: Codec, pairs: Pairs, plain: list[NDArray[np.float32]], asymmetric: bool) -> CodecRow:
    import numpy as np

    images = {item.id: item for query, others in pairs for item in (query, *others)}
    coded = {id_: _coded(codec, item) for id_, item in images.items()}
    deltas, taus = [], []
    for (query, others), before in zip(pairs, plain, strict=True):
        asked = query if asymmetric else coded[query.id][0]
        after = _scores(scorer, asked, [coded[item.id][0] for item in others])
        deltas.append(np.abs(after - before))
        taus.append(kendall_tau(before, after))
    low, high = _interval(taus)
    squares = np.array([_squares(codec, item.tokens) for item in images.values() if item.tokens is not None])
    return CodecRow(
        codec=str(codec),
        bytes_per_image=float(np.mean([size for _, size in coded.values()])),
        tokens=float(np.mean([token_count(item.tokens.layout) for item, _ in coded.values() if item.tokens])),
        error=float(squares[:, 0].sum() / squares[:, 1].sum()),
        delta_p=_mean([float(delta) for part in deltas for delta in part]),
        tau=_mean(taus),
        pairs=sum(len(others) for _, others in pairs),
        images=len(images),
        tau_low=low,
        tau_high=high,
    )


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of the values that are not NaN; NaN if all are."""
    from looktwice.evaluate.bootstrap import interval

    known = [value for value in values if not math.isnan(value)]
    return interval(known)[1:] if known else (math.nan, math.nan)


def frontier(rows: Sequence[CodecRow]) -> list[CodecRow]:
    """Return the rows that no other beats: none has a larger τ for as few bytes. Fewest bytes first."""
    best: list[CodecRow] = []
    for row in sorted(rows, key=lambda row: (row.bytes_per_image, -row.tau)):
        if not math.isnan(row.tau) and (not best or row.tau > best[-1].tau):
            best.append(row)
    return best


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if all are."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _scores(scorer: Scorer, query: Item, candidates: Sequence[Item]) -> NDArray[np.float32]:
    return scorer.score(query, candidates).p


def _coded(codec: Codec, item: Item) -> tuple[Item, int]:
    """Return the item with decoded tokens, and its bytes. Raises UsageError for an image that the codec cannot take."""
    assert item.tokens is not None
    try:
        data = codec.encode(item.tokens)
    except MediaError as error:
        raise UsageError(
            f"{codec} cannot take the image {item.id!r} ({error.detail}); choose another codec."
        ) from error
    device = item.tokens.features.device
    return replace(item, tokens=codec.decode(data, item.tokens.layout, device=device)), len(data)


def _squares(codec: Codec, tokens: VisualTokens) -> tuple[float, float]:
    """Return Σ|x − x̂|² and Σ|x|² of one image, every token against the vector that stands for it."""
    if codec.cells is not None:
        codec = replace(codec, cells=replace(codec.cells, replacement="replicate"))
    result = codec.round_trip(tokens)
    pairs = [(tokens.features, result.features)]
    if tokens.levels is not None and result.levels is not None:
        pairs.append((tokens.levels, result.levels))
    wide = [(a.cpu().double(), b.cpu().double()) for a, b in pairs]  # Apple's devices have no float64
    return sum(float((a - b).square().sum()) for a, b in wide), sum(float(a.square().sum()) for a, _ in wide)


def kendall_tau(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return Kendall's τ-b of two score lists [n] over the entries that are numbers in both; NaN without an order.

    Kendall, Biometrika 1945: concordant minus discordant pairs, over the geometric mean of the pairs untied in each.
    """
    import numpy as np
    from scipy.stats import kendalltau

    both = np.isfinite(a) & np.isfinite(b)
    return float(kendalltau(a[both], b[both]).statistic) if both.sum() > 1 else math.nan
