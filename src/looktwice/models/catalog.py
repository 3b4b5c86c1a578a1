"""List the models that have a short name: plain data, so that listing them loads no library.

Nothing is downloaded before somebody names it. `gigabytes` is about the size of a first download; `parameters` are in
millions. Names of the model hub (`org/name`) and local folders need no entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

ModelKind: TypeAlias = Literal["encoder", "mllm"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One short name.

    `hub` maps the input size in pixels (0: chosen by the model for each image) to the hub's name of the checkpoint for
    it. The first is the default; a bundled model has none. `dim` is the length of its vectors (of its visual tokens,
    for an MLLM). `text_tokens` is how much text an encoder reads, None for none. `extra` is the optional part of
    looktwice that it needs (`siglip` for text only).
    """

    name: str
    kind: ModelKind
    dim: int
    parameters: int
    gigabytes: float
    hub: Mapping[int, str] = field(default_factory=dict)
    text_tokens: int | None = None
    extra: str | None = None
    note: str = ""

    @property
    def bundled(self) -> bool:
        """Return whether the checkpoint comes with looktwice."""
        return not self.hub

    @property
    def description(self) -> str:
        """Return its size and, for an encoder, what it reads, the length of its vectors and its other sizes."""
        if self.kind == "mllm":
            return "; ".join(filter(None, (f"{self.parameters:,} M", self.note)))
        sizes = ", ".join(f"@{side}" for side in list(self.hub)[1:])
        reads = "images and text" if self.text_tokens else "images"
        facts = f"{self.parameters:,} M, {reads}, d = {self.dim}"
        return "; ".join(filter(None, (facts, sizes and f"also {sizes}", self.note)))

    @property
    def needs(self) -> str:
        """Return what must be downloaded and installed before its first use."""
        if self.bundled:
            return "nothing: comes with looktwice"
        extra = f" and pip install 'looktwice[{self.extra}]'" if self.extra else ""
        return f"a download of {self.gigabytes:g} GB{extra}"


def _encoder(
    name: str,
    dim: int,
    parameters: int,
    hub: Mapping[int, str],
    *,
    text: int | None = None,
    extra: str | None = None,
    note: str = "",
) -> Entry:
    return Entry(name, "encoder", dim, parameters, round(parameters * 4 / 1000, 1), hub, text, extra, note)


def _mllm(name: str, dim: int, parameters: int, hub: str) -> Entry:
    return Entry(name, "mllm", dim, parameters, round(parameters * 2 / 1000, 1), {0: hub})


def _qwen_embedding(size: str, dim: int, parameters: int) -> Entry:
    hub = {0: f"Qwen/Qwen3-VL-Embedding-{size.upper()}"}
    note = "reads an item's image and text together; +dim:N keeps N numbers"
    gigabytes = round(parameters * 2 / 1000, 1)
    return Entry(f"qwen3-vl-embedding-{size}", "encoder", dim, parameters, gigabytes, hub, text_tokens=8192, note=note)


def _siglip(family: str, size: str, *sides: int) -> dict[int, str]:
    return {side: f"google/{family}-{size}-patch16-{side}" for side in sides}


def _dinov3(size: str) -> dict[int, str]:
    return {224: f"facebook/dinov3-{size}-pretrain-lvd1689m"}


_GATED = "its licence is accepted on its hub page first"
_PICKLED = "@336 is published as pickled weights only: name a converted folder"

ENTRIES: tuple[Entry, ...] = (
    Entry("tiny-clip", "encoder", 192, 7, 0.0, text_tokens=32, note="bundled; knows drawings, not photographs"),
    _encoder("clip-b", 512, 151, {224: "openai/clip-vit-base-patch32"}, text=77),
    _encoder(
        "clip-l",
        768,
        428,
        {224: "openai/clip-vit-large-patch14", 336: "openai/clip-vit-large-patch14-336"},
        text=77,
        note=_PICKLED,
    ),
    _encoder("siglip-b", 768, 203, _siglip("siglip", "base", 224, 256, 384, 512), text=64, extra="siglip"),
    _encoder("siglip-l", 1024, 652, _siglip("siglip", "large", 384, 256), text=64, extra="siglip"),
    _encoder(
        "siglip-so400m",
        1152,
        878,
        {384: "google/siglip-so400m-patch14-384", 224: "google/siglip-so400m-patch14-224"},
        text=64,
        extra="siglip",
    ),
    _encoder("siglip2-b", 768, 375, _siglip("siglip2", "base", 224, 256, 384, 512), text=64),
    _encoder("siglip2-l", 1024, 882, _siglip("siglip2", "large", 384, 256, 512), text=64),
    _encoder(
        "siglip2-so400m",
        1152,
        1136,
        {
            384: "google/siglip2-so400m-patch14-384",
            224: "google/siglip2-so400m-patch14-224",
            256: "google/siglip2-so400m-patch16-256",
            512: "google/siglip2-so400m-patch16-512",
        },
        text=64,
    ),
    _encoder("siglip2-so400m-naflex", 1152, 1136, {0: "google/siglip2-so400m-patch16-naflex"}, text=64),
    _qwen_embedding("2b", 2048, 2128),
    _qwen_embedding("8b", 4096, 8145),
    _encoder("dinov2-s", 384, 22, {224: "facebook/dinov2-small"}),
    _encoder("dinov2-b", 768, 87, {224: "facebook/dinov2-base"}),
    _encoder("dinov2-l", 1024, 304, {224: "facebook/dinov2-large"}),
    _encoder("dinov2-g", 1536, 1137, {224: "facebook/dinov2-giant"}),
    _encoder("dinov3-s", 384, 22, _dinov3("vits16"), note=_GATED),
    _encoder("dinov3-b", 768, 86, _dinov3("vitb16"), note=_GATED),
    _encoder("dinov3-l", 1024, 303, _dinov3("vitl16"), note=_GATED),
    _encoder("dinov3-h", 1280, 841, _dinov3("vith16plus"), note=_GATED),
    _encoder("pe-b", 1024, 94, {224: "timm/vit_pe_core_base_patch16_224.fb"}, extra="timm"),
    _encoder("pe-l", 1024, 317, {336: "timm/vit_pe_core_large_patch14_336.fb"}, extra="timm"),
    _encoder("pe-g", 1280, 1882, {448: "timm/vit_pe_core_gigantic_patch14_448.fb"}, extra="timm"),
    Entry("tiny-vl", "mllm", 192, 7, 0.0, note="bundled; knows drawings, not photographs"),
    _mllm("smolvlm-256m", 576, 256, "HuggingFaceTB/SmolVLM-256M-Instruct"),
    _mllm("smolvlm-500m", 960, 507, "HuggingFaceTB/SmolVLM-500M-Instruct"),
    _mllm("smolvlm-2b", 2048, 2246, "HuggingFaceTB/SmolVLM-Instruct"),
    _mllm("idefics3-8b", 4096, 8462, "HuggingFaceM4/Idefics3-8B-Llama3"),
    _mllm("qwen2.5-vl-3b", 2048, 3755, "Qwen/Qwen2.5-VL-3B-Instruct"),
    _mllm("qwen2.5-vl-7b", 3584, 8292, "Qwen/Qwen2.5-VL-7B-Instruct"),
    _mllm("qwen3-vl-2b", 2048, 2128, "Qwen/Qwen3-VL-2B-Instruct"),
    _mllm("qwen3-vl-4b", 2560, 4438, "Qwen/Qwen3-VL-4B-Instruct"),
    _mllm("qwen3-vl-8b", 4096, 8767, "Qwen/Qwen3-VL-8B-Instruct"),
    _mllm("internvl3.5-1b", 1024, 1061, "OpenGVLab/InternVL3_5-1B-HF"),
    _mllm("internvl3.5-2b", 2048, 2350, "OpenGVLab/InternVL3_5-2B-HF"),
    _mllm("internvl3.5-4b", 2560, 4732, "OpenGVLab/InternVL3_5-4B-HF"),
    _mllm("internvl3.5-8b", 4096, 8528, "OpenGVLab/InternVL3_5-8B-HF"),
    _mllm("llava-onevision-0.5b", 896, 894, "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"),
    _mllm("llava-onevision-7b", 3584, 8031, "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
)

BY_NAME: Mapping[str, Entry] = {entry.name: entry for entry in ENTRIES}


def names(kind: ModelKind) -> list[str]:
    """Return the short names of one kind, in the order of the catalogue."""
    return [entry.name for entry in ENTRIES if entry.kind == kind]


def text_encoders() -> list[str]:
    """Return the encoders that read text as well as images."""
    return [entry.name for entry in ENTRIES if entry.text_tokens]
