"""The token of a dashboard without a login: whoever opens it must have the address that ``slimfed dashboard`` printed.

Every account of a computer can connect to 127.0.0.1, and the dashboard starts runs as its owner. So each start of the
dashboard draws a token. The printed address has it as ``?token=``; the first visit turns it into a cookie, and every
other request, the websocket included, is answered only with that cookie.
"""

import hmac
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import parse_qsl, quote, urlencode

from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from slimfed.dashboard.access.users import AccessError

TOKEN = "SLIMFED_DASHBOARD_TOKEN"
PARAMETER = "token"
_HEALTH = "/_stcore/health"
_SHAPE = re.compile(r"[A-Za-z0-9_-]{16,}")
_REFUSED = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>slimfed</title><body style="font: 16px/1.5 sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem">
<h1 style="font-size: 1.4rem">This dashboard needs its token</h1>
<p>Open the address that <code>slimfed dashboard</code> printed when it started; it ends with
<code>?token=...</code>. Or enter the token:</p>
<form method="get">{fields}<input name="token" type="password" autocomplete="off" size="36" aria-label="Token">
<button>Open</button></form>"""
_FIELD = '<input type="hidden" name="{}" value="{}">'


def new_token() -> str:
    """A token of 192 random bits, for one start of the dashboard."""
    return secrets.token_urlsafe(24)


def chosen_token(environment: Mapping[str, str] = os.environ) -> str:
    """The token that the environment names, or a new one. Raises :class:`AccessError` for a weak one."""
    token = environment.get(TOKEN, "")
    if token and not _SHAPE.fullmatch(token):
        raise AccessError(
            f"{TOKEN}: must be at least 16 letters, digits, _ or -; leave it unset for a new one each time"
        )
    return token or new_token()


def cookie_name(port: int | str) -> str:
    """The cookie of the dashboard on this port: browsers do not keep the cookies of ports apart."""
    return f"slimfed-{port}"


class TokenGate:
    """ASGI middleware that answers requests with the right cookie, and exchanges ``?token=`` for it.

    ``token``: what to compare with; "" lets everything through (a dashboard with a login). The health check, which
    tells nothing, is always answered.
    """

    def __init__(self, app: ASGIApp, token: str, cookie: str) -> None:
        self._app = app
        self._token = token
        self._cookie = cookie
        # Browsers send a cookie to every port of an address, so it must not be the token, which may be of many starts.
        self._value = hmac.new(secrets.token_bytes(32), token.encode(), "sha256").hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, redirect it, or refuse it (403; a websocket is closed before it is accepted)."""
        if self._admits(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "the dashboard's token is missing"})
        else:
            await self._answer(scope, send)

    def _admits(self, scope: Scope) -> bool:
        if not self._token or scope["type"] not in ("http", "websocket") or scope["path"] == _HEALTH:
            return True
        return _equal(_cookies(scope).get(self._cookie, ""), self._value)

    async def _answer(self, scope: Scope, send: Send) -> None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == PARAMETER]
        if not any(_equal(value, self._token) for value in given):
            await _respond(send, 403, {"content-type": "text/html; charset=utf-8"}, _refusal(query).encode())
            return
        # Without the token, so that a copied address does not hand it on. Slashes at the front would name a host.
        path = "/" + quote(scope["path"].lstrip("/\\"))
        rest = urlencode([pair for pair in query if pair[0] != PARAMETER])
        cookie = f"{self._cookie}={self._value}; HttpOnly; SameSite=Lax; Path=/"
        await _respond(send, 303, {"location": f"{path}?{rest}" if rest else path, "set-cookie": cookie})


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _refusal(query: Sequence[tuple[str, str]]) -> str:
    """The page that asks for the token, and leads on to the page that was asked for."""
    kept = [(escape(name), escape(value)) for name, value in query if name != PARAMETER]
    return _REFUSED.replace("{fields}", "".join(_FIELD.format(name, value) for name, value in kept))


def _cookies(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name == b"cookie":  # as Starlette reads it: what other programs of this address have set may be malformed
            found |= cookie_parser(value.decode("latin-1"))
    return found


async def _respond(send: Send, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
    every = {**headers, "content-length": str(len(body)), "cache-control": "no-store", "referrer-policy": "no-referrer"}
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in every.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
