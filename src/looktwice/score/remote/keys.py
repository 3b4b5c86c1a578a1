"""Read a server's key from the environment or a file, and keep it out of everything that is written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from looktwice.errors import UsageError
from looktwice.score.remote.address import Address

VARIABLE, FILE_VARIABLE = "LOOKTWICE_API_KEY", "LOOKTWICE_API_KEY_FILE"
HIDDEN = "(the key)"


class ApiKey:
    """A key that no text shows: neither its `repr` nor an error that a server sends back."""

    def __init__(self, secret: str | None) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "ApiKey()" if self._secret is None else "ApiKey(…)"

    def __bool__(self) -> bool:
        return self._secret is not None

    def headers(self, address: Address) -> dict[str, str]:
        """Return the header that carries the key. Raises UsageError if others on the way could read it."""
        if self._secret is None:
            return {}
        if not (address.base.startswith("https://") or address.private):
            raise UsageError(
                f"The key would travel unencrypted to {address.base}; use https://, or a server on a private address."
            )
        return {"Authorization": f"Bearer {self._secret}"}

    def hidden(self, text: str) -> str:
        """Return a text without the key, should it quote it."""
        return text.replace(self._secret, HIDDEN) if self._secret else text

    def hidden_in(self, found: Any) -> Any:
        """Return parsed JSON without the key, however it was escaped."""
        if self._secret is None:
            return found
        text = json.dumps(found)
        escaped = json.dumps(self._secret)[1:-1]
        return json.loads(text.replace(escaped, HIDDEN)) if escaped in text else found


def find(file: Path | None) -> ApiKey:
    """Return the key of `file`, or of the environment. Raises UsageError for a file that holds none."""
    named = os.environ.get(FILE_VARIABLE)
    path = file or (Path(named) if named else None)
    if path is None:
        return ApiKey(_checked(os.environ.get(VARIABLE, "").strip(), VARIABLE) or None)
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The key file {path} cannot be read ({type(error).__name__}); name a text file.") from None
    if not text:
        raise UsageError(f"The key file {path} is empty; write the key into it.")
    return ApiKey(_checked(text, str(path)))


def _checked(text: str, where: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError(f"{where} does not hold a key: it must be one word of printable ASCII; write only the key.")
    return text
