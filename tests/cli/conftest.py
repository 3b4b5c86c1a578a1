"""The command line in this process, with stand-ins for the models, so that what it prints can be worked out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from looktwice.cli.main import app
from looktwice.testing import BrightnessScorer, ColorEncoder, make_images


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """stdout as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Looktwice = Callable[..., Done]


def run(*arguments: object) -> Done:
    """Run a command line in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> BrightnessScorer:
    """The scorer that every --mllm gives."""
    brighter = BrightnessScorer()
    monkeypatch.setattr("looktwice.search.mllm_reranker.load_scorer", lambda mllm, *, prompt, **options: brighter)
    monkeypatch.setattr(BrightnessScorer, "with_prompt", lambda self, prompt: self, raising=False)
    return brighter


@pytest.fixture
def looktwice(monkeypatch: pytest.MonkeyPatch, scorer: BrightnessScorer, tmp_path: Path) -> Looktwice:
    """Run a command line in an empty folder; every encoder is `ColorEncoder`, every MLLM `BrightnessScorer`."""
    # encode last: modules that are imported only now must find the real one, as they keep it
    for place in (
        "looktwice.search.retriever.load_encoder",
        "looktwice.experiment.demo.load_encoder",
        "looktwice.encode.load_encoder",
    ):
        monkeypatch.setattr(place, lambda name, **options: ColorEncoder())
    monkeypatch.chdir(tmp_path)

    return run


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the twelve pictures and their table, made once."""
    folder = tmp_path_factory.mktemp("indexed")
    make_images(folder / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("looktwice.encode.load_encoder", lambda name, **options: ColorEncoder())
        result = CliRunner().invoke(app, ["index", str(folder / "t.lt"), str(folder / "pictures")])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def table(looktwice: Looktwice, indexed: Path, tmp_path: Path) -> Path:
    """t.lt and pictures in the current folder, shared with other tests: for reading only."""
    (tmp_path / "t.lt").symlink_to(indexed / "t.lt")
    (tmp_path / "pictures").symlink_to(indexed / "pictures")
    return Path("t.lt")


@pytest.fixture
def own_table(looktwice: Looktwice, pictures: Path) -> Path:
    """t.lt and pictures in the current folder, to do with as one likes."""
    assert looktwice("index", "t.lt", pictures).code == 0
    return Path("t.lt")
