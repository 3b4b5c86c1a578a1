"""Presets, what fits this machine, and the lines that a newcomer needs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Looktwice

from looktwice.cli.summary import SLOW, advise
from looktwice.codecs import parse_codec
from looktwice.encode.name import parse
from looktwice.errors import UnknownName, UsageError
from looktwice.estimate import fits as fitting
from looktwice.evaluate import measure
from looktwice.models.catalog import BY_NAME
from looktwice.models.device import Memory, Placement
from looktwice.models.presets import PRESETS
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Label, Prompt, Segment
from looktwice.score.prompting.prompt_file import to_toml


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, looktwice: Looktwice) -> list[tuple[str, dict[str, Any]]]:
    """The names and settings that models are loaded with from here on."""
    from looktwice.testing import ColorEncoder

    seen: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr("looktwice.encode.load_encoder", lambda name, **own: seen.append((name, own)) or ColorEncoder())
    return seen


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_stands_for_names_that_exist(preset: Any) -> None:
    encoder, mllm = BY_NAME[parse(preset.encoder).model], BY_NAME[preset.mllm]
    assert (encoder.kind, mllm.kind) == ("encoder", "mllm") and encoder.text_tokens and not encoder.bundled
    assert str(parse_codec(preset.codec)) == preset.codec and preset.reason
    assert (preset.resolution is None) != (preset.max_tiles is None)
    assert fitting.encoder_flop(preset) > 1e10


def test_index_takes_the_presets_encoder_and_what_is_given_wins(
    looktwice: Looktwice, pictures: Path, loaded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[Any] = []
    monkeypatch.setattr("looktwice.cli.tokens.record", lambda report: None)
    report = type("Report", (), {"failed": 0})()
    monkeypatch.setattr(
        "looktwice.cli.tokens.fill", lambda table, *given, **how: filled.append((*given[:3], how["named"])) or report
    )
    done = looktwice("index", "a.lt", pictures, "--preset", "gpu")
    assert done.code == 0 and loaded[-1][0] == "siglip2-l"
    assert "Preset gpu stands for --encoder siglip2-l --mllm qwen3-vl-4b --codec opq16 --resolution 560" in done.err
    mllm, codec, limits, named = filled[-1]
    assert (mllm, codec, limits.resolution, limits.max_tiles) == ("qwen3-vl-4b", "opq16", 560, None)
    assert not named, "it would put a second set beside the stored one"
    looktwice("index", "b.lt", pictures, "--codec", "pq8", "--preset", "gpu", "--encoder", "clip-b")
    assert loaded[-1][0] == "clip-b" and filled[-1][:2] == ("qwen3-vl-4b", "pq8")
    assert filled[-1][3]


def test_search_takes_the_presets_mllm_and_stores_what_it_stands_for(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("search", table, "red", "--preset", "gpu", "--run", "r.trec")
    assert done.code == 0 and "Preset gpu stands for --mllm qwen3-vl-4b --resolution 560\n" in done.err
    kept = json.loads(Path("r.trec.json").read_text())
    assert kept["preset"] == {
        "name": "gpu",
        "encoder": "siglip2-l",
        "mllm": "qwen3-vl-4b",
        "codec": "opq16",
        "resolution": 560,
    }
    assert looktwice("search", table, "red", "--run", "p.trec").code == 0
    assert "preset" not in json.loads(Path("p.trec.json").read_text())


def test_a_server_takes_a_preset_too_and_says_what_the_bundled_models_know(
    looktwice: Looktwice, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []
    monkeypatch.setattr("looktwice.cli.serve.run_server", lambda settings, workers=1: served.append(settings))
    done = looktwice("serve", table, "--preset", "gpu")
    assert done.code == 0 and "know drawings" not in done.err, done.err
    gpu = PRESETS["gpu"]
    assert (served[0].mllm, served[0].resolution, served[0].codec) == (gpu.mllm, gpu.resolution, "auto")
    assert "The bundled models know drawings, not photographs" in looktwice("serve", table).err


def test_an_unknown_preset_names_the_known_ones(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("search", table, "red", "--preset", "huge")
    assert done.code == 2 and "Unknown preset 'huge'; known: best, gpu, laptop." in done.err


def test_the_table_decides_the_encoder_of_a_search(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("search", table, "red", "--encoder", "clip-b")
    assert done.code == 2 and "a table is searched by the encoder that filled it" in done.err
    assert "--encoder clip-b" in done.err
    assert "--encoder" not in looktwice("search", "--help").out


SAID = "The bundled models know drawings, not photographs;"


def test_a_bundled_mllm_says_that_it_knows_drawings_when_a_real_encoder_found(
    looktwice: Looktwice, table: Path
) -> None:
    assert looktwice("search", table, "red").err.count(SAID) == 1  # by tiny-vl
    assert SAID not in looktwice("search", table, "red", "--mllm", "qwen3-vl-2b").err
    assert SAID not in looktwice("search", table, "red", "--no-rerank").err
    done = looktwice("search", table, "red", "--json")
    assert SAID in done.err and all("query" in hit for hit in done.records)


def test_a_bundled_encoder_says_that_it_knows_drawings_when_it_fills_a_new_table(
    looktwice: Looktwice, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = replace(BY_NAME["tiny-clip"], name="colors")
    monkeypatch.setitem(BY_NAME, "colors", bundled)
    assert looktwice("index", "new.lt", pictures).err.count(SAID) == 1
    for again in (("index", "new.lt", pictures), ("search", "new.lt", "red")):
        assert SAID not in looktwice(*again).err


def test_fits_compares_weights_with_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "memory", lambda device: Memory(int(16e9), int(1e9)))
    half, whole = (
        {one.preset: one for one in fitting.fits(Placement("cpu", dtype, ""), 1e12, items=1000)}
        for dtype in ("bfloat16", "float32")
    )
    assert [half[name].fits for name in ("laptop", "gpu", "best")] == [True, True, False]
    assert [whole[name].fits for name in ("laptop", "gpu", "best")] == [True, False, False]
    assert whole["gpu"].weights == 2 * half["gpu"].weights
    assert half["laptop"].query_seconds < half["gpu"].query_seconds < half["best"].query_seconds


def test_cost_follows_images_and_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Placement("cpu", "float32", "")
    slow, fast = (next(fitting.fits(place, flops, items=1000)) for flops in (1e11, 1e12))
    more = next(fitting.fits(place, 1e11, items=2000))
    assert slow.query_seconds == pytest.approx(10 * fast.query_seconds)
    assert more.index_hours == pytest.approx(2 * slow.index_hours) and more.bytes_total == 2 * slow.bytes_total
    assert fitting.matmul_rate(place, 0.01, side=64) > 1e6


def test_fits_prints_a_row_per_preset(looktwice: Looktwice) -> None:
    done = looktwice("models", "--fits", "--items", "1e3", "--json")
    assert [row["preset"] for row in done.records] == list(PRESETS) and {row["items"] for row in done.records} == {1000}
    assert "1,000 images" in looktwice("models", "--fits", "--items", "1000").out
    refused = looktwice("models", "--fits", "--items", "many")
    assert refused.code == 2 and "--items must be a number" in refused.err


def manifest(second: float, tokens: bool, shortlist: int = 100) -> dict[str, Any]:
    return {
        "queries": 2,
        "shortlist": shortlist,
        "seconds": {"read": second / 2, "score": second * 3 / 2, "encode": 100.0},
        "second_look": [{"mllm": "qwen3-vl-4b"}],
        "candidates_from": [{"tokens_key": "k"} if tokens else {"pictures": True}],
    }


def test_a_slow_second_look_names_its_remedies(capsys: pytest.CaptureFixture[str]) -> None:
    advise(manifest(SLOW, tokens=False))
    assert capsys.readouterr().err == ""
    advise(manifest(SLOW * 2, tokens=False))
    told = capsys.readouterr().err
    assert "took 10.0 s a query" in told and "add-tokens TABLE --mllm qwen3-vl-4b" in told
    assert "a smaller --shortlist than 100" in told and "--mllm http://" in told
    advise(manifest(SLOW * 2, tokens=True, shortlist=5))
    told = capsys.readouterr().err
    assert "add-tokens" not in told and "--shortlist" not in told and "a server" in told


def test_rate_and_seconds_of_the_summary_have_one_span(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("search", table, "red", "--run", "r.trec")
    kept = json.loads(Path("r.trec.json").read_text())
    span = kept["seconds"]["read"] + kept["seconds"]["score"]
    assert f"second look {span:.2f} s, {kept['pairs_per_second']:,} pairs/s" in done.err
    assert kept["pairs_per_second"] == pytest.approx(12 / span, rel=0.1)


def test_a_run_is_not_overwritten_silently(looktwice: Looktwice, table: Path) -> None:
    ask = ["search", table, "red", "--run", "r.trec", "-k", "2"]
    assert looktwice(*ask, "--tag", "first try").code == 0
    before = Path("r.trec").read_text()
    assert before.splitlines()[0].split()[-1] == "first\\u0020try"
    assert json.loads(Path("r.trec.json").read_text())["tag"] == "first try"
    refused = looktwice(*ask)
    assert refused.code == 2 and "pass --overwrite to replace it" in refused.err
    assert Path("r.trec").read_text() == before
    assert looktwice(*ask, "--overwrite").code == 0
    assert Path("r.trec").read_text().splitlines()[0].split()[-1] == "looktwice"
    assert "tag" not in json.loads(Path("r.trec.json").read_text())
    lone = looktwice("search", table, "red", "--tag", "x")
    assert lone.code == 2 and "--tag needs --run FILE" in lone.err


def test_an_unknown_mllm_is_compared_with_mllms_only(looktwice: Looktwice) -> None:
    from looktwice.encode.registry import _find
    from looktwice.models.catalog import names
    from looktwice.models.checkpoints import resolve

    with pytest.raises(UnknownName) as unknown:
        resolve("foo", kind="mllm")
    assert "Unknown MLLM" in str(unknown.value)
    assert all(name in str(unknown.value) for name in names("mllm")) and "siglip2-b" not in str(unknown.value)
    with pytest.raises(UnknownName, match=r"Unknown encoder.*siglip2-b"):
        _find(parse("foo"), None)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("map", "AP"),
        ("map_cut_20", "AP@20"),
        ("ndcg_cut_10", "nDCG@10"),
        ("MRR", "RR"),
        ("P_5", "P@5"),
        ("hit@3", "success@3"),
    ],
)
def test_a_measure_by_another_tools_name_is_recognised(looktwice: Looktwice, name: str, meant: str) -> None:
    for path, text in (("a.trec", "q Q0 d 1 1.0 t\n"), ("qrels", "q 0 d 1\n")):
        Path(path).write_text(text)
    done = looktwice("eval", "compare", "a.trec", "--qrels", "qrels", "--measure", name)
    assert done.code == 2 and f"did you mean {meant}?" in done.err
    assert looktwice("eval", "compare", "a.trec", "--qrels", "qrels", "--measure", meant).code == 0


def test_measure_refuses_a_bare_string() -> None:
    with pytest.raises(UsageError, match=r"must be a list, not the text 'mAP@10'"):
        measure({"q": [("d", 1.0)]}, {"q": {"d": 1}}, "mAP@10")


@pytest.mark.parametrize("name", built_in.PROMPTS)
def test_a_built_in_prompt_is_printed_as_the_file_that_reads_back(looktwice: Looktwice, name: str) -> None:
    done = looktwice("models", "prompt", name, "--show")
    Path("own.toml").write_text(done.out)
    read = built_in.read(Path("own.toml"))
    assert read == built_in.PROMPTS[name] and f"# hash {read.hash}" in done.out


def test_any_text_survives_a_prompt_file(looktwice: Looktwice) -> None:
    odd = 'say "x"\\n\t\x7f\r\n"""\n\nend é'
    segments = (
        Segment(part="query.text", before=odd),
        Segment(part="candidate.text", optional=True),
        Segment(text=odd),
    )
    prompt = Prompt(odd, segments, (Label(odd, 0.1, (odd, "b")), Label("c", 1.0, ("c",))))
    Path("odd.toml").write_text(to_toml(prompt), newline="")
    assert built_in.read(Path("odd.toml")) == prompt


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("[labels]\nNo = 0\nYes = 1\n", None),
        ('[labels]\nNo = 0\nYes = "1"\n', "labels.Yes is '1' but must be float"),
        ("", "it has no 'labels'"),
        ('[[labels]]\nname = "No"\n', "labels[0] has no 'value'"),
        ("labels = 3\n", "it.labels is '3' but must be list or dict"),
    ],
)
def test_labels_in_the_obvious_form_and_wrong_ones(looktwice: Looktwice, table: Path, labels: str, said: str) -> None:
    Path("p.toml").write_text(f'segments = ["query.text", "candidate.image", "So?"]\n{labels}')
    done = looktwice("search", table, "red", "--prompt", "p.toml")
    if said is None:
        assert done.code == 0
        assert [(x.name, x.value, x.variants) for x in built_in.read(Path("p.toml")).labels] == [
            ("No", 0.0, ("No",)),
            ("Yes", 1.0, ("Yes",)),
        ]
    else:
        assert done.code == 2 and said in done.err and "models prompt object --show" in done.err


def test_show_without_a_prompt_says_how(looktwice: Looktwice) -> None:
    assert "name one: looktwice models prompt object --show" in looktwice("models", "prompt", "--show").err
    assert "Unknown prompt 'objekt'; did you mean object" in looktwice("models", "prompt", "objekt", "--show").err


def test_errors_of_python_calls_name_their_keywords(looktwice: Looktwice, table: Path) -> None:
    from looktwice import Retriever

    with pytest.raises(UsageError, match=r"min_precision \(--min-precision\).* needs a calibration"):
        Retriever(table, min_precision=0.9)
