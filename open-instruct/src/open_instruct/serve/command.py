"""The command `serve`: load the checkpoint, bind the address, serve until a signal."""

import logging
import secrets
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import uvicorn

from ..chat.answer import Chatter
from ..config import RuntimeSettings, TemplateSettings
from ..formats.contract import ConfigError
from .access import Access, is_loopback, read_tokens
from .app import make_app
from .feedback import CONSENT, Feedback
from .generation import Generator, Limits

__all__ = ["ServeSettings", "serve"]

log = logging.getLogger(__name__)
_MOST_CONNECTIONS = 1000


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """What to serve, where and to whom."""

    model: Path
    name: str | None = None
    template: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    feedback: Path | None = None
    consent_file: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    num_threads: int | None = None


def serve(settings: ServeSettings, limits: Limits) -> None:
    """Serve until SIGINT or SIGTERM. Answers that are being generated then get `limits.shutdown_s` to finish.

    Raises:
        ConfigError: the checkpoint, a file or the address cannot be used.
    """
    tokens = read_tokens(settings.token_file) if settings.token_file else []
    if not tokens and not is_loopback(settings.host):
        tokens = [secrets.token_urlsafe(24)]
        log.warning("serve  %s is not this machine only; this run's token: %s", settings.host, tokens[0])
    name = settings.name or settings.model.resolve().name
    feedback = None
    if settings.feedback is not None:
        consent = CONSENT if settings.consent_file is None else _read_consent(settings.consent_file)
        feedback = Feedback(settings.feedback, name, consent)
    listening = _bind(settings.host, settings.port)
    runtime = RuntimeSettings(device=settings.device, num_threads=settings.num_threads)
    chatter = Chatter(settings.model, runtime, TemplateSettings(name=settings.template), dtype=settings.dtype)
    generator = Generator(chatter, limits)
    app = make_app(name, generator, Access(tokens, settings.host), feedback)
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=round(limits.shutdown_s),
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = uvicorn.Server(config)

    def end(*_: object) -> None:
        server.should_exit = True

    # uvicorn has handlers of its own while it serves, and sends itself the signal again at the end
    former = {kind: signal.signal(kind, end) for kind in (signal.SIGINT, signal.SIGTERM)}
    listening.listen()
    log.info("serve  %s at http://%s:%d", name, f"[{host}]" if ":" in host else host, port)
    try:
        server.run(sockets=[listening])
    finally:
        for kind, handler in former.items():
            signal.signal(kind, handler)
        generator.engine.close()
        listening.close()
    log.info("serve  ended")


def _read_consent(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--consent-file: cannot read {path} ({error}); expected a text") from error
    if not text:
        raise ConfigError(f"--consent-file: {path} is empty; expected the text that users agree to")
    return text


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--host {host} --port {port}: cannot be used ({reason}); expected a free address of this machine",
            hint="--port 0 takes a free port",
        ) from error
    return listening
