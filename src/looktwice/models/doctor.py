"""Report what this machine offers looktwice, what is missing, and how to get it. Touches no network."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec

from looktwice.models.checkpoints import bundled_folder, bundled_names
from looktwice.models.device import default_threads, memory, physical_cores, place

_EXTRAS = {
    "timm": "for PE encoders: pip install 'looktwice[timm]'",
    "num2words": "for SmolVLM2: pip install 'looktwice[smolvlm]'",
    "sentence-transformers": "for encoders st:NAME: pip install 'looktwice[st]'",
    "peft": "for adapters NAME+lora:FOLDER: pip install 'looktwice[lora]'",
    "sentencepiece": "for texts with SigLIP 1: pip install 'looktwice[siglip]'",
}
_TORCHVISION = (
    "for timm encoders and for MLLMs whose images only it prepares (Cohere2-Vision, Kimi-K2.5, LFM2-VL, Llama 4, "
    "MiniCPM-V 4.6, Mistral 3 and Pixtral, Molmo 2, Step-3, …): pip install 'looktwice[torchvision]'"
)
_LEAST_FREE = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One line of the report: `ok` is False only if something does not work; `remedy` says what would change it."""

    name: str
    ok: bool
    value: str
    remedy: str = ""


def doctor() -> list[DoctorCheck]:
    """Check packages, device, threads, memory, bundled models, optional parts and the model hub's settings."""
    return [*_packages(), *_compute(), *_models(), *_optional(), _formats(), _hub()]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[DoctorCheck]:
    yield DoctorCheck("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("torch", "transformers", "lancedb", "faiss-cpu"):
        version = _version(package)
        remedy = "" if version else "install looktwice again: pip install looktwice"
        yield DoctorCheck(package, version is not None, version or "not installed", remedy)


def _compute() -> Iterator[DoctorCheck]:
    try:
        placement = place()
    except ImportError as error:
        yield DoctorCheck("device", False, f"torch does not load ({error})", "install a torch that fits this machine")
        return
    faster = "" if placement.device != "cpu" else "a GPU makes the second look much faster; torch finds none here"
    yield DoctorCheck("device", True, f"{placement.device}, {placement.dtype} ({placement.reason})", faster)
    yield DoctorCheck("threads", True, f"{default_threads()} of {physical_cores()} cores", "set with --threads")
    for device in dict.fromkeys(("cpu", placement.device)):
        if device != "mps":
            yield _memory(device)


def _memory(device: str) -> DoctorCheck:
    sizes = memory(device)
    free, total = (_gigabytes(size) for size in (sizes.free, sizes.total))
    enough = sizes.free >= _LEAST_FREE
    remedy = "" if enough else "close other programs, or choose smaller models"
    return DoctorCheck(f"memory {device}", enough, f"{free} free of {total}", remedy)


def _gigabytes(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"


def _models() -> Iterator[DoctorCheck]:
    for name in bundled_names():
        there = (bundled_folder(name) / "config.json").is_file()
        yield DoctorCheck(name, there, "bundled" if there else "missing", "" if there else "install looktwice again")


def _optional() -> Iterator[DoctorCheck]:
    for package, remedy in _EXTRAS.items():
        version = _version(package)
        yield DoctorCheck(package, True, version or "not installed (optional)", "" if version else remedy)
    yield _torchvision()


def _torchvision() -> DoctorCheck:
    if find_spec("torchvision") is None:
        return DoctorCheck("torchvision", True, "not installed (optional)", _TORCHVISION)
    try:
        module = import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:  # how one built for another torch fails
        value = f"installed, but does not load ({str(error).splitlines()[0]})"
        return DoctorCheck(
            "torchvision", False, value, "pip uninstall torchvision, or install the one made for your torch"
        )
    return DoctorCheck("torchvision", True, str(module.__version__))


def _formats() -> DoctorCheck:
    from PIL import features

    missing = [name for name in ("jpg", "webp", "avif") if not features.check(name)]
    value = "JPEG, WebP, AVIF" if not missing else f"Pillow lacks {', '.join(missing)}"
    return DoctorCheck("images", not missing, value, "" if not missing else "pip install --upgrade pillow")


def _hub() -> DoctorCheck:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        remedy = "unset HF_HUB_OFFLINE to download models that you name"
        return DoctorCheck("model hub", True, "offline by HF_HUB_OFFLINE: only models already on this machine", remedy)
    from huggingface_hub import constants

    return DoctorCheck("model hub", True, f"asked only for models that you name; kept in {constants.HF_HUB_CACHE}")
