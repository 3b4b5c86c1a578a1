"""Finding checkpoints: folders, bundled names, the hub (faked, and really offline), and what is refused."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from tiny_models import build

from looktwice.errors import LooktwiceError, Mismatch, ModelError, UnknownName, UsageError
from looktwice.models import checkpoints, weights
from looktwice.models.catalog import BY_NAME
from looktwice.models.checkpoints import Checkpoint, bundled_names, fingerprint, resolve
from looktwice.models.device import place
from looktwice.models.weights import load_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("dinov3", tmp_path_factory.mktemp("model") / "dinov3")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "größe 1"))


def test_a_folder_is_found_by_any_path_to_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve(str(folder))
    assert found == Checkpoint(str(folder), folder, fingerprint(folder), local=True)
    assert found.model_type == "dinov3_vit"
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    for path in ("größe 1", "./größe 1/", "~/größe 1", f"{folder}#{found.revision}", f"{folder}#{found.revision[:8]}"):
        assert resolve(path) == found
    assert resolve(str(folder), found.revision) == found


def test_a_folder_may_have_a_name_that_looks_like_more(folder: Path) -> None:
    odd = folder.rename(folder.parent / "a#b")
    assert resolve(str(odd)).source == odd


def test_the_fingerprint_changes_with_what_matters(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "README.md").write_text("words")
    assert fingerprint(folder) == before
    weights = load_file(folder / "model.safetensors")
    for name in (next(iter(weights)), list(weights)[-1]):
        save_file(weights | {name: weights[name] + 1e-3}, folder / "model.safetensors")
        assert fingerprint(folder) != before, f"a change of {name} goes unnoticed"
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"resample": 3}))
    changed = fingerprint(folder)
    assert changed != before
    with pytest.raises(Mismatch, match=f"now holds {changed}, not {before}"):
        resolve(str(folder), before)


def test_small_weights_count_to_the_last_byte(tmp_path: Path) -> None:
    def of(changed: int | None) -> str:
        values = torch.zeros(100_000)
        if changed is not None:
            values[changed] = 1
        save_file({"a": values, "b": torch.zeros(3)}, tmp_path / "model.safetensors")
        return fingerprint(tmp_path)

    assert of(None) == of(None)
    assert len({of(where) for where in (None, 0, 5_000, 50_001, 99_999)}) == 5


@pytest.mark.parametrize(
    ("name", "where", "noticed"),
    [
        ("large", 0, True),
        ("large", -1, True),
        ("large", (2**22 - 4096) * 3 // 7 // 4, True),  # the fourth sample
        ("large", 2**20 // 14, False),  # half way between two
        ("small", 0, True),
        ("small", 5_000, True),
        ("small", -1, True),
    ],
)
def test_large_weights_are_sampled_from_start_to_end(
    name: str, where: int, noticed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    weights = {"large": torch.zeros(2**20), "small": torch.zeros(7_001)}
    save_file(weights, file)
    monkeypatch.setattr(checkpoints, "_WHOLE", file.stat().st_size - 1)
    before, header = fingerprint(tmp_path), int.from_bytes(file.read_bytes()[:8], "little")
    pieces = [len(piece) for piece in checkpoints._pieces(file, whole=False)]
    assert pieces == [header, *[4096] * (8 + 6), 28_004 % 4096]
    weights[name][where] = 1
    save_file(weights, file)
    assert (fingerprint(tmp_path) != before) == noticed
    monkeypatch.undo()
    whole = fingerprint(tmp_path)
    weights[name][where] = 0
    save_file(weights, file)
    assert fingerprint(tmp_path) != whole


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("tiny-clap", UnknownName, "did you mean tiny-clip"),
        ("", UnknownName, "Unknown model"),
        ("no/such/folder", UsageError, "does not exist; check the path"),
        ("./missing", UsageError, "does not exist; check the path"),
        ("../a\nb/", UsageError, "does not exist"),
        ("~nobody-of-this-name/x", UsageError, "does not exist"),
        ("/" + "x" * 5000, UsageError, "does not exist"),
        ("\0", UnknownName, "Unknown model"),
        ("org/name#v1", UsageError, "revision v1.*HF_HUB_OFFLINE is set; unset it"),
        ("org/name", UsageError, "not on this machine"),
    ],
)
def test_names_that_lead_nowhere(name: str, kind: type[LooktwiceError], says: str) -> None:
    """The hub is switched off for all tests, so names of it end here, too."""
    with pytest.raises(kind, match=says) as caught:
        resolve(name)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_folders_that_hold_no_usable_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a file; name the folder"):
        resolve(str(folder / "config.json"))
    with pytest.raises(UsageError, match=r"no config\.json"):
        resolve(str(tmp_path))
    (folder / "model.safetensors").rename(folder / "weights.bin")
    with pytest.raises(ModelError, match=r"only pickled weights \(weights\.bin\)"):
        resolve(str(folder))
    (folder / "weights.bin").unlink()
    with pytest.raises(ModelError, match="no weights"):
        resolve(str(folder))
    (folder / "model.safetensors").symlink_to("a-blob-that-was-deleted")
    with pytest.raises(ModelError, match="no weights"):
        resolve(str(folder))
    (folder / "model.safetensors").unlink()
    headers = [b'{"t": {"data_offsets": [%s]}}' % start for start in (b"-99", b"1.5", b'"a"', b"9" * 30)]
    headers += [b'{"t": {"data_offsets": %s}}' % span for span in (b"[9, 1]", b"[0, 1e9]", b"[0, 1, 2]", b"{}")]
    headers += [b'{"t": ' + b"[" * 5000 + b"]" * 5000 + b"}"]
    damages = [len(header).to_bytes(8, "little") + header for header in headers]
    for damaged in (b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{]", b"\x02\0\0\0\0\0\0\0[]", *damages):
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ModelError, match="damaged"):
            resolve(str(folder))


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-vl"])
def test_the_catalogue_has_the_size_of_what_is_bundled(name: str) -> None:
    weights = [load_file(path) for path in Path(resolve(name).source).glob("*.safetensors")]
    numbers = sum(tensor.numel() for file in weights for tensor in file.values())
    assert BY_NAME[name].parameters == round(numbers / 1e6) and BY_NAME[name].bundled


def test_a_missing_bundled_model_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "bundled_folder", lambda name: tmp_path / name)
    assert bundled_names() == ["tiny-clip", "tiny-vl"]
    with pytest.raises(ModelError, match="lacks the bundled model"):
        resolve("tiny-clip")


class Hub:
    """Stands in for `snapshot_download`: hands out a folder, or raises, and remembers what it was asked."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, name: str, *, revision: str | None, **patterns: list[str]) -> str:
        self.asked.append((name, revision))
        assert "*.bin" not in patterns["allow_patterns"], "pickled weights must not even be downloaded"
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def test_the_hub_is_asked_for_what_was_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = folder.rename(folder.parent / COMMIT)
    hub = Hub(snapshot)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    assert resolve("org/name#main") == Checkpoint("org/name", snapshot, COMMIT, local=False)
    assert resolve("qwen3-vl-4b", COMMIT).name == "qwen3-vl-4b"
    assert hub.asked == [("org/name", "main"), ("Qwen/Qwen3-VL-4B-Instruct", COMMIT)]
    with pytest.raises(UsageError, match="two revisions"):
        resolve("org/name#main", COMMIT)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights in safetensors"):
        resolve("org/name")


def answer(status: int) -> object:
    """An HTTP response of whichever client the hub's library is built on."""
    client = __import__(errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
    return client.Response(status, request=client.Request("GET", "https://hub"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errors.GatedRepoError, "licence to be accepted"),
        (errors.RepositoryNotFoundError, "has no org/name, or it is private"),
        (errors.RevisionNotFoundError, "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses(error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raised = error("refused\nwith details", response=answer(404))  # type: ignore[call-arg]
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub(raised))
    with pytest.raises(UsageError, match=says) as caught:
        resolve("org/name", "v9")
    assert "\n" not in str(caught.value)


def test_what_was_downloaded_before_is_found_offline(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    home = cache / "models--org--name"
    snapshot = home / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert resolve("org/name").revision == COMMIT
    assert resolve("org/name", COMMIT).source.samefile(snapshot)


def test_missing_files_of_weights_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a copy or a download that broke off between files."""
    names = [f"model-0000{i}-of-00005.safetensors" for i in range(1, 6)]
    (folder / "model.safetensors").rename(folder / names[0])
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"layer.{i}": name for i, name in enumerate(names)}}))
    with pytest.raises(ModelError, match=r"lacks 4 of its weight files \(model-00002.*, …\); copy them into"):
        resolve(str(folder))
    snapshot = folder.rename(folder.parent / COMMIT)
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub(snapshot))
    with pytest.raises(ModelError, match=r"lacks 4 of .*; connect to the model hub and run the same command again"):
        resolve("org/name")
    for name in names[1:]:
        shutil.copy(snapshot / names[0], snapshot / name)
    assert resolve("org/name").revision == COMMIT
    for damaged in ("{}", "[]", '{"weight_map": 3}'):
        (snapshot / index.name).write_text(damaged)
        with pytest.raises(ModelError, match=r"names no weight files|not a JSON object"):
            resolve("org/name")


def test_weights_are_whole_or_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if name.endswith("weight"))
    save_file({name: value for name, value in weights.items() if name != gone}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks 1 of its weights \("):
        load_weights(resolve(str(folder)), place("cpu"))
    save_file(weights | {gone: torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(resolve(str(folder)), place("cpu"))


def test_truncated_weights_and_unknown_architectures_are_refused(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(resolve(str(folder)), place("cpu"))
    (folder / "config.json").write_text('{"model_type": "of-tomorrow", "auto_map": {"AutoModel": "code.Model"}}')
    (folder / "code.py").write_text("raise SystemExit('code of the checkpoint was run')")
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(resolve(str(folder)), place("cpu"))
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match="not a JSON object"):
        _ = resolve(str(folder)).model_type


def test_a_model_is_read_once_while_it_is_in_use(folder: Path) -> None:
    checkpoint = resolve(str(folder))
    model = load_weights(checkpoint, place("cpu", "float32"))
    assert load_weights(checkpoint, place("cpu", "float32")) is model
    assert load_weights(checkpoint, place("cpu", "bfloat16")) is not model
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.training


def test_threads_read_a_model_once_and_one_that_is_there_waits_for_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, read, begun, go_on = resolve(str(folder)), weights._read, threading.Event(), threading.Event()
    there, reads = load_weights(checkpoint, place("cpu", "bfloat16")), []

    def slow(*asked: Any) -> Any:
        reads.append(asked)
        begun.set()
        assert go_on.wait(60)
        return read(*asked)

    monkeypatch.setattr(weights, "_read", slow)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(load_weights, checkpoint, place("cpu", "float32")) for _ in range(4)]
        assert begun.wait(60)
        assert load_weights(checkpoint, place("cpu", "bfloat16")) is there
        go_on.set()
        assert len({id(one.result()) for one in waiting}) == 1 and len(reads) == 1


def test_a_failed_read_does_not_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with ThreadPoolExecutor(3) as pool:
        for failed in [pool.submit(load_weights, resolve(str(folder)), place("cpu")) for _ in range(3)]:
            with pytest.raises(ModelError, match="cannot be read"):
                failed.result()
    (folder / "model.safetensors").write_bytes(data)
    assert load_weights(resolve(str(folder)), place("cpu")) is not None
