"""HTML pages from templates, each one file that needs no network and no other file."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

import markupsafe
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent

# Control characters and lone surrogates, which file names can contain and HTML cannot.
_NOT_IN_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def render(template: str, **values: object) -> str:
    """Fill in a template.

    Names of songs, stems and models come from anywhere, so every value is escaped, unless it is `Markup` already.

    Args:
        template: Its path below the package, such as "evaluation/report.html". Pages extend "page.html", whose content
            security policy allows their own style and script, and nothing else.
        values: The template's variables.
    """
    return _environment().get_template(template).render(values)


def escape(value: object) -> Markup:
    """Turn a value into HTML; characters that HTML cannot have become U+FFFD, and `Markup` is unchanged."""
    return markupsafe.escape(value if hasattr(value, "__html__") else _NOT_IN_HTML.sub("\ufffd", str(value)))


def csp_hash(text: str) -> Markup:
    """Return the source expression by which a content security policy allows one inline script or style."""
    return Markup(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["csp_hash"] = csp_hash
    return environment
