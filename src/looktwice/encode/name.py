"""Parse the names of encoders. This module knows the syntax, but no file and no model.

    [tower:|st:]MODEL[#REVISION][@SIZE[/QUERY]][+mix:WEIGHTS][+dim:N][+linear:FILE]

    siglip2-so400m@384      a short name, at 384 px
    clip-l@336/512          indexed at 336 px, queries at 512 px
    org/name#v1.0           a checkpoint of the model hub, pinned
    tower:tiny-vl           the mean of a multimodal LLM's own visual tokens
    st:org/name             through sentence-transformers, as its own files for it say
    ./mine@512              a folder; `@`, `#` and `%` in its path are %40, %23 and %25 where they could be misread
    clip-l+mix:0.3          text has a share of 0.3 beside an image (half unless told; `mixing` has presets)
    qwen3-vl-embedding-2b+dim:256   the first 256 numbers, of a model that was trained to be cut (Matryoshka)
    pe-l@512+linear:ilias.pt   followed by a linear adaptation from a file

SIZE is in pixels. At the checkpoint's own size its own preprocessing is used. At any other size the image's larger side
becomes that long and the aspect is kept (ILIAS, arXiv 2502.11748, transform `RESIZE_LARGE`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from looktwice.errors import UsageError
from looktwice.types import Choice

TOWER = "tower:"
ST = "st:"
LINEAR = "+linear:"
MIX = "+mix:"
DIM = "+dim:"
SIDES = range(16, 4097)
CHOICES = (
    Choice(f"{TOWER}MLLM", "the mean of an MLLM's own visual tokens; images", "that MLLM"),
    Choice(f"{ST}NAME", "any multimodal checkpoint of sentence-transformers", "pip install 'looktwice[st]'"),
    Choice(f"NAME{DIM}256", "the first 256 numbers of qwen3-vl-embedding or st: vectors (Matryoshka)", "nothing more"),
    Choice(f"NAME{MIX}0.3", "text has this share beside an image (0.5 by default)", "nothing more"),
    Choice(
        f"NAME{MIX}mmeb", "as RetLLM's code mixes: items 0.7/0.3, not rescaled; queries 0.8/0.2, raw", "nothing more"
    ),
    Choice(f"NAME{LINEAR}FILE", "any of these, followed by a linear adaptation from a file", "the file"),
)
"""Forms of a name beside the short names of the catalogue."""

_TAIL = re.compile(
    r"(?P<model>.*?)(?:#(?P<revision>\w[\w./-]*))?(?:@(?P<size>\d+)(?:/(?P<query>\d+))?)?(?:\+mix:(?P<mix>[\w.]*))?(?:\+dim:(?P<dim>\d+))?",
    re.DOTALL,
)
_MISREAD = re.compile(r"%(?=25|23|40|2B)|#|@(?=\d)|\+(?=linear:|mix:|dim:)")
_ESCAPED = re.compile(r"%(25|23|40|2B)")


@dataclass(frozen=True, slots=True)
class EncoderName:
    """A parsed name; `str()` prints it back, and parsing that gives an equal one.

    `model` is a short name, a folder or a hub name. `tower` means a multimodal LLM whose visual tokens are averaged.
    `st` means that sentence-transformers runs it. `size` and `query_size` are in pixels, None for the model's own. See
    `mixing` for `mix`. `dim` is how many numbers of a vector are kept, None for all. Raises UsageError for an invalid
    part.
    """

    model: str
    tower: bool = False
    revision: str | None = None
    size: int | None = None
    query_size: int | None = None
    linear: str | None = None
    mix: str | None = None
    st: bool = False
    dim: int | None = None

    def __post_init__(self) -> None:
        if not self.model or (not self.prefix and self.model.startswith((TOWER, ST))):
            raise UsageError("The encoder's name has no model; write, for example, tiny-clip or tower:tiny-vl.")
        if self.linear == "":
            raise UsageError("+linear: has no file; write +linear:FILE (.npz, .safetensors or .pt).")
        if self.mix is not None and not re.fullmatch(r"[\w.]+", self.mix):
            raise UsageError("+mix: has no weights; write +mix:0.3 (the text's share) or +mix:mmeb.")
        if self.revision is not None and not re.fullmatch(r"\w[\w./-]*", self.revision):
            raise UsageError(f"{self.revision!r} is not a revision; write #COMMIT, #BRANCH or #TAG.")
        if self.tower and self.st:
            raise UsageError("tower: and st: cannot be combined; leave one of them out.")
        if self.dim is not None and self.dim < 1:
            raise UsageError("+dim: needs a number of 1 or more; write, for example, +dim:256.")
        for side in (self.size, self.query_size):
            if side is not None and side not in SIDES:
                raise UsageError(f"{side} px is out of range for @SIZE; choose {SIDES[0]} to {SIDES[-1]}.")
        if self.query_size is not None and self.size is None:
            raise UsageError("A query size needs an index size before it; write @SIZE/QUERY.")

    @property
    def prefix(self) -> str:
        """Return the prefix of the model: "tower:", "st:" or nothing."""
        return TOWER if self.tower else ST if self.st else ""

    def __str__(self) -> str:
        model = _MISREAD.sub(lambda found: f"%{ord(found[0]):02X}", self.model)
        size = "" if self.size is None else f"@{self.size}"
        query = "" if self.query_size is None else f"/{self.query_size}"
        revision = "" if self.revision is None else f"#{self.revision}"
        linear = "" if self.linear is None else f"{LINEAR}{self.linear}"
        mix = "" if self.mix is None else f"{MIX}{self.mix}"
        dim = "" if self.dim is None else f"{DIM}{self.dim}"
        return f"{self.prefix}{model}{revision}{size}{query}{mix}{dim}{linear}"


def parse(text: str | EncoderName) -> EncoderName:
    """Parse an encoder's name. Raises UsageError for bad syntax; loading finds out later whether the model exists.

    >>> parse("pe-l@512+linear:ilias.pt") == EncoderName("pe-l", size=512, linear="ilias.pt")
    True
    >>> str(parse("tower:org/name#v1.0@336/512"))
    'tower:org/name#v1.0@336/512'
    """
    if isinstance(text, EncoderName):
        return text
    front, mark, linear = text.partition(LINEAR)
    prefix = next((known for known in (TOWER, ST) if front.startswith(known)), "")
    found = _TAIL.fullmatch(front[len(prefix) :])
    assert found is not None  # every part of the pattern is optional
    size, query = found["size"], found["query"]
    return EncoderName(
        model=_ESCAPED.sub(lambda code: chr(int(code[1], 16)), found["model"]),
        tower=prefix == TOWER,
        revision=found["revision"],
        size=None if size is None else int(size[:9]),
        query_size=None if query is None else int(query[:9]),
        linear=linear if mark else None,
        mix=found["mix"],
        st=prefix == ST,
        dim=None if found["dim"] is None else int(found["dim"][:9]),
    )
