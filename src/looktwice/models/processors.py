"""The preprocessing that belongs to a checkpoint: processor, image processor, tokenizer, with or without torchvision.

Without torchvision the stock processors of SmolVLM, Qwen-VL, InternVL and LLaVA-OneVision do not load, because their
video part needs it. Here the family's own processor class is then used without a video part; pictures and text go the
same way. Image processors for encoders are always Pillow's: an index made on one machine must be searchable on another.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from looktwice.errors import MissingDependency, ModelError
from looktwice.models.checkpoints import Checkpoint, read_json
from looktwice.models.weights import plain_errors, quiet
from looktwice.types import shortened

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin
    from transformers.image_processing_utils import BaseImageProcessor

_LOCAL = {"trust_remote_code": False, "local_files_only": True}
_TORCHVISION_ONLY = {"DINOv3ViTImageProcessor": "ViTImageProcessorPil"}  # the same steps in Pillow, by class name


def _has(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def load_processor(checkpoint: Checkpoint) -> ProcessorMixin:
    """Return an MLLM's processor: pictures and text to model inputs, chat template included.

    Raises ModelError for a checkpoint that has none, MissingDependency where its family needs another package.
    """
    cls = _processor_class(checkpoint)
    if "video_processor" in cls.get_attributes() and not _has("torchvision"):
        cls = _without_video(cls)
    if cls.__name__ == "SmolVLMProcessor" and not _has("num2words"):
        raise MissingDependency("num2words", "smolvlm", f"The model {checkpoint.name!r}")
    with plain_errors(checkpoint, "processor"), quiet():
        processor: ProcessorMixin = cls.from_pretrained(checkpoint.source, **_LOCAL)
    return processor


def _processor_class(checkpoint: Checkpoint) -> type[ProcessorMixin]:
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    name = PROCESSOR_MAPPING_NAMES.get(checkpoint.model_type)
    cls = getattr(transformers, name, None) if name else None
    if not isinstance(cls, type) or getattr(cls, "is_dummy", False) or not hasattr(cls, "get_attributes"):
        raise ModelError(
            f"The model {checkpoint.name!r} ({checkpoint.model_type}) has no processor for pictures and text; "
            "name a multimodal model that transformers knows."
        )
    return cls


def _without_video(cls: type[ProcessorMixin]) -> type[ProcessorMixin]:
    parts = [part for part in cls.get_attributes() if part != "video_processor"]
    members = {
        "get_attributes": classmethod(lambda _: list(parts)),
        "video_processor": SimpleNamespace(num_frames=None, fps=None),  # SmolVLM's chat template asks for these two
        "__doc__": f"{cls.__name__} for pictures and text alone.",
    }
    return type(cls.__name__, (cls,), members)


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Return the checkpoint's tokenizer.

    Raises ModelError where there is none that can be read, MissingDependency where it is in SentencePiece's format and
    that is not installed.
    """
    from transformers import AutoTokenizer

    if _is_sentencepiece(checkpoint) and not (_has("sentencepiece") and _has("google.protobuf")):
        raise MissingDependency("sentencepiece and protobuf", "siglip", f"Text with the model {checkpoint.name!r}")
    with plain_errors(checkpoint, "tokenizer"), quiet():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(checkpoint.source, **_LOCAL)
    return tokenizer


def _is_sentencepiece(checkpoint: Checkpoint) -> bool:
    path = checkpoint.source / "tokenizer_config.json"
    kind = read_json(path).get("tokenizer_class") if path.is_file() else None
    converted = (checkpoint.source / "tokenizer.json").is_file()
    return kind == "SiglipTokenizer" or (not converted and any(checkpoint.source.glob("*.model")))


def load_image_processor(checkpoint: Checkpoint) -> BaseImageProcessor:
    """Return the checkpoint's image processor, in Pillow. Raises ModelError where there is none."""
    from transformers import AutoImageProcessor

    settings = _image_settings(checkpoint)
    kind = str(settings.get("image_processor_type", "")).removesuffix("Fast")
    with plain_errors(checkpoint, "image processor"), quiet():
        if kind in _TORCHVISION_ONLY:
            return _pillow_twin(_TORCHVISION_ONLY[kind], settings)
        processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(checkpoint.source, backend="pil", **_LOCAL)
    return processor


def _image_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = checkpoint.source / name
        settings = read_json(path) if path.is_file() else {}
        nested = settings.get("image_processor", settings)
        if "image_processor_type" in nested or "image_mean" in nested:
            return dict(nested)
    raise ModelError(f"The model {checkpoint.name!r} has no preprocessor_config.json; name a complete checkpoint.")


def _pillow_twin(name: str, settings: dict[str, Any]) -> BaseImageProcessor:
    import transformers

    kept = ("size", "resample", "do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    twin: BaseImageProcessor = getattr(transformers, name)(**{key: settings[key] for key in kept if key in settings})
    return twin


def cleaner(processor: Any) -> Callable[[str], str]:
    """Return a function that takes the sting out of text that people wrote.

    Spellings of control tokens ("<image>", "<|im_end|>") get a space after their first character, so that they are
    read as the text they are; lone surrogates, which no tokenizer accepts, become question marks. Long text is cut.
    """
    tokenizer = processor.tokenizer
    control = {str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special}
    control |= {str(t) for t in tokenizer.all_special_tokens}
    control |= {str(getattr(processor, name)) for name in ("image_token", "video_token") if hasattr(processor, name)}
    spellings = sorted((re.escape(t) for t in control if len(t) > 1 and t.strip() == t), key=len, reverse=True)
    pattern = re.compile("|".join(spellings) or r"(?!)")

    def clean(text: str) -> str:
        text = shortened(text).encode("utf-8", "replace").decode("utf-8")
        while (apart := pattern.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text)) != text:
            text = apart
        return text

    return clean
