"""Who may talk to the app: only pages that it served itself, to the person who started it.

The address that is printed has a random token, which becomes a cookie that scripts cannot read and other sites cannot
send (HttpOnly, SameSite=Strict). A page elsewhere that makes the browser send requests is recognised by `Origin` and
`Sec-Fetch-Site`; a name that was rebound to this machine (DNS rebinding) by `Host`.
"""

import hmac
import ipaddress
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A page to listen on has a policy of its own, and cannot be more than a page here: it has no origin, and no cookie.
PAGE_POLICY = "sandbox allow-scripts allow-downloads; frame-ancestors 'self'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_SAFE = ("GET", "HEAD")
_OPEN = "Open the address that stemsplit app printed: it lets in only who has started it.\n"


class Guard:
    """Passes on the requests of the app's own pages, and refuses all others.

    Args:
        app: What answers them.
        host: Address that the server listens at.
        port: Its port.

    Attributes:
        token: What the address has to contain.
    """

    def __init__(self, app: ASGIApp, *, host: str, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._app, self._host, self._port = app, host, port
        self._cookie = f"stemsplit-{port}"  # browsers do not tell ports apart
        self._names = {host, "localhost", "127.0.0.1", "::1"}
        if not is_loopback(host):
            self._names |= {socket.gethostname()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refuse(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is not passed on, or None."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return PlainTextResponse("This is not the address of stemsplit.\n", 421)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin != f"http://{hosts[0]}":
            return PlainTextResponse("Requests from other pages are refused.\n", 403)
        if scope["method"] not in _SAFE and origin is None:
            return PlainTextResponse("The request does not say which page it is from.\n", 403)
        if self._has_cookie(headers):
            # A link on another site may lead here, but its pages load nothing from here.
            if site not in (None, "same-origin", "none") and headers.get("sec-fetch-dest") != "document":
                return PlainTextResponse("Requests from other pages are refused.\n", 403)
            return None
        if scope["method"] == "GET" and scope["path"] == "/" and self._has_token(scope):
            answer = RedirectResponse("/", 303)  # so that the token is not in the address for long
            answer.set_cookie(self._cookie, self.token, httponly=True, samesite="strict", path="/")
            return answer
        return PlainTextResponse(_OPEN, 401)

    def _is_ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or port != str(self._port):
            return self._port == 80 and self._is_name_of_ours(host)
        return self._is_name_of_ours(name)

    def _is_name_of_ours(self, name: str) -> bool:
        name = name.removeprefix("[").removesuffix("]").lower()
        if name in self._names:
            return True
        # To all addresses of the machine only numbers lead besides its own name: nobody can rebind those.
        return not is_loopback(self._host) and _is_number(name)

    def _has_cookie(self, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _has_token(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return len(given) == 1 and self._is_token(given[0])

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    return host == "localhost" or (_is_number(host) and ipaddress.ip_address(host).is_loopback)


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
