"""Servers for tests: `open-instruct serve` in a process of its own, or its application in a thread."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from open_instruct.chat.answer import Chatter
from open_instruct.config import RuntimeSettings, TemplateSettings
from open_instruct.serve.access import Access
from open_instruct.serve.app import make_app
from open_instruct.serve.feedback import Feedback
from open_instruct.serve.generation import Generator, Limits


@contextmanager
def served(model: Path, *options: str) -> Iterator[tuple[str, str]]:
    """Start the command at a free port; yield its address and what it said; end it with SIGTERM and expect exit 0."""
    command = [sys.executable, "-m", "open_instruct", "serve", str(model), "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--num-threads", "1", *options], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        said = []
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            found = re.search(r" at (http://\S+)", line)
            if found:
                break
        else:
            raise AssertionError(f"the server did not start: {''.join(said)}")
        try:
            yield found[1], "".join(said)
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(60) == 0, rest
            assert "Traceback" not in rest, rest


@contextmanager
def hosted(
    model: Path, *, tokens: Sequence[str] = (), feedback: Feedback | None = None, **limits: Any
) -> Iterator[str]:
    """Serve in a thread of this process, which starts faster; yield the address."""
    chatter = Chatter(model, RuntimeSettings(device="cpu", num_threads=1), TemplateSettings(name="tulu"))
    generator = Generator(chatter, Limits(**limits))
    app = make_app(model.name, generator, Access(tokens, "127.0.0.1"), feedback)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            generator.engine.close()
