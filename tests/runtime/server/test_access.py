"""Who may ask, what is too much, and the paths beside those that embed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from embgemma.cli.main import main
from tests.processes import PYTHON, run
from tests.runtime.server.conftest import serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.server.conftest import Running

KEY = "a-secret-key"


@pytest.fixture
def locked(start_server: Callable[..., Running], model_path: Path) -> Running:
    options = ("--api-key", KEY, "--cors", "https://Example.org/", "--allow-host", "nas.lan", "--name", "mine")
    limits = ("--max-texts", 3, "--max-queue", 40, "--max-body", 1)
    return start_server(model_path, *options, *limits)


def asked(server: Running, **headers: str) -> int:
    """The status of a request with the key, or with what is given in its place."""
    return server.ask("GET", "/v1/models", None, **{"Authorization": f"Bearer {KEY}", **headers}).status


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer \xe9"])
def test_a_wrong_key(locked: Running, given: str) -> None:
    for path in ("/v1/models", "/metrics", "/api/tags", "/v1/else"):
        answer = locked.ask("GET", path, None, Authorization=given)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert KEY.encode() not in answer.body
    assert asked(locked, Authorization=f"bearer {KEY}") == 200
    assert locked.ask("GET", "/health").json == {"status": "ok", "model": "mine"}


def test_a_key_is_in_no_message(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBGEMMA_API_KEY", KEY)
    with serving(model_path, "--host", "0.0.0.0") as server:
        assert [asked(server), asked(server, Authorization=f"Bearer {KEY}x")] == [200, 401]
        assert server.ask("POST", "/v1/embeddings", b"{", Authorization=f"Bearer {KEY}").status == 400
        server.process.terminate()
        assert server.process.stderr is not None
        assert server.process.stderr.read() == b""


def test_other_machines_may_not_ask_without_a_warning(model_path: Path) -> None:
    code = "import embgemma.server.run as run; run.serve = lambda *_: None"
    main = "import sys; from embgemma.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = run(PYTHON, "-c", f"{code}; {main}", "serve", model_path, "--host", "0.0.0.0", capture_output=True)
    assert done.stderr.startswith(b"embgemma: warning: whoever reaches 0.0.0.0 may ask: set EMBGEMMA_API_KEY")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("app.localhost:1", 200),
        ("192.168.1.7:8080", 200),
        ("[::1]:8080", 200),
        ("nas.lan:8080", 200),
        ("nas.lan.", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1:80@evil.example", 403),
        ("[::1", 403),
    ],
)
def test_names_that_others_let_lead_here_are_refused(locked: Running, host: str, status: int) -> None:
    assert asked(locked, Host=host) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://example.org", 200),
        ("http://localhost", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost:99", 403),
        ("https://example.org.evil.example", 403),
    ],
)
def test_pages_of_others_are_refused(locked: Running, origin: str, status: int) -> None:
    assert asked(locked, Origin=origin, Host="localhost") == status


def test_cross_origin_requests_are_off_until_they_are_allowed(locked: Running, server: Running) -> None:
    ask = {"Origin": "https://example.org", "Access_Control_Request_Method": "POST"}
    headers = "authorization,content-type,x-stainless-lang"  # those of OpenAI's client in a page
    answer = locked.ask("OPTIONS", "/v1/embeddings", None, Access_Control_Request_Headers=headers, **ask)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://example.org")
    answer = server.ask("OPTIONS", "/v1/embeddings", None, **ask)
    assert answer.status == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"input": ["a"] * 4}, 413, "expected 3 at most"),
        ({"input": ["the of and to be it is that for " * 2] * 3}, 413, "expected 40 at most"),
        ({"input": "a" * (1 << 20)}, 413, "larger than 1048576 bytes"),
        ({"input": ["a"] * 3}, 200, ""),
    ],
)
def test_what_is_too_much(locked: Running, fields: dict[str, Any], status: int, says: str) -> None:
    answer = locked.ask("POST", "/v1/embeddings", fields, Authorization=f"Bearer {KEY}")
    assert answer.status == status
    assert status == 200 or says in answer.message


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [("/v1/embeddings", KEY, 413), ("/v1/embeddings", "x", 401), ("/v1/else", KEY, 404), ("/v1/models", KEY, 405)],
)
def test_an_early_answer_reaches_a_client_that_still_sends(locked: Running, path: str, key: str, status: int) -> None:
    """urllib asks for the end of the connection, which must not come while it sends."""
    headers = {"Authorization": f"Bearer {key}"}
    asking = urllib.request.Request(locked.url + path, b" " * (1 << 25), headers)
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(asking)
    with raised.value:
        assert (raised.value.code, "error" in json.load(raised.value)) == (status, True)


def test_a_client_that_waits_for_leave_to_send_is_refused_at_once(server: Running) -> None:
    head = (
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(server.address, timeout=60) as connection:
        connection.sendall(head)
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_other_methods_and_paths(server: Running) -> None:
    answer = server.ask("HEAD", "/health")
    assert (answer.status, answer.body, int(answer.headers["content-length"]) > 0) == (200, b"", True)
    assert server.ask("POST", "/v1/embeddings/", {"input": "a"}).status == 404  # no redirect to another address
    for method, path in [("GET", "/v1/embeddings"), ("HEAD", "/v1/embeddings"), ("POST", "/v1/models")]:
        answer = server.ask(method, path)
        assert (answer.status, answer.headers["allow"] != "") == (405, True)
    assert server.ask("OPTIONS", "/v1/embeddings").status == 405
    assert "unknown_url" in server.ask("GET", "/v1/else%0a%1b[31m").json["error"]["code"]
    assert server.ask("GET", "/").body.startswith(b"embgemma serves small")
    assert server.ask("GET", "/search?q=a").status == 404  # there is no index


def test_metrics(server: Running) -> None:
    before = server.metric("embgemma_texts_total")
    assert server.embed(input=["the", "of"]).status == 200
    assert server.metric("embgemma_texts_total") == before + 2
    assert server.metric("embgemma_waiting_tokens") == 0
    assert server.metric('embgemma_requests_total{path="/v1/embeddings",status="200"}') >= 1
    assert server.metric("embgemma_pass_seconds_count") >= 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--port", "70000"], 2, "port=70000; expected an integer from 0 to 65535"),
        (["--port", "0", "--host", "nowhere.invalid"], 1, "cannot listen on http://nowhere.invalid:0: "),
        (["--port", "0", "--host", "192.0.2.1"], 1, "cannot listen on http://192.0.2.1:0: "),
        (["--api-key", ""], 2, "the API key is empty"),
        (["--api-key", "ключ"], 2, "the API key is empty, or has characters other than"),
        (["--allow-host", "nas.lan:8080"], 2, "--allow-host 'nas.lan:8080' is no name; expected one such as nas.lan"),
        (["--allow-host", "http://nas.lan"], 2, "without scheme and port"),
        (["--cors", "example.org"], 2, "--cors 'example.org' is no origin; expected one such as https://example.org"),
        (["--cors", "https://example.org/page"], 2, "is no origin"),
        (["--default-prompt", "else"], 2, "it has query, document"),
        (["--name", ""], 2, "--name is empty"),
        (["--max-body", "0"], 2, "max_body=0; expected"),
        (["--index", "none.db"], 2, "there is no such index"),
    ],
)
def test_a_command_that_is_refused(
    arguments: list[str], code: int, says: str, model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(model_path), *arguments]) == code
    assert says in capsys.readouterr().err


def test_a_file_whose_name_is_not_unicode(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"tiny\xff.safetensors")
    try:
        shutil.copyfile(model_path, path)
    except OSError:
        pytest.skip("this system has no such names")
    with serving(path) as server:
        answers = [server.ask("GET", path).json for path in ("/health", "/v1/models", "/api/tags")]
        assert answers[0] == {"status": "ok", "model": "tiny\\udcff"}
        assert server.embed(input="the", model="tiny\\udcff").status == 200


def test_a_port_that_is_taken(server: Running, model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = server.address[1]
    assert main(["serve", str(model_path), "--port", str(port)]) == 1
    expected = f"embgemma: cannot listen on http://127.0.0.1:{port}: Address already in use; give another"
    assert capsys.readouterr().err.startswith(expected)


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(("starlette", "uvicorn")))
from embgemma.cli.main import main
sys.exit(main(["serve", sys.argv[1]]))
"""


def test_without_the_packages(model_path: Path) -> None:
    done = run(PYTHON, "-c", WITHOUT, model_path, check=False, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.startswith(b"embgemma: a server needs more packages (")
    assert b"[serve]" in done.stderr


def test_the_package_loads_without_a_server() -> None:
    code = "import sys, embgemma.cli.main; sys.exit(bool({'starlette', 'uvicorn', 'asyncio'} & {*sys.modules}))"
    run(PYTHON, "-c", code)
