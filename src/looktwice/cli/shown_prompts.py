"""`looktwice models prompt NAME --show`: print built-in prompts as files to start one's own from."""

from __future__ import annotations

from collections.abc import Sequence

from looktwice.cli.console import say
from looktwice.errors import UsageError


def show_prompts(names: Sequence[str]) -> None:
    """Print each prompt as TOML. Raises UsageError if no prompt is named, UnknownName for an unknown one."""
    from looktwice.score.prompting import built_in
    from looktwice.score.prompting.prompt_file import to_toml

    kind, *wanted = [name.removeprefix("--") for name in names] or [""]
    if kind != "prompt" or not wanted:
        raise UsageError("--show prints prompts; name one: looktwice models prompt object --show")
    for number, name in enumerate(wanted):
        prompt = built_in.get(name)
        for line in (*([""] if number else []), f"# hash {prompt.hash}", *to_toml(prompt).splitlines()):
            say(line)
