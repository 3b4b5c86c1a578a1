"""One layer's attention after a shared prefix, three ways: the same numbers, other kernels.

repeat    today's: the prefix's keys and values in front of every row's own (score.prefix), repeated for grouped heads,
          then scaled_dot_product_attention with a mask
cascade   the prefix once for the queries of all rows, each row's own causally, merged by their log-sum-exps
flex      all rows as one sequence behind one prefix, flex_attention with a mask by blocks (compiled on CUDA)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from looktwice.score.local.memory import BATCH_TOKENS
from looktwice.score.local.prefix_cache import SharedLayer
from scripts.gpu.clock import peak, seconds
from scripts.gpu.record import Options
from scripts.gpu.shapes import MODELS, bundled

DTYPE = torch.bfloat16
LIMIT = 0.02
"""Largest difference from today's way; values are of size 1 and bfloat16 holds them to 0.004."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows n, prefix P and new tokens C of a batch; heads, and those of keys and values; size of a head."""

    rows: int
    prefix: int
    new: int
    heads: int
    kv_heads: int
    head: int

    @property
    def flop(self) -> float:
        """Both products, with what a causal mask needs."""
        attended = self.new * self.prefix + self.new * (self.new + 1) / 2
        return 4 * self.rows * self.heads * self.head * attended


@dataclass(frozen=True, slots=True)
class Inputs:
    """`q` [n, H, C, h], own `k` and `v` [n, kv, C, h], the prefix's `pk` and `pv` [1, kv, P, h]."""

    q: Tensor
    k: Tensor
    v: Tensor
    pk: Tensor
    pv: Tensor


def run(options: Options, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Tell one row for each model's heads, each length of a candidate and each way."""
    best = peak(options.device, DTYPE, options.smoke)
    for name in MODELS:
        for pooled in (False, True):
            sizes = sizes_of(name, pooled, options.smoke)
            given = draw(sizes, options.device)
            expected = repeat(given)
            for way in WAYS:
                row = {"model": name, "way": way, **{f: getattr(sizes, f) for f in sizes.__dataclass_fields__}}
                try:
                    row |= measured(way, given, expected, sizes, best, options)
                except Exception as error:  # one way that this card or this torch has not must not hide the others
                    row["error"] = f"{type(error).__name__}: {error}"[:500]
                tell(row)


def sizes_of(name: str, pooled: bool, smoke: bool) -> Sizes:
    """The batch that the engine would make of candidates of 729 visual tokens, or of those pooled 2 × 2."""
    text = bundled(name)["text_config"]
    heads = (text["num_attention_heads"], text["num_key_value_heads"], text["head_dim"])
    if smoke:
        return Sizes(3, 17, 9 if pooled else 21, heads[0] // 4, max(1, heads[1] // 4), 16)
    new = 320 if pooled else 880
    return Sizes(BATCH_TOKENS[0] // new, 768, new, *heads)


def draw(sizes: Sizes, device: str) -> Inputs:
    torch.manual_seed(0)

    def randn(rows: int, heads: int, tokens: int) -> Tensor:
        return torch.randn(rows, heads, tokens, sizes.head, device=device, dtype=DTYPE)

    n, kv = sizes.rows, sizes.kv_heads
    own, prefix = [randn(n, kv, sizes.new) for _ in "kv"], [randn(1, kv, sizes.prefix) for _ in "kv"]
    return Inputs(randn(n, sizes.heads, sizes.new), *own, *prefix)


def measured(way: str, given: Inputs, expected: Tensor, sizes: Sizes, best: float, options: Options) -> dict[str, Any]:
    """A way's largest difference from `repeat`, its milliseconds, memory and share of the matmul peak."""
    work = WAYS[way](given, options.device)
    found = work()
    off = float((found.float() - expected.float()).abs().max())
    cuda = options.device.startswith("cuda")
    if cuda:
        del found
        torch.cuda.reset_peak_memory_stats(options.device)
        before = torch.cuda.memory_allocated(options.device)
    taken = seconds(work, options.device, repeats=3 if options.smoke else 10, warm=1 if options.smoke else 3)
    return {
        "difference": off,
        "ok": off <= LIMIT,
        "ms": 1000 * taken,
        "of_peak": sizes.flop / taken / best,
        "memory_gib": (torch.cuda.max_memory_allocated(options.device) - before) / 2**30 if cuda else None,
    }


def mask(prefix: int, length: int, device: torch.device) -> Tensor:
    """[1, 1, C, P + C], true where a new token may look: at the whole prefix and, causally, at its own row."""
    own = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return torch.cat([own.new_ones(length, prefix), own], dim=1)[None, None]


# --- today's way ----------------------------------------------------------------------------------------------------


def repeat(given: Inputs) -> Tensor:
    """What a layer does today [n, H, C, h]: SharedLayer, then transformers' own attention function."""
    filled = DynamicLayer()
    filled.lazy_initialization(given.pk, given.pv)
    filled.keys, filled.values = given.pk, given.pv
    layer = SharedLayer(filled)
    keys, values = layer.update(given.k, given.v)
    module: Any = SimpleNamespace(num_key_value_groups=given.q.shape[1] // given.k.shape[1], is_causal=True)
    seen = mask(given.pk.shape[2], given.q.shape[2], given.q.device)
    out: Tensor = sdpa_attention_forward(module, given.q, keys, values, seen, scaling=given.q.shape[-1] ** -0.5)[0]
    return out.transpose(1, 2)


# --- prefix once, suffix each, merged ------------------------------------------------------------------------------


def cascade(given: Inputs) -> Tensor:
    """[n, H, C, h]. Softmax over two sets of keys is the mean of both, weighted by their log-sum-exps."""
    n, heads, new, head = given.q.shape
    groups = heads // given.k.shape[1]
    flat = given.q.transpose(0, 1).reshape(1, heads, n * new, head)
    far, far_lse = flash(flat, *(one.repeat_interleave(groups, 1) for one in (given.pk, given.pv)), causal=False)
    near, near_lse = flash(given.q, *(one.repeat_interleave(groups, 1) for one in (given.k, given.v)), causal=True)
    far = far.view(heads, n, new, head).transpose(0, 1)
    far_lse = far_lse.view(heads, n, new).transpose(0, 1)
    share = torch.sigmoid(near_lse - far_lse)[..., None].to(near.dtype)
    return torch.lerp(far, near, share)


def flash(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Attention [n, H, C, h] and its log-sum-exps [n, H, C] in float32; only torch's own operators give both."""
    aten = torch.ops.aten
    if q.device.type == "cpu":
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)
    else:
        out, lse, *_ = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)
    return out, lse[..., : q.shape[2]].float()  # CUDA's are padded


# --- one sequence ---------------------------------------------------------------------------------------------------


def flex(given: Inputs, device: str) -> Callable[[], Tensor]:
    """What computes [n, H, C, h]; the mask is made once, as a model makes it once for all layers."""
    n, heads, new, head = given.q.shape
    seen = packed_mask(n, given.pk.shape[2], new, device)
    attend: Any = compiled(flex_attention, device)

    def work() -> Tensor:
        q = given.q.transpose(0, 1).reshape(1, heads, n * new, head)
        k, v = (packed(prefix, own) for prefix, own in ((given.pk, given.k), (given.pv, given.v)))
        out: Tensor = attend(q, k, v, block_mask=seen, enable_gqa=True)
        return out.view(heads, n, new, head).transpose(0, 1)

    return work


def packed(prefix: Tensor, own: Tensor) -> Tensor:
    """[1, kv, P + n·C, h]: the prefix once, then every row's own."""
    return torch.cat([prefix, own.transpose(0, 1).reshape(1, own.shape[1], -1, own.shape[3])], dim=2)


def packed_mask(rows: int, prefix: int, new: int, device: str) -> BlockMask:
    """True where a query of one row may look: at the prefix, and at its own row up to itself."""

    def may_look(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = key - prefix
        return (own < 0) | ((own // new == query // new) & (own <= query))

    made: Any = compiled(create_block_mask, device)  # else every pair of tokens is held at once
    found: BlockMask = made(may_look, None, None, rows * new, prefix + rows * new, device=device)
    return found


def compiled(work: Callable[..., Any], device: str) -> Callable[..., Any]:
    """The same, as one kernel on CUDA; on the CPU that would need a C++ compiler."""
    return torch.compile(work, dynamic=False) if device.startswith("cuda") else work


WAYS: dict[str, Callable[[Inputs, str], Callable[[], Tensor]]] = {
    "repeat": lambda given, device: partial(repeat, given),
    "cascade": lambda given, device: partial(cascade, given),
    "flex": flex,
}
