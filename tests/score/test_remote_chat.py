"""A chat server that behaves, and one that does not: a sentence, a retry or a bound, and never a wrong score."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import INSTALLED
from stub_server import Answer, Stub, expected, item, ok, said, serving, shown_in

from looktwice import Scorer, load_scorer
from looktwice.errors import LooktwiceError, ServerError, UnknownName, UsageError
from looktwice.score.cache import CachedScorer, ScoreCache
from looktwice.score.remote.config import RemoteConfig
from looktwice.types import Item, PairScores

QUERY = item("q", 200, 0, 0)
MANY = [item(f"c{i}", 5 * i, 255 - 3 * i, 40 + i) for i in range(24)]
SOME = MANY[:6]
PROBES = 4  # chat requests that a connection takes


def scorer(stub: Stub, model: str = "stub", prompt: str = "object", **remote: Any) -> Scorer:
    return load_scorer(f"{stub.url}#{model}", prompt=prompt, remote=RemoteConfig(**{"timeout": 20, **remote}))


def right(scores: PairScores, candidates: list[Item] = SOME, query: Item = QUERY) -> None:
    """Every row that has a score has the right one; a bounded one has the right one inside its bounds."""
    for i, candidate in enumerate(candidates[: len(scores.p)]):
        if scores.status[i] == "ok":
            assert scores.p[i] == pytest.approx(expected(query, candidate), abs=2e-4)
        elif scores.status[i] == "bounded":
            assert scores.bounds is not None
            low, high = scores.bounds[i]
            assert low - 1e-6 <= expected(query, candidate) <= high + 1e-6
            assert scores.p[i] == pytest.approx((low + high) / 2, abs=1e-6)
        else:
            assert np.isnan(scores.p[i])


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as one:
        yield one


def test_named_ids_give_numbers(stub: Stub) -> None:
    one = scorer(stub)
    scores = one.score(QUERY, SOME)
    assert scores.status == ("ok",) * len(SOME) and scores.bounds is None
    right(scores)
    assert np.isnan(scores.entropy).all() and ((scores.off_mass > 0) & (scores.off_mass < 1)).all()
    assert one.settings()["reading"] == "named ids" and one.settings()["mllm"] == f"{stub.url}#stub"
    facts = one.settings()["server"][0]
    assert facts["order_kept"] and facts["self_pair_first"] and facts["prompt_tokens"] == 100
    body = stub.asked[-1]
    assert body["logprob_token_ids"] == [0, 1] and body["max_tokens"] == 1 and "logit_bias" not in body
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "image_url", "text"]


def test_shuffled_ids_change_nothing(stub: Stub) -> None:
    stub.shuffle = True
    right(scorer(stub).score(QUERY, SOME))


def test_the_token_that_a_server_draws_does_not_count_among_the_named(stub: Stub) -> None:
    def drawn(s: Stub, body: dict[str, Any], n: int) -> Answer:
        reply = json.loads(s.chat(body)[2])
        first = reply["choices"][0]["logprobs"]["content"][0]
        first["top_logprobs"][0] = {"token": f"token_id:{30 + n % 7}", "logprob": -1.0 - n % 2}
        return ok(reply)

    plain = scorer(stub, prompt="object_yesno").score(QUERY, SOME)
    stub.fault = drawn
    one = scorer(stub, prompt="object_yesno", check_seconds=0.01)
    assert one.settings()["server"][0]["temperature"] == 0.0
    for _ in range(3):
        time.sleep(0.02)
        np.testing.assert_allclose(one.score(QUERY, SOME).p, plain.p)


def test_without_named_ids_labels_are_read_from_the_top(stub: Stub) -> None:
    stub.named = False
    one = scorer(stub)
    scores = one.score(QUERY, SOME)
    assert one.settings()["reading"] == "top 20"
    right(scores)
    assert set(scores.status) <= {"ok", "bounded"}


def test_a_label_that_is_not_listed_makes_an_interval_and_never_a_zero() -> None:
    with serving(named=False, tokenizes=False, top=5) as stub:
        one = scorer(stub, prompt="object_yesno")
        assert one.settings()["reading"] == "top 5"
        scores = one.score(QUERY, MANY)
    assert "bounded" in scores.status and scores.bounds is not None
    bounded = [i for i, status in enumerate(scores.status) if status == "bounded"]
    assert (scores.bounds[bounded, 0] < scores.bounds[bounded, 1]).all() and (scores.p[bounded] > 0).all()
    lost = [i for i, status in enumerate(scores.status) if status == "parse_error"]
    assert np.isnan(scores.p[lost]).all()
    assert one.stats()["requests"]["bounded"] == len(bounded)


def test_a_server_without_log_probabilities_is_refused_with_the_reason(stub: Stub) -> None:
    stub.logprobs = False
    with pytest.raises(ServerError, match=r"without log-probabilities, so no p can be read; serve"):
        scorer(stub)


def test_log_probabilities_that_vanish_in_mid_run_leave_no_score(stub: Stub) -> None:
    one = scorer(stub)
    stub.fault = lambda s, body, n: s.chat(body, choices=[{"message": {"content": "1"}}]) if n % 2 else None
    scores = one.score(QUERY, SOME)
    assert {"ok", "failed"} == set(scores.status)
    right(scores)


def test_probabilities_that_add_up_to_more_than_one_are_refused(stub: Stub) -> None:
    stub.shift = 9.0
    with pytest.raises(ServerError, match=r"above 0|add up to more than 1"):
        scorer(stub)


def storm(refused: set[int], status: int, **headers: str) -> Any:
    return lambda s, body, n: said(status, "later", **headers) if n in refused else None


def test_a_storm_of_429_slows_the_client_down_and_loses_nothing(stub: Stub) -> None:
    one = scorer(stub)
    stub.fault = storm(set(range(PROBES + 2, PROBES + 26)), 429, Retry_After="0.05")
    scores = one.score(QUERY, MANY)
    assert scores.status == ("ok",) * len(MANY)
    right(scores, MANY)
    counts = one.stats()["requests"]
    assert counts["refusals"] >= 20 and counts["retries"] >= 20


def test_retry_after_is_honoured(stub: Stub) -> None:
    one = scorer(stub)
    stub.fault = storm({PROBES + 1}, 429, Retry_After="1")
    begun = time.monotonic()
    right(one.score(QUERY, SOME[:1]))
    assert time.monotonic() - begun >= 0.95


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_that_stumbles_is_asked_again(stub: Stub, status: int) -> None:
    one = scorer(stub)
    stub.fault = storm({PROBES + 1, PROBES + 3}, status)
    scores = one.score(QUERY, SOME)
    assert scores.status == ("ok",) * len(SOME)
    right(scores)


def test_a_pair_that_always_fails_is_failed_and_the_others_are_right(
    stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    one = scorer(stub)
    poison = [one_part["image_url"]["url"] for one_part in _parts(one, stub, SOME[2])][1]

    def fault(s: Stub, body: dict[str, Any], n: int) -> Answer | None:
        return said(500, "boom") if poison in str(body) else None

    stub.fault = fault
    with caplog.at_level(logging.WARNING):
        scores = one.score(QUERY, SOME)
    assert [s for s in scores.status] == ["ok", "ok", "failed", "ok", "ok", "ok"]
    right(scores)
    assert "gave no usable answer after 4 attempts (status 500: boom)" in caplog.text


def _parts(one: Scorer, stub: Stub, candidate: Item) -> list[dict[str, Any]]:
    one.score(QUERY, [candidate])
    return [part for part in stub.asked[-1]["messages"][0]["content"] if part["type"] == "image_url"]


def test_a_cut_body_is_asked_for_again(stub: Stub) -> None:
    one = scorer(stub)

    def fault(s: Stub, body: dict[str, Any], n: int) -> Answer | None:
        status, headers, data = s.chat(body)
        return (status, {**headers, "cut": "1"}, data) if n % 3 == 0 else None

    stub.fault = fault
    scores = one.score(QUERY, SOME)
    assert scores.status == ("ok",) * len(SOME)
    right(scores)


def test_a_body_that_trickles_meets_the_timeout(stub: Stub) -> None:
    one = scorer(stub, timeout=1.0)

    def fault(s: Stub, body: dict[str, Any], n: int) -> Answer | None:
        status, headers, data = s.chat(body)
        return status, {**headers, "slow": "0.1"}, data

    stub.fault = fault
    begun = time.monotonic()
    scores = one.score(QUERY, SOME[:2])
    assert scores.status == ("failed", "failed") and time.monotonic() - begun < 4


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>log in</html>"), "it sent a web page"),
        ((200, {}, b"12"), "JSON of another shape"),
        ((200, {}, b"x" * (9 << 20)), "sends more than 8 MB for one pair"),
        ((302, {"Location": "http://elsewhere/"}, b""), r"points to another address \(status 302\); name that address"),
        (said(402, "no credit"), "asks for payment"),
        (said(501, "not for this"), "has no /v1/chat/completions for this model"),
    ],
)
def test_what_is_no_chat_server_is_refused_with_a_sentence(stub: Stub, answer: Answer, sentence: str) -> None:
    stub.fault = lambda s, body, n: answer
    with pytest.raises(ServerError, match=sentence):
        scorer(stub)


def test_two_choices_are_no_score(stub: Stub) -> None:
    one = scorer(stub)
    stub.fault = lambda s, body, n: _doubled(s.chat(body))
    scores = one.score(QUERY, SOME)
    assert scores.status == ("failed",) * len(SOME) and np.isnan(scores.p).all()


def _doubled(answer: Answer) -> Answer:
    body = json.loads(answer[2])
    return ok({**body, "choices": body["choices"] * 2})


def test_another_model_that_answers_is_refused(stub: Stub) -> None:
    stub.fault = lambda s, body, n: s.chat(body, model="cheap-one")
    with pytest.raises(ServerError, match="stub was asked, but cheap-one answered"):
        scorer(stub)


def test_another_model_that_answers_in_mid_run_stops_the_run(stub: Stub) -> None:
    one = scorer(stub)
    stub.fault = lambda s, body, n: s.chat(body, model="stub-v2") if n > PROBES + 3 else None
    with pytest.raises(ServerError, match="now answers as stub-v2, not stub"):
        one.score(QUERY, SOME)


def test_other_weights_under_the_same_name_are_noticed(stub: Stub) -> None:
    one = scorer(stub, check_seconds=0.01)
    right(one.score(QUERY, SOME[:1]))
    stub.shift = -3.0
    time.sleep(0.02)
    with pytest.raises(ServerError, match="runs another model than when this run began"):
        one.score(QUERY, SOME)


def test_a_model_that_thinks_is_refused(stub: Stub) -> None:
    stub.fault = lambda s, body, n: _thinking(s.chat(body))
    with pytest.raises(ServerError, match="thinks before it answers"):
        scorer(stub)
    assert stub.asked[0]["chat_template_kwargs"] == {"enable_thinking": False}


def _thinking(answer: Answer) -> Answer:
    body = json.loads(answer[2])
    body["choices"][0]["message"] = {"content": None, "reasoning_content": "Hm"}
    return ok(body)


def test_a_field_that_a_server_does_not_know_is_left_out(stub: Stub) -> None:
    unknown = {"chat_template_kwargs", "logprob_token_ids"}
    stub.fault = lambda s, body, n: said(400, "unknown field") if unknown & body.keys() else None
    one = scorer(stub)
    right(one.score(QUERY, SOME))
    assert one.settings()["reading"] == "top 20"


def test_a_wrong_key_is_told_once_and_never_shown(stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub.key = "right"
    with pytest.raises(ServerError, match="asks for a key"):
        scorer(stub)
    monkeypatch.setenv("LOOKTWICE_API_KEY", "sk-wrong")
    stub.paths.clear()
    with pytest.raises(ServerError, match="does not accept the key") as caught:
        scorer(stub)
    assert "sk-wrong" not in str(caught.value) and len(stub.paths) == 1
    (tmp_path / "key").write_text("right\n")
    one = scorer(stub, key_file=tmp_path / "key")
    right(one.score(QUERY, SOME))
    assert "right" not in str(dict(one.settings())) + repr(one.pool.servers[0].key)  # type: ignore[attr-defined]
    stub.key = "revoked"
    stub.paths.clear()
    with pytest.raises(ServerError, match="does not accept the key"):
        one.score(QUERY, MANY)
    assert len(stub.paths) <= 16


def test_a_key_does_not_travel_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKTWICE_API_KEY", "sk-1")
    with pytest.raises(UsageError, match=r"unencrypted to http://example\.org/v1; use https"):
        load_scorer("http://example.org/v1#m")


def test_a_model_that_is_not_there_is_refused_with_those_that_are(stub: Stub) -> None:
    stub.models = ["tiny-vl", "qwen"]
    with pytest.raises(UnknownName, match=r"'tiny'; did you mean tiny-vl"):
        scorer(stub, "tiny")
    with pytest.raises(UsageError, match=r"needs the name of a model \(tiny-vl, qwen\)"):
        load_scorer(stub.url)
    stub.models = ["stub"]
    assert load_scorer(stub.url).settings()["server"][0]["model"] == "stub"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (said(400, "maximum context length is 1024 tokens"), "too long for the server's context"),
        (said(413, "body"), "too large for the server"),
        (said(400, "image exceeds 33177600 pixels"), "too large for the server"),
        (said(422, "no"), "refused the request"),
    ],
)
def test_a_pair_that_a_server_refuses_is_failed_with_the_reason(
    stub: Stub, answer: Answer, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = scorer(stub)
    stub.fault = lambda s, body, n: answer if n == PROBES + 1 else None
    with caplog.at_level(logging.WARNING):
        scores = one.score(QUERY, SOME[:3])
    assert sorted(scores.status) == ["failed", "ok", "ok"]
    right(scores)
    assert sentence in caplog.text


def test_a_server_that_refuses_everything_stops_the_run(stub: Stub) -> None:
    one = scorer(stub)
    stub.fault = lambda s, body, n: said(400, "no")
    with pytest.raises(ServerError, match="refused the request"):
        one.score(QUERY, MANY)


def test_candidates_that_cannot_be_sent_stop_nothing(stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    import torch

    from looktwice.types import Block, VisualTokens

    stored = VisualTokens(torch.zeros(1, 4), None, (Block("global", 1, 1),))
    unsent = [Item(f"t{i}", tokens=stored, sha256=f"t{i}") for i in range(20)]
    with caplog.at_level(logging.WARNING):
        scores = scorer(stub).score(QUERY, [*unsent, SOME[0]])
    assert scores.status == ("failed",) * 20 + ("ok",)
    assert "has no image to send" in caplog.text


def test_no_server_is_told_at_once() -> None:
    begun = time.monotonic()
    with pytest.raises(ServerError, match=r"cannot be reached .*; start the server"):
        load_scorer("http://127.0.0.1:9/v1#m")
    assert time.monotonic() - begun < 3


def test_settings_of_local_models_are_refused(stub: Stub) -> None:
    for setting in ({"retrace": "causal"}, {"prior": "query"}, {"max_tiles": 2}, {"score_mode": "written"}):
        with pytest.raises(UsageError, match="A model on a server cannot be given --"):
            load_scorer(f"{stub.url}#stub", **setting)


def test_money_is_estimated_before_and_counted_after(stub: Stub) -> None:
    one = scorer(stub, price=10.0, max_cost=0.01)  # 100 tokens a pair: 0.001
    right(one.score(QUERY, SOME))
    assert one.stats()["requests"]["cost"] == pytest.approx(0.006)
    asked = len(stub.asked)
    with pytest.raises(UsageError, match=r"would cost about 0.006 on top of 0.006 spent, more than --max-cost 0.01"):
        one.score(QUERY, SOME)
    assert len(stub.asked) == asked
    with pytest.raises(UsageError, match="--max-cost needs to know what tokens cost"):
        RemoteConfig(max_cost=1)


def test_many_queries_keep_the_window_full_and_their_candidates_together(stub: Stub) -> None:
    most, running, mixed = 4, [], []
    one = scorer(stub, concurrency=most)
    requests = [(one_query, SOME) for one_query in (QUERY, *MANY[:5])]
    before = len(stub.asked)

    def wait(stub: Stub, body: Any, number: int) -> Answer:
        query = shown_in(body)[0]
        with stub.lock:
            running.append(query)
            mixed.append(len(set(running)))
        time.sleep(0.05)
        with stub.lock:
            running.remove(query)
        return stub.chat(body)

    stub.fault = wait
    many = one.score_many(requests)
    for (query, candidates), scores in zip(requests, many, strict=True):
        assert scores.status == ("ok",) * len(candidates)
        right(scores, candidates, query)
    assert max(mixed) > 1  # the next query begins before the last one ends
    shown = [shown_in(body)[0] for body in stub.asked[before:]]
    for query in set(shown):
        places = [i for i, other in enumerate(shown) if other == query]
        assert places[-1] - places[0] < len(SOME) + 2 * most


def test_images_are_scaled_here_and_sent_in_order(stub: Stub) -> None:
    large = Item("large", image=MANY[0].image.resize((3000, 1000)))  # type: ignore[union-attr]
    one = scorer(stub)
    one.score(QUERY, [large])
    import base64
    import io

    from PIL import Image

    parts = [p for p in stub.asked[-1]["messages"][0]["content"] if p["type"] == "image_url"]
    sizes = [Image.open(io.BytesIO(base64.b64decode(p["image_url"]["url"].partition(",")[2]))).size for p in parts]
    assert sizes == [(24, 24), (1536, 512)] and len(shown_in(stub.asked[-1])) == 2
    small = load_scorer(f"{stub.url}#stub", resolution=32)
    small.score(QUERY, [large])
    parts = [p for p in stub.asked[-1]["messages"][0]["content"] if p["type"] == "image_url"]
    sizes = [Image.open(io.BytesIO(base64.b64decode(p["image_url"]["url"].partition(",")[2]))).size for p in parts]
    assert sizes == [(32, 32), (32, 10)]


def test_ids_of_images_are_hashes_of_what_is_sent(stub: Stub) -> None:
    one = scorer(stub, image_ids=True, cache_salt="tenant")
    other = Item("c0", image=MANY[7].image, sha256="sha-c0")  # another image under a known name and hash
    one.score(QUERY, [Item("c0", image=MANY[0].image), other])
    ids = {body["messages"][0]["content"][1]["uuid"] for body in stub.asked[-2:]}
    assert len(ids) == 2 and stub.asked[-1]["cache_salt"] == "tenant"
    assert "uuid" not in str(scorer(stub).score(QUERY, SOME[:1]) and stub.asked[-1])


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_asks_only_for_the_rest(stub: Stub, tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "s.db")
    one = CachedScorer(scorer(stub, concurrency=1), cache)
    stub.fault = lambda s, body, n: said(401, "gone") if n > PROBES + 10 else None
    with pytest.raises(ServerError):
        one.score(QUERY, MANY)
    assert len(cache) == 10
    stub.fault = lambda s, body, n: None
    again = CachedScorer(scorer(stub), cache)
    before = len(stub.asked)
    right(again.score(QUERY, MANY), MANY)
    assert len(stub.asked) - before == len(MANY) - 10 and again.hits == 10


def test_bounds_survive_the_cache(tmp_path: Path) -> None:
    with serving(named=False, tokenizes=False, top=5) as stub:
        cache = ScoreCache(tmp_path / "s.db")
        first = CachedScorer(scorer(stub, prompt="object_yesno"), cache).score(QUERY, MANY)
        asked = len(stub.asked)
        again = CachedScorer(scorer(stub, prompt="object_yesno"), cache)
        second = again.score(QUERY, MANY)
    known = sum(status in ("ok", "bounded") for status in first.status)
    assert second.status == first.status and again.hits == known and "bounded" in first.status
    assert len(stub.asked) - asked == asked - len(MANY) + len(MANY) - known  # as many probes as before
    np.testing.assert_allclose(second.p, first.p)
    assert first.bounds is not None and second.bounds is not None
    np.testing.assert_allclose(second.bounds, first.bounds, rtol=1e-6)


KILLED = """
import sys
sys.path.insert(0, sys.argv[3])
from stub_server import item
from looktwice import load_scorer
from looktwice.score.cache import CachedScorer, ScoreCache
from looktwice.score.remote.config import RemoteConfig
scorer = load_scorer(sys.argv[1], prompt="object", remote=RemoteConfig(concurrency=4))
candidates = [item(f"c{i}", 5 * i, 255 - 3 * i, 40 + i) for i in range(24)]
CachedScorer(scorer, ScoreCache(sys.argv[2])).score(item("q", 200, 0, 0), candidates)
"""


def test_kill_9_costs_the_requests_in_flight_and_no_more(stub: Stub, tmp_path: Path) -> None:
    stub.delay = 0.05
    arguments = [sys.executable, "-c", KILLED, f"{stub.url}#stub", str(tmp_path / "s.db"), str(Path(__file__).parent)]
    child = subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": str(INSTALLED)})
    while len(stub.asked) < PROBES + 14:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = len(stub.asked) - PROBES
    stub.delay = 0.0
    again = CachedScorer(scorer(stub), ScoreCache(tmp_path / "s.db"))
    asked = len(stub.asked)
    right(again.score(QUERY, MANY), MANY)
    assert again.hits >= before - 5 and len(stub.asked) - asked == len(MANY) - again.hits


def test_a_server_that_is_killed_and_started_again_loses_nothing(stub: Stub) -> None:
    port = stub.server_port
    one = scorer(stub, check_seconds=60)
    stub.delay = 0.02
    found: list[PairScores] = []
    running = threading.Thread(target=lambda: found.append(one.score(QUERY, MANY)))
    running.start()
    while len(stub.asked) < PROBES + 8:
        time.sleep(0.005)
    stub.shutdown()
    stub.server_close()
    time.sleep(0.5)
    with serving(port=port) as again:
        running.join(20)
        assert found and found[0].status == ("ok",) * len(MANY)
        right(found[0], MANY)
        assert len(again.asked) < len(MANY) + 2  # one of them checks that it is the same model


# --- several servers --------------------------------------------------------------------------------------------------


def test_a_query_stays_with_one_server_and_a_dying_one_loses_nothing() -> None:
    with serving() as first, serving() as second:
        one = load_scorer(f"{first.url}#stub,{second.url}#stub", prompt="object", remote=RemoteConfig(timeout=20))
        before = [len(s.asked) for s in (first, second)]
        right(one.score(QUERY, SOME[:3]), SOME[:3])
        used = [len(s.asked) - n for s, n in zip((first, second), before, strict=True)]
        assert sorted(used) == [0, 3]
        dying = first if used[0] else second
        dying.shutdown()
        dying.server_close()
        scores = one.score(QUERY, MANY)
        assert scores.status == ("ok",) * len(MANY)
        right(scores, MANY)


def test_one_server_that_is_away_at_the_start_is_told_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as stub, caplog.at_level(logging.WARNING):
        one = load_scorer(f"http://127.0.0.1:9/v1#stub,{stub.url}#stub", prompt="object")
        right(one.score(QUERY, SOME))
    assert "cannot be reached" in caplog.text and "The others go on without it" in caplog.text


def test_servers_of_different_models_do_not_share_work() -> None:
    with (
        serving() as first,
        serving(shift=-3.0) as second,
        pytest.raises(LooktwiceError, match="answer one and the same"),
    ):
        load_scorer(f"{first.url}#stub,{second.url}#stub", prompt="object")
