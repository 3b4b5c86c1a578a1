"""Accept option and verb names of the version before for one more release, with a warning on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from looktwice.cli.console import note

OPTIONS = {
    "--sure": "--min-precision",
    "--as-released": "--repetition-penalty",
    "--picture": "--image-size",
}
VALUES = {("--codec", "pictures"): "images"}
EVAL = ("run", "compare", "robustness")


def current(args: Sequence[str]) -> list[str]:
    """Return the command line with old names replaced by today's.

    >>> current(["search", "t.lt", "red", "--min-precision=0.9"])
    ['search', 't.lt', 'red', '--min-precision=0.9']
    """
    renamed = [_value(before, _option(arg)) for before, arg in zip(("", *args), args, strict=False)]
    return [renamed[0], *_eval(renamed[1:])] if renamed[:1] == ["eval"] else renamed


def _option(arg: str) -> str:
    name, equals, value = arg.partition("=")
    if name not in OPTIONS:
        return arg
    _tell(name, OPTIONS[name])
    return f"{OPTIONS[name]}{equals}{value}"


def _value(option: str, value: str) -> str:
    new = VALUES.get((option, value))
    if new is None:
        return value
    _tell(f"{option} {value}", f"{option} {new}")
    return new


def _eval(args: list[str]) -> list[str]:
    """Rewrite the old forms of `eval`.

    `eval NAME` becomes `eval run NAME`. `eval --run A --run B` becomes `eval compare A B`. `eval robustness --on NAME`
    becomes `eval robustness NAME`.
    """
    if args[:1] == ["robustness"]:
        named = list(_without("--on", args))
        if len(named) < len(args):
            _tell("eval robustness --on NAME", "eval robustness NAME")
        return named
    if not args or args[0] in (*EVAL, "-h", "--help"):
        return args
    runs = list(_without("--run", args))
    if len(runs) < len(args) or any(arg.startswith("--run=") for arg in args):
        _tell("eval --run BEFORE --run AFTER", "eval compare BEFORE AFTER")
        return ["compare", *runs]
    _tell("eval NAME", "eval run NAME")
    return ["run", *args]


def _without(option: str, args: Sequence[str]) -> Iterator[str]:
    """Yield the arguments without the option's name, so that its value becomes an argument."""
    for arg in args:
        if arg.startswith(f"{option}="):
            yield arg.removeprefix(f"{option}=")
        elif arg != option:
            yield arg


def _tell(old: str, new: str) -> None:
    note(f"Warning: `{old}` is now called `{new}`; use the new name, as the next release drops the old one.")
