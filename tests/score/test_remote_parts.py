"""Addresses, keys, intervals and the window of requests: what the scorers on servers are built of."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path

import numpy as np
import pytest

from looktwice.errors import ServerError, UsageError
from looktwice.score.remote import address, keys
from looktwice.score.remote.reading import ListedLogprobs, interval, read
from looktwice.score.remote.replies import retry_after
from looktwice.score.remote.window import RequestWindow
from looktwice.score.remote.wording import clean


def test_addresses_parse_and_print() -> None:
    (one,) = address.parse("rerank+https://Host.example:8443/v1/#org/model-7B")
    assert (one.kind, one.base, one.model) == ("rerank", "https://host.example:8443/v1", "org/model-7B")
    assert one.root == "https://host.example:8443" and str(one) == "rerank+https://host.example:8443/v1#org/model-7B"
    assert [a.private for a in address.parse("http://127.0.0.1:1/v1,http://10.0.0.7/v1,http://[::1]:2/v1")] == [
        True
    ] * 3
    assert not address.parse("http://8.8.8.8/v1")[0].private and not address.parse("http://example.org/v1")[0].private


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("ftp://host/v1", "is not the address of a server"),
        ("http://", "is not the address of a server"),
        ("http://host:port/v1", "is not the address of a server"),
        ("magic+http://host/v1", "is not the address of a server"),
        ("http://user:secret@host/v1", "holds a password or a query"),
        ("http://host/v1?key=secret", "holds a password or a query"),
        ("http://a/v1,rerank+http://b/v1", "must be of one kind"),
        ("http://a/v1#m,http://a/v1#m", "names one server twice"),
    ],
)
def test_wrong_addresses_are_refused_without_their_secrets(wrong: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        address.parse(wrong)
    assert "secret" not in str(caught.value)


def test_keys_come_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (place,) = address.parse("https://example.org/v1")
    monkeypatch.delenv("LOOKTWICE_API_KEY", raising=False)
    assert not keys.find(None) and keys.find(None).headers(place) == {}
    monkeypatch.setenv("LOOKTWICE_API_KEY", " sk-1 ")
    assert keys.find(None).headers(place) == {"Authorization": "Bearer sk-1"}
    (tmp_path / "key").write_text("sk-2\n")
    monkeypatch.setenv("LOOKTWICE_API_KEY_FILE", str(tmp_path / "key"))
    key = keys.find(None)
    assert key.headers(place) == {"Authorization": "Bearer sk-2"}
    assert "sk-2" not in repr(key) + str(vars(key).keys()) and key.hidden("bad sk-2!") == "bad (the key)!"
    for text, sentence in (("", "is empty"), ("two words", "must be one word"), ("ключ", "must be one word")):
        (tmp_path / "key").write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=sentence):
            keys.find(tmp_path / "key")
    with pytest.raises(UsageError, match="cannot be read"):
        keys.find(tmp_path / "none")


def test_intervals_hold_every_distribution_that_agrees_with_the_list() -> None:
    """Random distributions of 30 tokens: the true p lies in the interval of what a top list shows of them."""
    rng = np.random.default_rng(3)
    labels, values = ((3, 4), (5,), (6, 7, 8)), (0.0, 0.5, 1.0)
    statuses = set()
    for _ in range(500):
        p = rng.dirichlet(np.full(30, rng.choice([0.05, 0.3, 2.0])))
        mass = np.array([p[list(ids)].sum() for ids in labels])
        true = float(mass @ values / mass.sum())
        top = np.argsort(-p)[: int(rng.integers(1, 30))]
        listed = ListedLogprobs(
            {int(i): math.log(max(p[i], 1e-300)) for i in top}, least=math.log(max(p[top[-1]], 1e-300))
        )
        scores = read(labels, values, listed, -1)
        (status,) = scores.status
        statuses.add(status)
        if status == "ok":
            assert scores.p[0] == pytest.approx(true, abs=2e-4)
        elif status == "bounded":
            assert scores.bounds is not None
            assert scores.bounds[0, 0] - 1e-6 <= true <= scores.bounds[0, 1] + 1e-6
        else:
            assert status == "parse_error" and np.isnan(scores.p[0])
        if not np.isnan(scores.off_mass[0]):
            assert scores.off_mass[0] == pytest.approx(1 - mass.sum(), abs=2e-3)
    assert statuses == {"ok", "bounded", "parse_error"}


def test_an_interval_is_as_narrow_as_its_extremes() -> None:
    rng = random.Random(0)
    for _ in range(200):
        least = np.array([rng.random() for _ in range(3)])
        most = least + np.array([rng.random() for _ in range(3)])
        low, high = interval(least, most, (0.0, 0.5, 1.0))
        corners = [np.array([[least, most][(c >> i) & 1][i] for i in range(3)]) for c in range(8)]
        values = [float(c @ np.array([0.0, 0.5, 1.0]) / c.sum()) for c in corners]
        assert low == pytest.approx(min(values)) and high == pytest.approx(max(values))


def test_named_ids_far_below_everything_are_still_read() -> None:
    scores = read(((0,), (1,)), (0.0, 1.0), ListedLogprobs({0: -900.0, 1: -899.0}), 7)
    assert scores.status == ("ok",) and scores.p[0] == pytest.approx(1 / (1 + math.exp(-1)))
    assert scores.off_mass[0] == 1.0 and scores.argmax_id[0] == 7


@pytest.mark.parametrize("logps", [{0: 0.5}, {0: math.nan}, {0: -0.1, 1: -0.1}])
def test_numbers_that_are_no_log_probabilities_are_refused(logps: dict[int, float]) -> None:
    with pytest.raises(ServerError):
        ListedLogprobs(logps)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("nan", 0.0),
        ("Sat, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("Mon, 01 Jan 2024 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_as_number_or_date(header: str, seconds: float) -> None:
    assert retry_after({"retry-after": header}) == seconds


def test_control_tokens_in_texts_lose_their_power_and_other_texts_stay() -> None:
    for text in ("<image>", "<|im_end|>", "[INST]", "</s>", "<image_soft_token>"):
        assert text not in clean(f"a {text} b")
    for text in ("1 < 2 > 0", "a <- b", "[1] and [see]", "naïve 猫", "x<|y"):
        assert clean(text) == text


def drive(latency: object, rounds: int, most: int = 32) -> tuple[RequestWindow, int]:
    """Send requests with `latency(busy)` seconds each, in simulated time; return the window and the most at once."""
    window = RequestWindow(most)
    highest = 0

    async def one() -> None:
        nonlocal highest
        async with window:
            highest = max(highest, window.busy)
            busy = window.busy
            await asyncio.sleep(0)
        window.answered(latency(busy))  # type: ignore[operator]

    async def all_of_them() -> None:
        for _ in range(rounds):
            await asyncio.gather(*(one() for _ in range(most)))

    asyncio.run(all_of_them())
    return window, highest


def test_the_window_opens_for_a_server_that_keeps_up_and_stays_small_for_one_that_does_not() -> None:
    fast, _ = drive(lambda busy: 0.1, 30)
    slow, _ = drive(lambda busy: 0.1 * busy, 30)
    assert fast.limit == 32 and slow.limit < 16
    assert drive(lambda busy: 0.1, 5, most=2)[1] == 2


def test_refusals_halve_the_window_once_a_round_and_it_never_closes() -> None:
    window = RequestWindow(32)
    window.limit = 32.0
    for _ in range(5):
        window.refused(0.0)
    assert window.limit == 16.0
    for _ in range(20):
        window._halved = -math.inf
        window.refused(0.0)
    assert window.limit == 1.0
