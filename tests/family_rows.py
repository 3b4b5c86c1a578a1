"""The table of image-text families: one row each; tiny_families.py says what a row is."""

from __future__ import annotations

from tiny_families import Row

VIT = {"vision_config.image_size": 32, "vision_config.patch_size": 8}
SQUARE = {"size": {"height": 32, "width": 32}}
CLIP = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
GEMMA = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
AUDIO = {"audio_token": "<audio_soft_token>", "boa_token": "<start_of_audio>", "eoa_token": "<end_of_audio>"}
SIDES = {"image_start_token": "<im_start>", "image_end_token": "<im_end>"}
VIDEO = {"video_token": "<video>"}
COHERE = {
    "image_token": "<|IMG_PATCH|>",
    "boi_token": "<|START_OF_IMG|>",
    "eoi_token": "<|END_OF_IMG|>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
}
SLICES = {
    **SIDES,
    **VIDEO,
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
PIXTRAL = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
LLAVA = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    **VIDEO,
}
QWEN_IDS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "video_token_id": "<video>",
}
GLM_IMAGE, GLM_SIDES = "<|begin_of_image|><|image|><|end_of_image|>", "<|begin_of_image|> <|end_of_image|>"
GLM_ROPE = {"text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
MOLMO = "<im_patch> <im_col> <im_start> <low_res_im_start> <frame_start> <im_end> <frame_end> <im_low>"
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
FEW_PIXELS = {"size": {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}}

ROWS: tuple[Row, ...] = (
    Row(
        "aria",
        "<|img|>",
        images={"max_image_size": 490, "min_image_size": 336, "split_image": False},
        processor={"size_conversion": {"490": 8, "980": 16}},
        config={
            "vision_config.image_size": 980,
            "vision_config.patch_size": 14,
            "projector_patch_to_query_dict": {1225: 8, 4900: 16},
        },
    ),
    Row(
        "aya_vision",
        tokens={"image_token": "<image>"},
        special="<|IMG_PATCH|> <|START_OF_IMG|> <|END_OF_IMG|> <|IMG_LINE_BREAK|> TILE TILE_GLOBAL",
        ids={"image_token_index": "<|IMG_PATCH|>"},
        images=SQUARE,
        processor={"patch_size": 8, "img_size": 32, "downsample_factor": 2},
        config={**VIT, "downsample_factor": 2},
    ),
    Row(
        "cohere2_vision",
        COHERE["image_token"],
        tokens=COHERE,
        images={**SQUARE, "patch_size": 2},
        config={**VIT, "downsample_factor": 2, "alignment_intermediate_size": 64},
        torchvision=True,
    ),
    Row("deepseek_vl", images=SQUARE, processor={"num_image_tokens": 16}, config=VIT),
    Row(
        "gemma3",
        "<start_of_image>",
        tokens=GEMMA,
        images=SQUARE,
        processor={"image_seq_length": 4},
        config={**VIT, "mm_tokens_per_image": 4},
    ),
    Row(
        "gemma4",
        "<image_soft_token>",
        tokens={**GEMMA, **AUDIO, **VIDEO},
        config={
            "text_config.vocab_size_per_layer_input": 1024,
            "text_config.hidden_size_per_layer_input": 16,
            "text_config.num_hidden_layers": 6,
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
            },
        },
    ),
    Row(
        "glm4v",
        GLM_IMAGE,
        tokens={"image_token": "<|image|>", **VIDEO},
        special=GLM_SIDES,
        images=FEW_PIXELS,
        config=GLM_ROPE,
    ),
    Row(
        "glm46v",
        GLM_IMAGE,
        tokens={"image_token": "<|image|>", **VIDEO},
        special=GLM_SIDES,
        images=FEW_PIXELS,
        config=GLM_ROPE,
    ),
    Row(
        "glm_ocr",
        GLM_IMAGE,
        tokens={"image_token": "<|image|>", **VIDEO},
        special=GLM_SIDES,
        images=FEW_PIXELS,
        config=GLM_ROPE,
        processor_class="Glm46VProcessor",
        image_processor="Glm46VImageProcessor",
    ),
    Row(
        "kimi_k25",
        "<|media_pad|>",
        tokens=VIDEO,
        config={
            "projection_hidden_size": 32,
            "text_config.head_dim": 64,
            "text_config.num_key_value_heads": 2,
            "vision_config.pos_emb_height": 8,
            "vision_config.pos_emb_width": 8,
        },
        torchvision=True,
    ),
    Row("lfm2_vl", special="<|image_start|> <|image_end|> <|img_thumbnail|>", torchvision=True),
    Row(
        "llama4",
        "<|image|>",
        special="<|patch|> <|image_start|> <|image_end|> <|tile_x_separator|> <|tile_y_separator|>",
        ids={"image_token_index": "<|patch|>"},
        images=SQUARE,
        processor={"patch_size": 8, "pixel_shuffle_ratio": 0.5},
        config={
            **VIT,
            "vision_config.projector_input_dim": 32,
            "vision_config.projector_output_dim": 32,
            "vision_config.intermediate_size": 128,
        },
        refused="forward in transformers fails",
        torchvision=True,
    ),
    Row("llava", images=CLIP, processor=LLAVA, config=VIT),
    Row(
        "llava",
        "[IMG]",
        name="llava (Pixtral)",
        tokens=PIXTRAL,
        processor_class="PixtralProcessor",
        image_processor="PixtralImageProcessor",
        images={"size": {"longest_edge": 64}, "patch_size": 8},
        processor={"patch_size": 8},
        config={
            "vision_config": {
                "model_type": "pixtral",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 64,
                "patch_size": 8,
            },
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
        torchvision=True,
    ),
    Row(
        "mistral3",
        "[IMG]",
        tokens=PIXTRAL,
        images={"size": {"longest_edge": 64}, "patch_size": 8},
        processor={"patch_size": 8, "spatial_merge_size": 2},
        config={"vision_config.image_size": 64, "vision_config.patch_size": 8},
        torchvision=True,
    ),
    Row(
        "mllama",
        "<|image|>",
        images={"size": {"height": 32, "width": 32}, "max_image_tiles": 4},
        config={
            **VIT,
            "text_config.cross_attention_layers": [1],
            "vision_config.intermediate_layers_indices": [0],
            "vision_config.vision_output_dim": 64,
        },
    ),
    Row(
        "molmo2",
        "<|image|>",
        tokens=VIDEO,
        special=MOLMO,
        ids={"image_patch_id": "<im_patch>"},
        config={"adapter_config.vision_feature_layer": [0, 1], "adapter_config.text_hidden_size": 32},
        torchvision=True,
    ),
    Row(
        "ovis2",
        images=SQUARE,
        config=VIT,
        special="<IMG_START> <IMG_ATOM> <IMG_GRID> <IMG_COL> <IMG_ROW> <IMG_END>",
        ids={"image_token_id": "<IMG_ATOM>"},
        processor={"image_seq_length": 16},
    ),
    Row("step3p7", "<im_patch>", config={"text_config.sliding_window": 64}, torchvision=True),
    Row("minicpmv4_6", tokens=SLICES, config={"text_config.num_hidden_layers": 4}, torchvision=True),
    Row(
        "ernie4_5_vl_moe",
        "<im_start><image><im_end>",
        tokens={"image_token": "<image>", **SIDES, **VIDEO, "video_start_token": "<vs>", "video_end_token": "<ve>"},
        images=FEW_PIXELS,
        processor={
            "video_processor": {"video_processor_type": "Ernie4_5_VLMoeVideoProcessor", "draw_on_frames": False}
        },
        config={"text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]}},
    ),
    Row(
        "paligemma",
        images=SQUARE,
        processor={"image_seq_length": 16},
        config=VIT,
        template=False,
        refused="no chat template",
    ),
    Row("florence2", template=False, refused="no chat template"),
    Row(
        "qwen3_5",
        QWEN_IMAGE,
        tokens=QWEN_TOKENS,
        ids=QWEN_IDS,
        images={**FEW_PIXELS, "patch_size": 16},
        config={"text_config.num_hidden_layers": 4},
    ),
    Row(
        "qwen3_5_moe",
        QWEN_IMAGE,
        tokens=QWEN_TOKENS,
        ids=QWEN_IDS,
        images={**FEW_PIXELS, "patch_size": 16},
        config={"text_config.num_hidden_layers": 4},
    ),
    Row(
        "qwen3_vl_moe",
        QWEN_IMAGE,
        tokens=QWEN_TOKENS,
        ids=QWEN_IDS,
        images={**FEW_PIXELS, "patch_size": 16},
        image_processor="Qwen2VLImageProcessor",
        config={"vision_config.deepstack_visual_indexes": [0, 1]},
    ),
)
BY_NAME = {row.key: row for row in ROWS}
