"""Servers that lie, mix up, bloat or spy: a sentence, a retry or a bound, never a wrong score, and never the key."""

from __future__ import annotations

import gzip
import json
import logging
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from stub_server import VOCABULARY, Answer, Stub, ok, said, serving
from test_remote_chat import MANY, PROBES, QUERY, SOME, right, scorer

from looktwice.errors import LooktwiceError, ServerError, UsageError

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as one:
        yield one


def changed(stub: Stub, body: dict[str, Any], change: Change) -> Answer:
    answer = stub.chat(body)
    if answer[0] != 200:
        return answer
    reply = json.loads(answer[2])
    change(reply)
    return ok(reply)


def listed(reply: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return found


# --- numbers ----------------------------------------------------------------------------------------------------------

ODD = ["NaN", "-Infinity", "-9999.0", "-1e999", "-1" + "0" * 400, "1" + "0" * 400, "null", "true", '"-1"', "[]", "{}"]


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_log_probability_leaves_one_pair_without_a_score(stub: Stub, odd: str) -> None:
    one = scorer(stub)

    def fault(s: Stub, body: dict[str, Any], n: int) -> Answer | None:
        if n != PROBES + 2:
            return None
        status, headers, data = s.chat(body)
        last = data.rindex(b'"logprob": ', 0, data.index(b"]"))
        return status, headers, data[:last] + re.sub(rb"-?[\d.e-]+", odd.encode(), data[last:], count=1)

    stub.fault = fault
    scores = one.score(QUERY, SOME)
    assert sorted(scores.status) == ["failed", *["ok"] * 5]
    right(scores)


@pytest.mark.parametrize("odd", [0.5, 7, float("inf")])
def test_a_log_probability_above_zero_is_never_a_score(stub: Stub, odd: float) -> None:
    one = scorer(stub)
    stub.fault = lambda s, body, n: changed(s, body, lambda reply: listed(reply)[1].update(logprob=odd))
    with pytest.raises(ServerError, match=r"log-probabilities above 0|add up to more"):
        one.score(QUERY, MANY)


def test_a_token_listed_twice_counts_once(stub: Stub) -> None:
    stub.named = False
    stub.fault = lambda s, body, n: changed(s, body, lambda reply: listed(reply).extend(listed(reply)[:3]))
    right(scorer(stub).score(QUERY, SOME))
    stub.named = True
    right(scorer(stub).score(QUERY, SOME))


def test_a_stand_in_for_unknown_log_probabilities_is_no_zero() -> None:
    """-9999 says that a server does not know; as a number it would make every other label certain."""

    def unknown(reply: dict[str, Any]) -> None:
        for entry in listed(reply):
            if entry["token"] == "1":
                entry["logprob"] = -9999.0

    with serving(named=False, top=8) as stub:
        one = scorer(stub)
        stub.fault = lambda s, body, n: changed(s, body, unknown)
        scores = one.score(QUERY, SOME)
    assert not {"ok"} & set(scores.status) and "bounded" in scores.status
    right(scores)


def test_a_list_that_is_not_of_the_likeliest_is_refused() -> None:
    def least(s: Stub, body: dict[str, Any], n: int) -> Answer:
        def change(reply: dict[str, Any]) -> None:
            listed(reply)[:] = [{"token": word, "logprob": -30.0 - i} for i, word in enumerate(VOCABULARY[:5])]

        return changed(s, body, change)

    with serving(named=False, tokenizes=False, top=5) as stub:
        stub.fault = least
        with pytest.raises(ServerError, match="lists tokens that are not the likeliest ones"):
            scorer(stub)


@pytest.mark.parametrize("count", [0, 5])
def test_the_first_position_is_read_whatever_follows(stub: Stub, count: int) -> None:
    one = scorer(stub)

    def longer(reply: dict[str, Any]) -> None:
        content = reply["choices"][0]["logprobs"]["content"]
        later = {"token": "x", "logprob": -0.1, "top_logprobs": [{"token": "token_id:0", "logprob": -0.1}]}
        content[:] = [*content, *[later] * (count - 1)] if count else []

    stub.fault = lambda s, body, n: changed(s, body, longer)
    scores = one.score(QUERY, SOME)
    assert set(scores.status) == ({"ok"} if count else {"failed"})
    right(scores)


@pytest.mark.parametrize("count", [10**400, -5, "many", None, True, 1e308])
def test_absurd_counts_of_tokens_cost_nothing(stub: Stub, count: object) -> None:
    one = scorer(stub, price=1.0)
    stub.fault = lambda s, body, n: s.chat(body, usage={"prompt_tokens": count})
    right(one.score(QUERY, SOME))
    assert one.stats()["requests"]["cost"] == 0


@pytest.mark.parametrize("listing", [5, "stub", {"id": "stub"}, [None, 3], [{"id": {"a": 1}}, {"id": "x" * 9999}]])
def test_odd_lists_of_models_are_no_crash(stub: Stub, listing: object) -> None:
    original = stub.answer
    stub.answer = lambda path, body, headers: (  # type: ignore[method-assign]
        ok({"data": listing, "version": ["1"]}) if path in ("/v1/models", "/version") else original(path, body, headers)
    )
    right(scorer(stub).score(QUERY, SOME))
    with pytest.raises(UsageError, match="needs the name of a model"):
        scorer(stub, model="")


def test_a_tokenizer_that_gives_all_labels_one_id_is_refused(stub: Stub) -> None:
    original = stub.answer
    stub.answer = lambda path, body, headers: (  # type: ignore[method-assign]
        ok({"tokens": [3]}) if path == "/tokenize" else original(path, body, headers)
    )
    with pytest.raises(LooktwiceError):
        scorer(stub)


# --- whose answer is it -----------------------------------------------------------------------------------------------


def test_answers_to_other_requests_are_asked_for_again(stub: Stub) -> None:
    stub.names = True
    one = scorer(stub, concurrency=4)
    kept: list[Answer] = []
    seen: set[str] = set()

    def mixed(s: Stub, body: dict[str, Any], n: int) -> Answer:
        kept.append(s.chat(body))
        first = str(body) not in seen
        seen.add(str(body))
        return kept[-2] if first and n % 3 == 0 and len(kept) > 1 else kept[-1]

    stub.fault = mixed
    scores = one.score(QUERY, MANY)
    assert scores.status == ("ok",) * len(MANY)
    right(scores, MANY)
    assert one.stats()["requests"]["retries"] >= 5


def test_a_new_fingerprint_is_checked_before_its_answer_counts(stub: Stub) -> None:
    one = scorer(stub, concurrency=1)
    marks = iter(["a", "a", "b", *["b"] * 90])
    stub.fault = lambda s, body, n: s.chat(body, system_fingerprint=next(marks))
    scores = one.score(QUERY, SOME)
    right(scores)
    assert scores.status == ("ok",) * len(SOME)

    def other(s: Stub, body: dict[str, Any], n: int) -> Answer:
        s.shift = -3.0 if n > before + 2 else 0.0
        return s.chat(body, system_fingerprint="c" if s.shift else "b")

    before = len(stub.asked)
    stub.fault = other
    with pytest.raises(ServerError, match="runs another model than when this run began"):
        one.score(QUERY, MANY)


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_a_compressed_answer_is_refused_before_it_is_unpacked(stub: Stub) -> None:
    one = scorer(stub)
    bomb = gzip.compress(bytes(200 << 20), 9)
    stub.fault = lambda s, body, n: (200, {"Content-Encoding": "gzip"}, bomb)
    tracemalloc.start()
    with pytest.raises(ServerError, match="compresses its answers, which it was asked not to"):
        one.score(QUERY, SOME)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


def test_an_endless_answer_ends_for_us(stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    one = scorer(stub)
    stub.fault = lambda s, body, n: (200, {"endless": "1"}, b" " * 65536) if n == PROBES + 1 else None
    with caplog.at_level(logging.WARNING):
        scores = one.score(QUERY, SOME)
    assert sorted(scores.status) == ["failed", *["ok"] * 5]
    right(scores)
    assert "sends more than 8 MB for one pair" in caplog.text


@pytest.mark.parametrize(
    "error", [{"code": 429, "message": "later"}, {"code": 503}, {"code": "rate_limit", "message": "m"}, "overloaded"]
)
def test_an_error_with_status_200_is_an_error(stub: Stub, error: object) -> None:
    one = scorer(stub)
    stub.fault = lambda s, body, n: s.chat(body, error=error) if n == PROBES + 2 else None
    scores = one.score(QUERY, SOME)
    retried = isinstance(error, dict) and isinstance(error["code"], int)
    assert sorted(scores.status) == (["ok"] * 6 if retried else ["failed", *["ok"] * 5])
    right(scores)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"choices": ' * 5000, b"9" * 5000, b"\xff\xfe\x00", b"data: {}\n\n", b"\x00" * 100]
)
def test_bodies_that_break_parsers_are_told_in_a_sentence(stub: Stub, body: bytes) -> None:
    one = scorer(stub, timeout=3)
    stub.fault = lambda s, b, n: (200, {}, body)
    begun = time.monotonic()
    scores = one.score(QUERY, SOME[:2])
    assert scores.status == ("failed", "failed") and np.isnan(scores.p).all() and time.monotonic() - begun < 30


# --- the key ----------------------------------------------------------------------------------------------------------

KEY = 'sk-"se\\cret/1+'


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LOOKTWICE_API_KEY", KEY)
    return KEY


def test_a_redirect_does_not_carry_the_key_to_another_host(key: str) -> None:
    with serving() as thief, serving(key=key) as stub:
        there = {"Location": f"{thief.url}/chat/completions"}
        stub.fault = lambda s, body, n: (307, there, b"")
        with pytest.raises(ServerError, match=r"points to another address \(status 307\)"):
            scorer(stub)
        stub.fault = lambda s, body, n: None
        one = scorer(stub)
        stub.fault = lambda s, body, n: (308, there, b"")
        with pytest.raises(ServerError, match="points to another address"):
            one.score(QUERY, SOME)
        assert thief.paths == []


ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in KEY)


@pytest.mark.parametrize("quoted", [json.dumps(KEY)[1:-1], ESCAPED, KEY.replace("\\", "\\\\").replace('"', "\\u0022")])
@pytest.mark.parametrize("status", [400, 401, 402, 404, 413, 429, 500])
def test_no_message_shows_a_key_that_a_server_quotes(
    key: str, caplog: pytest.LogCaptureFixture, quoted: str, status: int
) -> None:
    body = f'{{"error": {{"message": "bad {quoted}!", "{quoted}": 1}}, "model": "{quoted}"}}'.encode()
    with serving(key=key) as stub, caplog.at_level(logging.DEBUG):
        one = scorer(stub, timeout=10 if status == 500 else 1)  # a 500 is tried four times only
        stub.fault = lambda s, b, n: (status, {}, body)
        said_of_it = ""
        try:
            one.score(QUERY, SOME[:1])
        except LooktwiceError as error:
            said_of_it = str(error) + repr(error)
        everything = said_of_it + caplog.text + str(one.settings()) + str(one.stats())
    assert "secret" not in everything and "se\\cret" not in everything and KEY not in everything
    assert "(the key)" in everything or status == 401


def test_what_a_server_said_stays_when_the_time_is_up(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as stub:
        one, answers = scorer(stub, timeout=1), iter([said(429, "all seats are taken")])
        stub.fault = lambda s, body, n: next(answers, (200, {"slow": "2"}, b"{}"))
        assert one.score(QUERY, SOME[:1]).status == ("failed",)
    assert re.search(r"all seats are taken.*then no answer within 1 s", caplog.text)


def test_a_key_in_names_of_models_is_hidden(key: str) -> None:
    with serving(key=key, models=[f"a-{KEY}", "b"]) as stub, pytest.raises(UsageError) as caught:
        scorer(stub, model="")
    assert KEY not in str(caught.value) and "a-(the key), b" in str(caught.value)
    with serving(key=key) as stub:
        stub.fault = lambda s, body, n: s.chat(body, model=f"stub {KEY}")
        one = scorer(stub)
        right(one.score(QUERY, SOME))
        assert KEY not in str(one.settings())
        stub.fault = lambda s, body, n: said(400, f"no {KEY}")
        assert one.score(QUERY, SOME[:1]).status == ("failed",)
