"""Who may talk to the app: its own pages do, and nobody else, whatever a page elsewhere makes the browser send."""

import http.client
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.app import Answer, Running, running

from stemsplit.app import server
from stemsplit.app.guard import Guard, is_loopback
from stemsplit.app.songs import LONGEST_NAME, safe_name, unused_name
from stemsplit.models.registry import Registry, read_bundled


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("app")
    known = read_bundled()
    with running(folder / "kept", folder / "out", Registry(known.models, "mini")) as app:
        yield app


def test_the_address_that_is_printed_lets_in(app: Running) -> None:
    answer = app.ask("GET", app.address.removeprefix(app.origin), Cookie=None, Origin=None, Sec_Fetch_Site="none")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    page = app.ask("GET", "/", Cookie=cookie.split(";")[0], Origin=None, Sec_Fetch_Site="none")
    assert page.status == 200
    assert b"<title>stemsplit</title>" in page.body


@pytest.mark.parametrize(
    "path", ["/", "/?token=", "/?token=guess", "/?token=a&token=b", "/api/state", "/static/app.js"]
)
def test_without_the_token_nothing_is_told(path: str, app: Running) -> None:
    for cookie in (None, "", "stemsplit=x", f"stemsplit-{app.port}=guess", f"stemsplit-{app.port}="):
        answer = app.ask("GET", path, Cookie=cookie)
        assert answer.status == 401
        assert "set-cookie" not in answer.headers
        assert b"Open the address that stemsplit app printed" in answer.body


def test_the_token_opens_the_page_only(app: Running) -> None:
    query = app.address.partition("?")[2]
    assert app.ask("GET", f"/api/state?{query}", Cookie=None).status == 401
    assert app.ask("PUT", f"/api/songs?{query}&name=a.wav", b"x", Cookie=None).status == 401


REQUESTS = [
    ("GET", "/"),
    ("GET", "/api/state"),
    ("GET", "/api/events"),
    ("GET", "/static/app.js"),
    ("PUT", "/api/songs?name=a.wav"),
    ("PATCH", "/api/choices"),
    ("POST", "/api/songs/x/cancel"),
    ("DELETE", "/api/songs/x"),
]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_a_name_that_was_rebound_is_not_ours(method: str, path: str, app: Running) -> None:
    """DNS rebinding: evil.example leads to 127.0.0.1, and the browser takes both for one site."""
    for host in ("evil.example", f"evil.example:{app.port}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1.evil:{app.port}"):
        answer = app.ask(method, path, b"x", Host=host, Origin=f"http://{host}")
        assert answer.status == 421, host


@pytest.mark.parametrize(("method", "path"), REQUESTS)
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1", "null", "file://"]
)
def test_pages_elsewhere_cannot_drive_it(method: str, path: str, origin: str, app: Running) -> None:
    """CSRF: even if the cookie came along."""
    assert app.ask(method, path, b"x", Origin=origin, Sec_Fetch_Site="cross-site").status == 403
    assert app.ask("GET", "/api/state").json()["songs"] == []


@pytest.mark.parametrize(("method", "path"), [each for each in REQUESTS if each[0] != "GET"])
def test_what_changes_something_says_where_it_is_from(method: str, path: str, app: Running) -> None:
    assert app.ask(method, path, b"x", Origin=None).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_elsewhere_load_nothing(site: str, app: Running) -> None:
    """Another port of this machine is the same site, and gets the cookie."""
    for path in ("/api/state", "/static/app.js"):
        assert app.ask("GET", path, Origin=None, Sec_Fetch_Site=site, Sec_Fetch_Dest="script").status == 403
    assert app.ask("GET", "/", Origin=None, Sec_Fetch_Site=site, Sec_Fetch_Dest="document").status == 200


def test_two_hosts_are_none(app: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", app.port)
    connection.putrequest("GET", "/", skip_host=True)
    connection.putheader("Host", f"127.0.0.1:{app.port}")
    connection.putheader("Host", "evil.example")
    connection.endheaders()
    assert connection.getresponse().status in (400, 421)
    connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../songs.py",
        "/static/..%2Fsongs.py",
        "/static/%2e%2e/songs.py",
        "/static/app.html",
        "/static/",
        "/api/songs/..%2F..%2Fqueue.json/player",
        "/api/songs/x/files/..%2F..%2Fqueue.json",
        "/api/songs/x/player",
        "/api/songs/x/zip",
        "//etc/passwd",
        "/%00",
    ],
)
def test_no_path_leads_to_other_files(path: str, app: Running) -> None:
    assert app.ask("GET", path).status == 404


def test_every_answer_has_a_policy(app: Running) -> None:
    answers: list[Answer] = [
        app.ask("GET", "/"),
        app.ask("GET", "/static/app.js"),
        app.ask("GET", "/nothing"),
        app.ask("GET", "/", Cookie=None),
        app.ask("GET", "/", Host="evil.example"),
        app.ask("PATCH", "/api/choices", b"{"),
        app.ask("POST", "/"),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers or "uvicorn" not in answer.headers["server"]


def test_small_things_are_not_large(app: Running) -> None:
    assert app.ask("PATCH", "/api/choices", b" " * (server.LARGEST_JSON + 1)).status == 413
    assert app.ask("PATCH", "/api/choices", b"{").status == 400


def test_the_page_needs_nothing_else_and_has_nothing_inline() -> None:
    class Page(HTMLParser):
        inline = False

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            for name, value in attrs:
                assert not name.startswith("on") and name != "style"
                if name in ("src", "href"):
                    assert value in ("data:,", *(f"/static/{each}" for each in server.STATIC))
            self.inline = tag in ("script", "style")

        def handle_data(self, data: str) -> None:
            assert not (self.inline and data.strip())

        def handle_endtag(self, tag: str) -> None:
            self.inline = False

    Page().feed((server.FOLDER / "app.html").read_text(encoding="utf-8"))
    for name in server.STATIC:
        text = (server.FOLDER / name).read_text(encoding="utf-8")
        assert not re.search(
            r"(inner|outer|Adjacent|set)HTML|document\.write|\beval\(|Function\(|https?:|@import", text
        )


def test_all_that_the_page_says_is_in_one_place() -> None:
    strings = (server.FOLDER / "strings.js").read_text(encoding="utf-8")
    page = (server.FOLDER / "app.html").read_text(encoding="utf-8")
    for key in re.findall(r'data-text="(\w+)"', page):
        assert re.search(rf"^  {key}: ", strings, re.MULTILINE), key
    for key in set(re.findall(r"STRINGS\.(\w+)", (server.FOLDER / "app.js").read_text(encoding="utf-8"))):
        assert re.search(rf"^  {key}: ", strings, re.MULTILINE), key
    for preset in server.PRESETS:
        assert re.search(rf"^    {preset}: ", strings, re.MULTILINE)


def test_which_names_lead_here() -> None:
    async def nothing(*arguments: object) -> None: ...

    def names(host: str, port: int) -> list[str]:
        guard = Guard(nothing, host=host, port=port)
        asked = ["127.0.0.1:8017", "localhost:8017", "[::1]:8017", "192.168.1.7:8017", "evil.example:8017", "localhost"]
        return [name for name in asked if guard._is_ours(name)]

    assert names("127.0.0.1", 8017) == ["127.0.0.1:8017", "localhost:8017", "[::1]:8017"]
    assert names("0.0.0.0", 8017) == ["127.0.0.1:8017", "localhost:8017", "[::1]:8017", "192.168.1.7:8017"]
    assert names("127.0.0.1", 80) == ["localhost"]
    loopback = {
        host: is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost", "0.0.0.0", "10.0.0.1")
    }
    assert [host for host, is_one in loopback.items() if not is_one] == ["0.0.0.0", "10.0.0.1"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("song.mp3", "song.mp3"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Music\\a.wav", "a.wav"),
        ("<img src=x onerror=alert(1)>.wav", "img src=x onerror=alert(1).wav"),
        ("a\x00b\n\x1b[31m.wav", "ab[31m.wav"),
        ("🎸.wav", "🎸.wav"),
        ("e\u0301.wav", "\xe9.wav"),
        ("CON.wav", "song CON.wav"),
        ("nul", "song nul"),
        ("...", "song"),
        ("", "song"),
        (".hidden", "hidden"),
        ("...mp3", "mp3"),
        ("a. .wav", "a.wav"),
        ("\u202egpj.exe.wav", "gpj.exe.wav"),
        ("no suffix", "no suffix"),
    ],
)
def test_names_are_made_safe(name: str, expected: str) -> None:
    assert safe_name(name) == expected


def test_long_names_are_cut_between_letters() -> None:
    name = safe_name("\xe9" * 300 + ".wav")
    assert name.endswith(".wav") and len(name.encode()) <= LONGEST_NAME
    assert set(name.removesuffix(".wav")) == {"\xe9"}
    assert safe_name("a." + "x" * 300) == "a." + "x" * (LONGEST_NAME - 3)


def test_names_that_are_taken_get_a_number(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert unused_name("a.wav", tmp_path, []) == "a (2).wav"
    assert unused_name("A.wav", tmp_path / "none", ["a (1).mp3", "a.mp3"]) == "A (2).wav"
    assert unused_name("b.wav", tmp_path, []) == "b.wav"
