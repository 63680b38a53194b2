"""URLs as they may be shown: without passwords, and without queries, in which signatures are."""

import re

_QUERY = re.compile(r"\?[\w.~%-]+=")
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]+://)(?:[^\s/?#'\"]*@)?(?P<path>[^\s?#'\"]*)(?P<query>\?[^\s'\"]*)?", re.IGNORECASE
)


def redact(text: str) -> str:
    """Return a text without the passwords and the queries of URLs in it."""
    return _URL.sub(lambda match: match["scheme"] + match["path"] + ("?..." if match["query"] else ""), text)


def redact_url(url: str) -> str:
    """Return a URL without its password and its query; a ? in the name of an object stays."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    shown = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    if scheme.lower() in ("http", "https") or _QUERY.search(path):
        before, mark, _ = shown.partition("?")
        return before.partition("#")[0] + ("?..." if mark else "")
    return shown
