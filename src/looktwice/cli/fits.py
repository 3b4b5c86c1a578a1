"""`looktwice models --fits`: tell which presets this machine can hold, and what they cost on it."""

from __future__ import annotations

from looktwice.cli.console import emit, note, plural, size, table
from looktwice.errors import UsageError


def show_fits(items: str, json: bool) -> None:
    """Print one row per preset."""
    from looktwice.estimate.fits import USABLE, fits, matmul_rate
    from looktwice.models.device import memory, place, set_threads

    count = _count(items)
    threads = set_threads()
    where = place()
    rate = matmul_rate(where)
    found = list(fits(where, rate, items=count))
    if json:
        for one in found:
            emit({**one.record(), "device": where.device, "dtype": where.dtype, "flops": rate})
        return
    columns = ["preset", "fits", ">weights", ">download", ">index", ">on disk", ">one query"]
    rows = [
        (
            one.preset,
            "yes" if one.fits else "no",
            size(one.weights),
            size(one.download),
            _time(one.index_hours * 3600),
            size(one.bytes_total),
            _time(one.query_seconds),
        )
        for one in found
    ]
    table(columns, rows, title=f"{count:,} images, 100 candidates a query")
    cores = f" with {plural(threads, 'thread')}" if where.device == "cpu" else ""
    for one in found:
        note(f"{one.preset}: {one.options}; {one.reason}.")
    note(
        f"This machine: {where.device} with {size(memory(where.device).total)}, of which weights may fill "
        f"{USABLE:.0%}; {where.dtype}, {rate:.3g} FLOP/s measured"
        f"{cores}. Times are computed at 40% of that."
    )


def _count(text: str) -> int:
    try:
        value = float(text.replace("_", "").replace(",", ""))
    except ValueError:
        value = 0
    if not 1 <= value < 1e12:
        raise UsageError(f"--items must be a number of images such as 1e4, not {text!r}.")
    return int(value)


def _time(seconds: float) -> str:
    for limit, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= limit:
            return f"{seconds / limit:,.1f} {unit}"
    return f"{seconds:.2g} s"
