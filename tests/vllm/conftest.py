from __future__ import annotations

from collections.abc import Iterator

import pytest
from vllm_server import VllmServer, environment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/vllm/" in str(item.path).replace("\\", "/"):
            item.add_marker(pytest.mark.vllm)


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    folder = environment()
    assert folder is not None, "run it by make test-vllm, which builds the environment"
    server = VllmServer(folder, tmp_path_factory.mktemp("vllm") / "log", more_options=("--enable-prompt-embeds",))
    try:
        server.wait()
        yield server
    finally:
        server.kill()
