"""Configure visual re-injection: while the model answers, one feed-forward layer is shown the image once more.

    Δ(x | Z) = Σ_j φ(⟨x, k_j⟩) v_j          Z: the pair's projected visual tokens, as extra keys and values
    FFN'(x)  = α·Δ(x | Z) + (1 − α)·FFN(x)  before the residual addition

(2602.22278, section 3; the same equations in MemVR, 2410.03577.) Forms differ in where Δ acts, in how it is scaled to
FFN, and in what fires it; the presets below name them. This module holds settings and maths; `score.local.retracer`
acts on a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from looktwice.errors import UnknownName, UsageError

if TYPE_CHECKING:  # `looktwice --help` names presets and must stay fast
    from torch import Tensor

TINY = 1e-20
TOP = 10  # logits whose entropy is the trigger (code of 2602.22278 and of MemVR)


@dataclass(frozen=True, slots=True)
class Retrace:
    """Settings for showing images once more. Prints as its name, and the name parses back.

    `alpha` in [0, 1]; 0 is off. Δ fires at the `layers` (shares of depth). If those are empty, it fires once per pair,
    at the layer after the first one inside `window` (shares of depth, both ends excluded) whose last position has an
    early-exit entropy above `gamma` (in [0, 1]: top 10 logits, divided by ln 10). `tokens` names the images that Z
    holds: "last" the one that stands last, "all" every token of the pair, text included. `positions`: from the
    candidate on, or all. `match`: Δ is scaled to FFN's size token by token (L2 norm), over the pair as a whole (mean
    magnitude), or not. `scaled`: keys and values are first scaled to the size of the layer's own weights; the keys to
    those of `keys`, the gate's (RetLLM's code) or the up projection's (MemVR's code). `phi` false
    leaves φ out. `normed`: the final norm goes before the early exit. `remember` false: while a number is written, Z is
    the token just written.
    """

    name: str
    alpha: float
    gamma: float = 0.75
    window: tuple[float, float] = (5 / 32, 16 / 32)
    layers: tuple[float, ...] = ()
    tokens: Literal["candidate", "query", "both", "last", "all"] = "both"
    positions: Literal["candidate", "all"] = "all"
    match: Literal["token", "pair", "none"] = "pair"
    scaled: bool = True
    keys: Literal["gate", "up"] = "gate"
    phi: bool = True
    normed: bool = False
    remember: bool = True

    def __post_init__(self) -> None:
        shares = (*self.window, *self.layers, self.alpha, self.gamma)
        if not all(0 <= share <= 1 for share in shares) or self.window[0] >= self.window[1]:
            raise UsageError(
                "Retrace needs alpha, gamma, layers and window from 0 to 1, and a window that rises, such as "
                "window=0.2-0.5; change them."
            )
        if self.tokens not in ("candidate", "query", "both", "last", "all"):
            raise UnknownName("choice of retrace tokens", self.tokens, ("candidate", "query", "both", "last", "all"))

    @property
    def shares_prefix(self) -> bool:
        """Return whether tokens before the candidate stay unchanged and outside Z, so that candidates share them."""
        return self.positions == "candidate" and self.tokens != "all"

    @property
    def description(self) -> str:
        """Return how strong it is and where it fires."""
        where = ", ".join(f"{share:.2f}" for share in self.layers)
        fires = f"at {where} of depth" if where else "where entropy is high"
        return f"α = {self.alpha:g}, {fires}"

    @classmethod
    def parse(cls, text: str | Retrace | None) -> Retrace | None:
        """Read `off`, a preset, or a preset with changes: `causal,alpha=0.2,layers=0.3+0.5`, `paper,window=0.2-0.6`.

        Changes may set alpha, gamma, window, layers and tokens.
        """
        if text is None or isinstance(text, Retrace):
            return text
        name, *changes = text.strip().split(",")
        if name == "off" and not changes:
            return None
        if name not in PRESETS:
            raise UnknownName("retrace preset", name, ("off", *PRESETS))
        return replace(PRESETS[name], **dict(_change(change) for change in changes))

    def __str__(self) -> str:
        base, own = asdict(PRESETS[self.name]), asdict(self)
        return ",".join([self.name, *(f"{key}={_text(key, own[key])}" for key in _CHANGES if own[key] != base[key])])


PRESETS: Mapping[str, Retrace] = {
    preset.name: preset
    for preset in (
        Retrace("causal", 0.3, layers=(15 / 32,), positions="candidate", match="token"),
        Retrace("causal-dynamic", 0.3, positions="candidate", match="token"),
        Retrace("paper", 0.3),
        Retrace("paper-literal", 0.3, match="none", scaled=False),
        Retrace("memvr-llava", 0.12, tokens="last", keys="up", phi=False, normed=True),
        Retrace("memvr-qwen", 0.28, window=(9 / 32, 16 / 32), keys="up"),
        Retrace("released-code", 0.12, window=(5 / 28, 16 / 28), tokens="all", remember=False),
    )
}
_CHANGES = ("alpha", "gamma", "window", "layers", "tokens")


def delta(x: Tensor, keys: Tensor, values: Tensor, there: Tensor, phi: bool = True) -> Tensor:
    """Return Δ(x | Z) [n, C, d]: `x` [n, C, d], `keys`, `values` [n, T, d], `there` [n, T] true for real tokens."""
    from torch.nn.functional import silu

    weights = x @ keys.transpose(1, 2)
    weights = silu(weights, inplace=True) if phi else weights
    return weights @ (values * there[..., None])


def early_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the softmax over the ten largest of `logits` [n, V], divided by ln 10: [n] in [0, 1]."""
    logp = logits.float().topk(min(TOP, logits.shape[-1]), dim=-1).values.log_softmax(-1)
    return -(logp.exp() * logp).sum(-1) / math.log(TOP)


def mean_size(x: Tensor, where: Tensor) -> Tensor:
    """Return the mean magnitude of `x` [n, C, d] over the positions in `where` [n, C]: [n, 1, 1] in float32."""
    total = (x.float().abs().mean(-1) * where).sum(-1)
    return (total / where.sum(-1).clamp_min(1))[:, None, None]


def sizes(x: Tensor, where: Tensor, how: str) -> Tensor:
    """Return the sizes that Δ is scaled by: L2 norms [n, C, 1] if `how` is "token", else mean magnitudes [n, 1, 1]."""
    if how != "token":
        return mean_size(x, where)
    import torch

    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return norms


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or key not in _CHANGES:
        raise UnknownName("retrace setting", text, [f"{key}=…" for key in _CHANGES])
    try:
        if key == "tokens":
            return key, value
        if key in ("alpha", "gamma"):
            return key, float(value)
        numbers = tuple(float(part) for part in value.split("+" if key == "layers" else "-"))
    except ValueError:
        raise UsageError(f"Retrace cannot read {text!r}; write numbers from 0 to 1, such as window=0.2-0.5.") from None
    if key == "window" and len(numbers) != 2:
        raise UsageError(f"Retrace cannot read {text!r}; a window has two ends, such as 0.2-0.5.")
    return key, numbers


def _text(key: str, value: Any) -> str:
    if isinstance(value, tuple):
        return ("+" if key == "layers" else "-").join(map(str, value))
    return str(value)
