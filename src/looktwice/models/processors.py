"""Load a checkpoint's preprocessing: processor, image processor, tokenizer, with or without torchvision.

A checkpoint's own `processor_class` decides which processor it gets, then its `model_type`, as in transformers. Without
torchvision many stock processors do not load, because their video part needs it. The same class is then used without a
video part; images and text stay the same. Families that need torchvision for images too are refused with that reason.
Image processors for encoders are always Pillow's: an index made on one machine must be searchable on another.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
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
    """Return an MLLM's processor, which turns images and text into model inputs, chat template included.

    Raises ModelError for a checkpoint without one, MissingDependency if its family needs another package.
    """
    cls = _processor_class(checkpoint)
    if "video_processor" in cls.get_attributes() and not _has("torchvision"):
        cls = _without_video(cls)
    if cls.__name__ == "SmolVLMProcessor" and not _has("num2words"):
        raise MissingDependency("num2words", "smolvlm", f"The model {checkpoint.name!r}")
    with plain_errors(checkpoint, "processor"), quiet():
        try:
            processor: ProcessorMixin = cls.from_pretrained(checkpoint.source, **_LOCAL)
        except (ImportError, ValueError, AttributeError) as error:
            if not _has("torchvision") and _is_for_want_of_torchvision(error):
                raise _needs_torchvision(checkpoint) from error
            raise
    return processor


def _is_for_want_of_torchvision(error: Exception) -> bool:
    from transformers.image_processing_base import ImageProcessingMixin

    asked = getattr(error, "obj", None)  # the stand-in for a video processor, where its settings decide about images
    return "torchvision" in str(error).lower() or type(asked) is ImageProcessingMixin


def _needs_torchvision(checkpoint: Checkpoint) -> MissingDependency:
    return MissingDependency("torchvision", "torchvision", f"The processor of the model {checkpoint.name!r}")


def _processor_class(checkpoint: Checkpoint) -> type[ProcessorMixin]:
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    named, own_code = _named_processor(checkpoint)
    name = named or PROCESSOR_MAPPING_NAMES.get(checkpoint.model_type)
    cls = getattr(transformers, name, None) if name else None
    if "torchvision" in getattr(cls, "_backends", ()) and not _has("torchvision"):
        raise _needs_torchvision(checkpoint)
    if isinstance(cls, type) and not getattr(cls, "is_dummy", False) and hasattr(cls, "get_attributes"):
        return cls
    if own_code:
        raise ModelError(
            f"The processor of the model {checkpoint.name!r} is code of its own, which looktwice never runs; name a "
            "model whose processor is in transformers."
        )
    if named:
        raise ModelError(
            f"The model {checkpoint.name!r} needs the processor {named}, which transformers "
            f"{transformers.__version__} does not have; install a transformers that has it, or name another model."
        )
    raise ModelError(
        f"The model {checkpoint.name!r} ({checkpoint.model_type}) has no processor for images and text; "
        "name a multimodal model that transformers knows."
    )


def _named_processor(checkpoint: Checkpoint) -> tuple[str | None, bool]:
    """Return the class that the checkpoint's files name, and whether they bring its code; the first file decides."""
    files = ["processor_config.json", "preprocessor_config.json", "tokenizer_config.json", "config.json"]
    if not (checkpoint.source / files[1]).is_file():
        files[1] = "video_preprocessor_config.json"
    own_code = False
    for path in (checkpoint.source / file for file in files):
        settings = read_json(path) if path.is_file() else {}
        own_code = own_code or "AutoProcessor" in (settings.get("auto_map") or {})
        if name := settings.get("processor_class"):
            return str(name), own_code
    return None, own_code


def _without_video(cls: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """Return the same class with a stand-in for the video processor."""
    from transformers.image_processing_base import ImageProcessingMixin

    no_video = ImageProcessingMixin(num_frames=None, fps=None, model_input_names=[])  # what processors ask of it
    parts = cls.get_attributes()
    rest = [part for part in parts if part != "video_processor"]
    loader: Any = type(cls.__name__, (cls,), {"get_attributes": classmethod(lambda _: rest)})

    def load(_: type, *args: Any, **options: Any) -> list[Any]:
        found = dict(zip(rest, loader._get_arguments_from_pretrained(*args, **options), strict=True))
        return [found.get(part, no_video) for part in parts]

    def check(self: Any, name: str, argument: Any) -> Any:
        return None if argument is no_video else cls.check_argument_for_proper_class(self, name, argument)

    members = {
        "_get_arguments_from_pretrained": classmethod(load),
        "check_argument_for_proper_class": check,
        "__doc__": f"{cls.__name__} for images and text alone.",
    }
    return type(cls.__name__, (cls,), members)


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Return the checkpoint's tokenizer.

    Raises ModelError if it has no readable one, MissingDependency if it needs SentencePiece and that is not installed.
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
    """Return the checkpoint's image processor, in Pillow. Raises ModelError if it has none."""
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
    """Return a function that makes the text of users harmless to a tokenizer.

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
