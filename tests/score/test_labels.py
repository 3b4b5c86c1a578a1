"""Label spellings against real tokenizers of the two kinds, built here from a few words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from looktwice.errors import UsageError
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Label
from looktwice.score.readout.labels import resolve, single_token


def byte_level() -> Any:
    pieces = ["<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ye", "Yes", "ĠY", "ĠYe", "ĠYes", "No"]
    merges = [("Y", "e"), ("Ye", "s"), ("Ġ", "Y"), ("ĠY", "e"), ("ĠYe", "s"), ("N", "o")]
    core = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def metaspace() -> Any:
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("0", -3.0), ("1", -3.0), ("▁Yes", -1.0), ("Yes", -4.0), ("▁No", -1.0)]
    core = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def test_byte_level_spellings_with_and_without_space_are_two_tokens() -> None:
    tokenizer = byte_level()
    ids = [single_token(text, tokenizer) for text in ("Yes", " Yes", "1", "yes", "10")]
    assert tokenizer.convert_ids_to_tokens(ids[:3]) == ["Yes", "ĠYes", "1"]
    assert ids[3:] == [None, None]


def test_a_digit_without_the_space_that_the_tokenizer_would_add() -> None:
    tokenizer = metaspace()
    assert tokenizer.encode("1", add_special_tokens=False) != [tokenizer.get_vocab()["1"]]
    assert single_token("1", tokenizer) == tokenizer.get_vocab()["1"]
    assert single_token("Yes", tokenizer) == tokenizer.get_vocab()["Yes"]
    assert single_token(" Yes", tokenizer) == tokenizer.get_vocab()["▁Yes"]
    assert single_token("No", tokenizer) == tokenizer.get_vocab()["▁No"], "the only piece there is"
    assert single_token("7", tokenizer) is None, "an unknown token spells nothing"


def test_labels_gather_the_variants_that_exist() -> None:
    tokenizer = byte_level()
    found = resolve(built_in.get("object_yesno"), tokenizer)
    assert [tokenizer.convert_ids_to_tokens(list(ids)) for ids in found.ids] == [["No"], ["Yes", "ĠYes"]]
    assert found.values == (0.0, 1.0)


def test_no_single_token_is_refused_plainly() -> None:
    with pytest.raises(UsageError, match="no single token for '10'"):
        resolve(built_in.get("decimal"), byte_level())


def test_two_labels_on_one_token_are_refused() -> None:
    prompt = replace(built_in.get("object"), labels=(Label("a", 0.0, ("No",)), Label("b", 1.0, (" No",))))
    with pytest.raises(UsageError, match="same token"):
        resolve(prompt, metaspace())
