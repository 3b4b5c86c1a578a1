"""Costs from config.json alone: against published tables, real parameter counts and transformers' own defaults."""

import json
import math
import re
from dataclasses import replace

import pytest

from looktwice.codecs import token_count
from looktwice.errors import Mismatch, UnknownName, UsageError
from looktwice.estimate.cost import Text, estimate, language_tokens, pair_cost
from looktwice.estimate.shapes import image_layout, load_config, patches, public_shapes, shape
from looktwice.models.checkpoints import bundled_folder
from looktwice.models.decoders import TEXT_DEFAULTS
from looktwice.score.local.families.costs import COSTS
from looktwice.types import Block

SHORT = Text(20, 10, 25)
T, G = 1e12, 1e9


def costs(model: str, tokens: int, pooled: int | None = None, k: int = 100) -> tuple[float, ...]:
    """TFLOP per pair at the four stages, then with the candidate pooled to `pooled` tokens; no windows in the tower."""
    sizes = shape(load_config(model))
    sizes = replace(sizes, full_layers=sizes.vision_layers)
    views = [tokens * sizes.merge**2]
    cost = pair_cost(sizes, tokens, tokens, views, SHORT, k)
    small = pair_cost(sizes, tokens, pooled or tokens, views, SHORT, k)
    stages = (cost.naive, cost.last_position, cost.stored_tokens, cost.prefix_kv, small.prefix_kv)
    return tuple(stage / T for stage in stages)


@pytest.mark.parametrize(
    ("model", "weights", "tokens", "pooled", "expected"),
    [  # docs/explanation/performance.md, "Physical limit": TFLOP per pair, three digits
        ("Qwen3-VL-2B-Instruct", 1.41, 256, 64, (3.43, 3.08, 1.64, 0.835, 0.273)),
        ("Qwen2.5-VL-7B-Instruct", 6.53, 256, 64, (11.0, None, 7.48, 3.77, 1.23)),
        ("Qwen3-VL-8B-Instruct", 6.95, 256, 64, (10.6, None, None, 4.02, 1.30)),
        ("InternVL3-1B-hf", 0.36, 256, 64, (2.02, None, None, 0.221, 0.076)),
        ("SmolVLM2-500M-Video-Instruct", 0.31, 64, None, (0.56, None, None, 0.060, None)),
        ("SmolVLM-256M-Instruct", 0.11, 64, 16, (0.476, None, 0.042, 0.022, 0.011)),
    ],
)
def test_the_published_table_of_costs(model, weights, tokens, pooled, expected) -> None:
    sizes = shape(load_config(model))
    assert sizes.weights / G == pytest.approx(weights, abs=0.006)
    for stage, (got, wanted) in enumerate(zip(costs(model, tokens, pooled), expected, strict=True)):
        if wanted is not None:
            assert got == pytest.approx(wanted, rel=0.01, abs=6e-4), f"stage {stage}"


def test_what_k_does_to_a_pair() -> None:
    got = [costs("Qwen/Qwen3-VL-2B-Instruct", 256, 64, k)[4] for k in (1, 10, 50, 100)]
    assert got == pytest.approx([1.80, 0.41, 0.29, 0.27], rel=0.03)


def test_the_released_setting() -> None:
    """Qwen2.5-VL-7B, 729 tokens a picture, 140 text tokens after both, k 1000: 29.5 / 21.7 / 11.8 / 4.33 TFLOP."""
    sizes = shape(load_config("Qwen/Qwen2.5-VL-7B-Instruct"))
    released = pair_cost(sizes, 729, 729, [4 * 729], Text(20, 10, 140), 1000)
    pooled = pair_cost(sizes, 729, 182, [4 * 729], Text(20, 10, 140), 1000)
    got = [released.last_position, released.stored_tokens, released.prefix_kv, pooled.prefix_kv]
    assert [one / T for one in got] == pytest.approx([29.5, 21.7, 11.8, 4.33], rel=0.01)


def test_windows_in_the_tower_of_qwen2_5() -> None:
    sizes = shape(load_config("Qwen/Qwen2.5-VL-7B-Instruct"))
    assert sizes.tower(1024) / T == pytest.approx(1.32, rel=0.005)
    assert replace(sizes, full_layers=32).tower(1024) / T == pytest.approx(1.46, rel=0.005)


def test_the_estimate_of_a_hundred_million() -> None:
    result = estimate("Qwen3-VL-2B-Instruct", items=10**8, size=(512, 512), text=SHORT)
    assert (result.tokens, result.candidate_tokens) == (256, 256)
    assert result.bytes_total == pytest.approx(419e12, rel=0.01)  # four streams: features and three DeepStack levels
    assert result.pairs_per_second_ceiling == pytest.approx(946, rel=0.02)
    assert result.pairs_per_second == pytest.approx(378, rel=0.02)
    assert result.index_hours == pytest.approx(63, rel=0.02)
    assert result.query_seconds == pytest.approx(100 / 378, rel=0.02)
    assert result.kv_bytes_per_token == 112 * 1024
    pooled = estimate("Qwen3-VL-2B-Instruct", items=10**8, codec="pool2+int8", size=(512, 512), text=SHORT)
    assert pooled.candidate_tokens == 64
    assert pooled.pair_flop == pytest.approx(0.273 * T, rel=0.03)
    assert pooled.bytes_per_item == 24 + 4 * 64 * (2048 + 4)
    json.dumps(pooled.record())


@pytest.mark.parametrize(
    ("codec", "resolution", "size", "thousand_bytes"),
    [  # the method's byte table, Qwen2.5-VL-7B: square and 4:3 pictures
        ("none", 756, (100, 100), 5226), ("none", 756, (1024, 768), 3870), ("none", 560, (900, 900), 2867),
        ("none", 560, (640, 480), 2150), ("pool2:released", 756, (100, 100), 1212),
        ("pool2:released", 756, (1024, 768), 932), ("cluster70", 756, (100, 100), 502), ("pq:448", 756, (9, 9), 327),
        ("pq:448", 756, (1024, 768), 242), ("pq:448", 560, (9, 9), 179), ("pq:448", 560, (1024, 768), 134),
        ("pq:224", 560, (9, 9), 90), ("pq:224", 560, (1024, 768), 67), ("pq:16", 560, (9, 9), 6.4),
        ("pq:16", 560, (1024, 768), 4.8),
    ],
)  # fmt: skip
def test_the_published_table_of_bytes(codec, resolution, size, thousand_bytes) -> None:
    result = estimate("Qwen/Qwen2.5-VL-7B-Instruct", items=1, codec=codec, resolution=resolution, size=size)
    assert result.bytes_per_item / 1000 == pytest.approx(thousand_bytes, rel=0.006)
    assert result.codebook_bytes == (3_670_016 if "pq" in codec else 0)


def test_a_checkpoint_counted_elsewhere() -> None:
    """InternVL3.5-1B: 751,632,384 parameters in its language model, head untied."""
    sizes = shape(load_config("OpenGVLab/InternVL3_5-1B-HF"))
    norms = len(sizes.decoder) * 2 * (sizes.width + 128) + sizes.width
    assert sizes.weights + 2 * sizes.vocab * sizes.width + norms == 751_632_384


EXPERTS = {"enable_moe_block": True, "num_experts": 5, "top_k_experts": 2, "moe_intermediate_size": 24}


@pytest.mark.parametrize(
    ("family", "more"),
    [*((family, {}) for family in sorted(COSTS)), ("gemma4", {**EXPERTS, "attention_k_eq_v": True})],
)
def test_weights_are_those_of_the_real_architecture(family: str, more: dict) -> None:
    """Count the matrices of a tiny random model, on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    text = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 99}  # fmt: skip
    if family.startswith("qwen"):
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 56, "num_heads": 2, "out_hidden_size": 48}
    else:
        sides = {"patch_size": [7, 7], "image_size": [28, 28]} if family == "internvl" else {"patch_size": 7}
        vision = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 56, "num_attention_heads": 2, **sides}
    if family in ("llava_onevision", "gemma3"):
        vision |= {"model_type": "siglip_vision_model", "vision_use_head": False, "image_size": 28}
    if family == "gemma4":
        vision |= {"head_dim": 16, "num_key_value_heads": 2, "pooling_kernel_size": 1}
        text |= {"layer_types": ["sliding_attention", "full_attention"] * 2, "vocab_size_per_layer_input": 99}
        text |= {"num_kv_shared_layers": 2, "use_double_wide_mlp": True, "hidden_size_per_layer_input": 8, **more}
    if family == "internvl":
        text |= {"model_type": "qwen3"}
    if "moe" in family:
        text |= {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        text |= {"shared_expert_intermediate_size": 40} if "5" in family else {"mlp_only_layers": [1]}
    config = AutoConfig.for_model(family, text_config=text, vision_config=vision)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    sizes = shape(json.loads(config.to_json_string()))

    def matrices(tower: bool) -> int:
        """Numbers in the layers' matrices, those of all experts included."""
        place = re.compile(r"(layers|encoder\.layer|blocks)\.(?!.*conv1d)|per_layer_model")
        named = [(name, p.numel()) for name, p in model.named_parameters() if p.dim() > 1 and place.search(name)]
        return sum(count for name, count in named if ("vis" in name) == tower)

    assert (sizes.vision_weights, sizes.weights) == (matrices(True), matrices(False))
    assert sizes.active_weights == sizes.weights - idle(model)
    assert sizes.width == 48 and sizes.vocab == 99
    assert {layer.width for layer in sizes.decoder} <= {0, 48 if family == "qwen2_5_vl" else 64, 4 * 512}


def idle(model) -> int:
    """Weights of the experts that a token is not sent to."""
    text = model.config.get_text_config()
    sent = getattr(text, "num_experts_per_tok", None) or getattr(text, "top_k_experts", None)
    stacks = [p for name, p in model.named_parameters() if p.dim() == 3 and "experts" in name]
    return sum(p.numel() // p.shape[0] * (p.shape[0] - sent) for p in stacks)


def test_windows_and_recurrences_bound_what_is_attended() -> None:
    """Six layers, one of them without a window of 512: counted token by token."""
    sizes = shape({"model_type": "gemma3", "text_config": {"num_hidden_layers": 6, "sliding_window": 512}})
    for new, cached in ((1, 0), (100, 40), (100, 450), (700, 30), (50, 4000)):
        attended = sum(5 * min(512, at) + at for at in range(cached + 1, cached + new + 1))
        assert sizes.forward(new, cached) == 2 * sizes.weights * new + 4 * 8 * 256 * attended
    nets = shape({"model_type": "qwen3_5"})
    assert sum(layer.width > 0 for layer in nets.decoder) == len(nets.decoder) // 4
    assert nets.kv_bytes_per_token == 2 * 8 * 2 * 4 * 256
    recurrence = 24 * 6 * 32 * 128 * 128
    assert nets.forward(1, 0) == 2 * nets.weights + 4 * 8 * 16 * 256 + recurrence


@pytest.mark.parametrize(
    ("model", "text", "billions"),
    [  # counts in the names of public models: total, and active where there are experts
        ("qwen3_vl_moe", {"num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
                          "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}, (30, 3)),
        ("qwen3_5_moe", {}, (35, 3)),
    ],
)  # fmt: skip
def test_experts_count_once_in_what_is_stored_and_few_times_in_what_is_run(model, text, billions) -> None:
    sizes = shape({"model_type": model, "text_config": text})
    stored, run = (round(weights / 1e9 + 0.5) for weights in (sizes.weights, sizes.active_weights))
    assert (stored, run) == pytest.approx(billions, abs=1.5)


@pytest.mark.parametrize(
    ("size", "shape_of"),
    [((1024, 768), (14, 19)), ((512, 512), (16, 16)), ((5000, 10), (1, 280)), ((10, 5000), (280, 1))],
)
def test_gemma_4_scales_every_picture_to_its_budget(size, shape_of) -> None:
    _, block, _ = image_layout(shape({"model_type": "gemma4"}), size)
    assert isinstance(block, Block) and (block.h, block.w) == shape_of


@pytest.mark.parametrize("family", sorted(COSTS))
def test_what_config_json_leaves_out_is_what_transformers_assumes(family: str) -> None:
    from transformers import AutoConfig

    text_type, vision = COSTS[family].text_type, COSTS[family].vision
    ours = shape({"model_type": family, "text_config": {"model_type": text_type}})
    config = AutoConfig.for_model(family, **({"vision_config": {}} if family == "gemma4" else {}))
    theirs = shape(json.loads(config.to_json_string(use_diff=False)))
    assert ours == theirs
    for key, value in vision.items():
        assert config.vision_config.to_dict()[key] == value


@pytest.mark.parametrize("name", sorted(TEXT_DEFAULTS))
def test_defaults_of_language_models(name: str) -> None:
    from transformers import AutoConfig
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

    own = {"qwen2_5_vl_text": Qwen2_5_VLTextConfig, "qwen3_vl_text": Qwen3VLTextConfig}
    theirs = own[name]().to_dict() if name in own else AutoConfig.for_model(name).to_dict()
    theirs.setdefault("num_experts", theirs.get("num_local_experts"))
    assert {key: theirs[key] for key in TEXT_DEFAULTS[name]} == TEXT_DEFAULTS[name]


@pytest.mark.parametrize("model", sorted(public_shapes()))
def test_every_public_model_has_an_estimate(model: str) -> None:
    sizes = shape(load_config(model))
    result = estimate(model, items=10, codec="pq16")
    assert result.bytes_per_item < result.bytes_uncompressed / 20
    assert 0 < result.pair_flop < result.naive_pair_flop
    assert sum(patches(sizes, image_layout(sizes))) == result.tokens * sizes.merge**2


@pytest.mark.parametrize(
    ("model", "options", "tokens", "in_language_model"),
    [
        ("SmolVLM-256M-Instruct", {"max_tiles": 1}, 64, 67),
        ("SmolVLM-256M-Instruct", {"size": (512, 512), "max_tiles": 4}, 5 * 64, 5 * 64 + 4 * 2 + 2 + 4),
        ("SmolVLM-256M-Instruct", {"size": (900, 300), "max_tiles": 9}, 4 * 64, 4 * 64 + 3 * 2 + 1 + 4),
        ("InternVL3-1B-hf", {"size": (448, 448)}, 256, 258),
        ("InternVL3-1B-hf", {"size": (1344, 448), "max_tiles": 6}, 4 * 256, 4 * 256 + 2),
        ("llava-onevision-qwen2-7b-ov-hf", {"max_tiles": 9}, 729, 730),
        ("Qwen2.5-VL-7B-Instruct", {"size": (1000, 10), "resolution": 756}, 27, 27),
    ],
)
def test_how_many_tokens_a_picture_becomes(model, options, tokens, in_language_model) -> None:
    layout = image_layout(shape(load_config(model)), **options)
    assert (token_count(layout), language_tokens(layout)) == (tokens, in_language_model)


def test_newlines_of_rows_count() -> None:
    assert language_tokens((Block("tile", 3, 5, newlines=True),)) == 18


def test_what_is_refused(tmp_path) -> None:
    with pytest.raises(UnknownName, match="did you mean Qwen/Qwen3-VL"):
        estimate("Qwen/Qwen3-VL-2B-Instruc", items=1)
    with pytest.raises(UsageError, match="family 'bert'"):
        estimate({"model_type": "bert"}, items=1)
    with pytest.raises(Mismatch, match="numbers of sub-vectors that do: 1, 2, 4, 7, 8"):
        estimate("Qwen2.5-VL-7B-Instruct", items=1, codec="pq:9")
    for wrong in ({"items": -1}, {"items": 1, "k": 0}, {"items": 1, "mfu": 1.5}, {"items": 1, "flops": math.nan}):
        with pytest.raises(UsageError, match="needs items"):
            estimate("Qwen2.5-VL-7B-Instruct", **wrong)
    for name in ("resolution", "max_tiles"):
        for number in (0, -560):
            with pytest.raises(UsageError, match="must be"):
                estimate("Qwen2.5-VL-7B-Instruct", items=1, **{name: number})
    with pytest.raises(UsageError, match="set resolution instead"):
        estimate("Qwen2.5-VL-7B-Instruct", items=1, max_tiles=4)
    with pytest.raises(UsageError, match="set max_tiles instead"):
        estimate("InternVL3-1B-hf", items=1, resolution=560)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        estimate(tmp_path, items=1)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    assert estimate(tmp_path, items=1).family == "qwen3_vl"


def test_no_torch_is_loaded() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from looktwice.estimate.cost import estimate;"
        "estimate('Qwen3-VL-2B-Instruct', items=9, codec='pq16');"
        "assert not {'torch', 'transformers', 'faiss'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_model_of_the_catalogue_has_a_shape() -> None:
    from looktwice.models.catalog import BY_NAME

    models = [entry for entry in BY_NAME.values() if entry.kind == "mllm" and entry.hub]
    assert models
    for entry in models:
        for name in entry.hub.values():
            assert shape(load_config(name)).width == entry.dim, name


def test_a_processor_that_does_not_split_images_makes_one_tile() -> None:
    folder = bundled_folder("tiny-vl")  # config.json alone would say 13 tiles
    assert token_count(image_layout(shape(load_config(folder)))) == 25
    alone = json.loads((folder / "config.json").read_text())
    assert token_count(image_layout(shape(load_config(alone)))) == 13 * 25
    assert token_count(image_layout(shape(load_config(folder)), max_tiles=4)) > 25
