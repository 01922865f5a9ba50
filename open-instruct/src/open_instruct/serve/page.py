"""The chat page: one file without anything from elsewhere, and headers that keep it so."""

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from starlette.responses import HTMLResponse, Response

__all__ = ["page_response"]


@cache
def _page() -> tuple[str, dict[str, str]]:
    text = (resources.files("open_instruct.serve") / "page.html").read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
        return " ".join(f"'sha256-{one}'" for one in hashes)

    policy = (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
    return text, {"Content-Security-Policy": policy, **headers}


def page_response() -> Response:
    """Return the page. It contains nothing secret; its requests carry the token."""
    text, headers = _page()
    return HTMLResponse(text, headers=headers)
