"""Who may use the server: tokens, and what a browser's other pages may not do."""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request

from ..formats.contract import ConfigError
from .requests import Refused

__all__ = ["Access", "is_loopback", "read_tokens"]

_SHORTEST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def read_tokens(path: Path) -> list[str]:
    """Read one token a line. Raises ConfigError."""
    try:
        tokens = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file: cannot read {path} ({error}); expected a token a line") from error
    if not tokens or min(map(len, tokens)) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"--token-file: {path} has a token of fewer than {_SHORTEST_TOKEN} characters, or none",
            hint=f"one long token: {secrets.token_urlsafe(24)}",
        )
    return tokens


class Access:
    """Checks each request. Without tokens, only requests to this machine by its own name are served."""

    def __init__(self, tokens: Sequence[str], host: str) -> None:
        self._tokens, self._host = tokens, host

    def client(self, request: Request) -> str:
        """Return who asks, for the queue: a hash of the token, or the address. Raises Refused."""
        if not self._tokens:
            # a web page whose name resolves to this machine still sends its own name as the host
            name = request.url.hostname or ""
            if not is_loopback(name) and name != self._host:
                raise Refused(f"the host is {name}; expected localhost", status=403, code="wrong_host")
            return request.client.host if request.client else ""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        allowed = [hmac.compare_digest(given.strip().encode(), token.encode()) for token in self._tokens]
        if scheme.lower() != "bearer" or not any(allowed):
            message = "missing or wrong token; expected the header Authorization: Bearer <token>"
            raise Refused(message, status=401, code="invalid_api_key")
        return hashlib.sha256(given.encode()).hexdigest()
