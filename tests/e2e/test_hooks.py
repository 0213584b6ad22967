"""HTTP hooks and the administrator's Sieve scripts, at every stage; and what the operator sees of filters."""

import base64
import contextlib
import http.server
import json
import re
import smtplib
import ssl
import subprocess
import threading
import time

import pytest

from suite import Suite, body_of, free_port, message, wait_for

ALICE = "alice@example.test"
BOB = "bob@example.test"
SECRET = "Bearer a-secret-of-the-hook"


class Server:
    """Answers each request by `answer(request)`: an object, or (status, octets)."""

    def __init__(self, context=None):
        self.requests = []
        self.answer = lambda request: {"action": "accept"}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(405)
                self.end_headers()

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((request, self.headers))
                answer = outer.answer(request)
                status, octets = answer if isinstance(answer, tuple) else (200, json.dumps(answer).encode())
                with contextlib.suppress(OSError):
                    pieces = [octets] if isinstance(octets, bytes) else octets
                    self.send_response(status)
                    if isinstance(octets, bytes):
                        self.send_header("Content-Length", str(len(octets)))
                    self.end_headers()
                    for piece in pieces:
                        self.wfile.write(piece)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stages(self):
        return [request["context"]["stage"] for request, _ in self.requests]

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


SCRIPTS = {
    "connect": """require ["environment", "reject", "variables"];
if environment :is "vnd.posthouse.listener" "barred" { reject "Nobody comes in here"; }
""",
    "ehlo": """require ["environment", "reject"];
if environment :contains "vnd.posthouse.helo" "spammer" { reject "Your name is known"; }
""",
    "mail": """require ["envelope", "reject", "environment", "variables"];
if envelope :domain :is "from" "bad.example" {
  if environment :matches "remote-ip" "*" { set "ip" "${1}"; }
  reject "No mail from there, ${ip}";
}
if envelope :is "from" "nothing@example.net" { discard; }
""",
    "rcpt": """require ["envelope", "ereject"];
if allof (envelope :is "to" "bob@example.test", envelope :is "from" "enemy@example.net") { ereject "Not to Bob"; }
""",
    "data": """require ["editheader", "fileinto", "copy", "reject", "mailbox", "special-use", "variables"];
addheader "X-Script" "was here";
deleteheader "X-Gone";
if header :contains "subject" "junk" { fileinto "Junk"; }
elsif header :matches "subject" "hold *" { fileinto "Hold/${1}"; }
elsif header :contains "subject" "refuse" { reject "Refused as a whole"; }
elsif header :contains "subject" "drop" { discard; }
elsif header :contains "subject" "copy" { redirect :copy "bob@example.test"; }
elsif header :contains "subject" "turn" { redirect "bob@example.test"; }
""",
}


@pytest.fixture(scope="module")
def place():
    suite = Suite()
    # Where the suite's account can read.
    folder = suite.dir / "hooks"
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    (folder / "secret").write_text(SECRET + "\n")
    for stage, script in SCRIPTS.items():
        (folder / f"{stage}.sieve").write_text(script)
    plain, secure = Server(), Server(context)
    listener = lambda name, role="mx": {"name": name, "address": f"{suite.host}:{suite.ports[name]}", "role": role, "tls": "none"}
    for name in ("barred", "secure", "sieve_mx"):
        suite.ports[name] = free_port(suite.host)
    suite.config["smtpd"]["listener"] += [listener(name) for name in ("barred", "secure", "sieve_mx")]
    suite.config["hookd"] = {
        "enabled": True,
        "client_names": False,
        "http": [
            {"name": "plain", "url": f"http://127.0.0.1:{plain.port}/hook", "listeners": ["mx", "submissions"],
             "stages": ["connect", "ehlo", "mail", "rcpt", "data"], "timeout_s": 3, "max_response_bytes": 1_000_000,
             "headers": {"X-Site": "test"}, "secret_headers": {"Authorization": folder / "secret"}},
            {"name": "secure", "url": f"https://localhost:{secure.port}/?token=hidden", "listeners": ["secure"],
             "ca_file": folder / "cert.pem", "away": "accept"},
        ],
        "sieve": [
            {"name": f"at-{stage}", "file": folder / f"{stage}.sieve", "stages": [stage], "listeners": ["sieve_mx", "barred"]}
            for stage in SCRIPTS
        ],
    }
    suite.write_config()
    suite.start()
    suite.add_domain("example.test")
    for name in (ALICE, BOB):
        suite.add_account(name)
    suite.plain, suite.secure = plain, secure
    yield suite
    suite.remove()
    plain.stop()
    secure.stop()


@pytest.fixture
def suite(place):
    for one in (place.plain, place.secure):
        one.requests.clear()
        one.answer = lambda request: {"action": "accept"}
    return place


def letter(subject, text="Hello.\r\n", to=ALICE):
    return message(f"<{time.monotonic_ns()}@example.net>", to=to, subject=subject, text=text)


def deliver(suite, raw, to=(ALICE,), sender="sender@example.net", listener="mx"):
    with contextlib.suppress(smtplib.SMTPServerDisconnected), suite.smtp(listener) as client:
        code, text = client.mail(sender)
        if code != 250:
            return code, text
        replies = [client.rcpt(one) for one in to]
        if not any(code == 250 for code, _ in replies):
            return replies[-1]
        return client.data(raw)


def newest(suite, user, raw, mailbox="INBOX"):
    mark = re.search(rb"Message-ID: (\S+)", raw).group(1)

    def found():
        with contextlib.suppress(AssertionError):
            return [one for one in suite.messages(user, mailbox) if mark in one]
        return None

    return wait_for(found, lambda: f"{mark} for {user} in {mailbox}\n{suite.tail()}", 20, 0.1)[0]


def only_when(stage, answer):
    return lambda request: answer if request["context"]["stage"] == stage else {"action": "accept"}


def test_what_a_hook_is_sent(suite):
    raw = letter("sent")
    assert deliver(suite, raw)[0] == 250
    assert suite.plain.stages() == ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"]
    request, fields = suite.plain.requests[-1]
    assert fields["Authorization"] == SECRET and fields["X-Site"] == "test"
    context = request["context"]
    assert context["client"]["ip"] == "127.0.0.1" and context["client"]["helo"] == "client.example.net"
    assert context["server"]["port"] == suite.ports["mx"] and context["server"]["listener"] == "mx"
    assert context["queue"]["id"].encode() in newest(suite, ALICE, raw)
    assert "sasl" not in context and "tls" not in context
    assert request["envelope"]["from"]["address"] == "sender@example.net"
    assert [to["address"] for to in request["envelope"]["to"]] == [ALICE]
    headers = dict(request["message"]["headers"])
    assert headers["Subject"].strip() == "sent" and request["message"]["contents"] == "Hello.\r\n"
    assert SECRET.split()[1] not in suite.log.read_text()
    with suite.submission(ALICE) as client:
        client.sendmail(ALICE, [BOB], letter("login").replace(b"sender@example.net", ALICE.encode()), ["BODY=8BITMIME"])
    context = suite.plain.requests[-1][0]["context"]
    assert context["sasl"]["login"] == ALICE and context["tls"]["version"] == "TLSv1.3"
    assert suite.plain.requests[-1][0]["envelope"]["from"]["parameters"]["body"] == "8BITMIME"


def test_octets_that_are_no_text(suite):
    raw = letter("octets") + b"\xff\xfe\r\n"
    assert deliver(suite, raw)[0] == 250
    sent = suite.plain.requests[-1][0]["message"]
    assert sent["encoding"] == "base64" and base64.b64decode(sent["contents"]) == b"Hello.\r\n\xff\xfe\r\n"


def test_every_modification(suite):
    raw = letter("changed").replace(b"\r\nDate:", b"\r\nX-Gone: 1\r\nX-Two: a\r\nX-Two: b\r\nDate:")
    suite.plain.answer = only_when("DATA", {"action": "quarantine", "modifications": [
        {"type": "addHeader", "name": "X-Last", "value": "1"},
        {"type": "insertHeader", "index": 0, "name": "X-First", "value": "2"},
        {"type": "changeHeader", "index": 2, "name": "X-Two", "value": "c"},
        {"type": "deleteHeader", "index": 1, "name": "X-Gone"},
        {"type": "changeFrom", "value": "new@example.net"},
        {"type": "addRecipient", "value": BOB, "parameters": {"notify": "NEVER"}},
        {"type": "deleteRecipient", "value": ALICE},
        {"type": "replaceContents", "value": "new\r\n"},
    ]})
    assert deliver(suite, raw)[0] == 250
    copy = newest(suite, BOB, raw, "Junk")
    head = copy.partition(b"\r\n\r\n")[0]
    assert body_of(copy) == b"new\r\n" and head.endswith(b"X-Last: 1")
    assert head.index(b"Received:") < head.index(b"X-First: 2") < head.index(b"From:")
    assert b"X-Two: a\r\nX-Two: c\r\n" in head and b"X-Gone" not in head and b"Return-Path: <new@example.net>" in head
    mark = re.search(rb"Message-ID: (\S+)", raw).group(1)
    suite.wait_queue_empty()
    assert not any(mark in one for one in suite.messages(ALICE))


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"])
def test_a_hook_refuses(suite, stage):
    suite.plain.answer = only_when(stage, {"action": "reject", "response": {
        "status": 554, "enhancedStatus": "5.7.8", "message": "Not with us", "disconnect": stage == "DATA"}})
    if stage == "CONNECT":
        with pytest.raises(smtplib.SMTPConnectError) as refused:
            suite.smtp()
        got = refused.value.smtp_code, refused.value.smtp_error
    elif stage == "EHLO":
        client = smtplib.SMTP(*suite.address("mx"))
        got = client.ehlo("x.example.net")
        client.close()
    else:
        got = deliver(suite, letter("no"))
    assert got == (554, b"5.7.8 Not with us")


def test_a_hook_discards(suite):
    suite.plain.answer = only_when("DATA", {"action": "discard"})
    raw = letter("discarded")
    assert deliver(suite, raw)[0] == 250
    suite.wait_queue_empty()
    assert not any(b"discarded" in one for one in suite.messages(ALICE))


@pytest.mark.parametrize("answer", [
    (500, b"oops"), (200, b"no JSON"), (200, b"[]"), (200, b'{"action": "perhaps"}'), (302, b""),
    (200, (b" " * 100_000 for _ in range(10_000))),
    {"action": "reject", "response": {"status": 250}},
    {"action": "accept", "modifications": [{"type": "unknown"}]},
], ids=str)
def test_answers_that_are_none(suite, answer):
    suite.plain.answer = only_when("DATA", answer)
    assert deliver(suite, letter("none"))[0] == 451


def test_a_slow_hook_and_one_that_is_away(suite):
    hold = threading.Event()
    suite.plain.answer = lambda request: hold.wait(20) and {"action": "accept"}
    with pytest.raises(smtplib.SMTPConnectError) as refused:
        suite.smtp()
    assert refused.value.smtp_code == 421
    hold.set()


def test_https_with_an_authority_of_its_own(suite):
    suite.secure.answer = lambda request: {"action": "accept", "modifications": [{"type": "addHeader", "name": "X-Secure", "value": "1"}]}
    raw = letter("secure")
    assert deliver(suite, raw, listener="secure")[0] == 250
    assert b"X-Secure: 1" in newest(suite, ALICE, raw) and suite.secure.stages() == ["DATA"], suite.tail()
    # away = "accept"
    suite.secure.answer = lambda request: (500, b"")
    raw = letter("accepted all the same")
    assert deliver(suite, raw, listener="secure")[0] == 250
    newest(suite, ALICE, raw)


def test_scripts_at_every_stage(suite):
    with pytest.raises(smtplib.SMTPConnectError) as refused:
        suite.smtp("barred")
    assert refused.value.smtp_code == 554 and b"Nobody comes in here" in refused.value.smtp_error
    client = smtplib.SMTP(*suite.address("sieve_mx"))
    code, text = client.ehlo("spammer.example.net")
    assert code == 550 and b"Your name is known" in text
    assert client.ehlo("client.example.net")[0] == 250
    assert client.mail("x@bad.example") == (550, b"5.7.1 No mail from there, 127.0.0.1")
    assert client.mail("enemy@example.net")[0] == 250
    assert client.rcpt(BOB) == (550, b"5.7.1 Not to Bob")
    assert client.rcpt(ALICE)[0] == 250
    client.quit()
    raw = letter("nothing")
    assert deliver(suite, raw, sender="nothing@example.net", listener="sieve_mx")[0] == 250
    suite.wait_queue_empty()
    mark = re.search(rb"Message-ID: (\S+)", raw).group(1)
    assert not any(mark in one for one in suite.messages(ALICE))


def test_scripts_change_messages(suite):
    raw = letter("plain").replace(b"\r\nDate:", b"\r\nX-Gone: 1\r\nDate:")
    assert deliver(suite, raw, listener="sieve_mx")[0] == 250
    copy = newest(suite, ALICE, raw)
    assert b"X-Script: was here\r\n" in copy and b"X-Gone" not in copy and body_of(copy) == b"Hello.\r\n"
    raw = letter("this is junk")
    assert deliver(suite, raw, listener="sieve_mx")[0] == 250
    newest(suite, ALICE, raw, "Junk")
    assert deliver(suite, letter("refuse me"), listener="sieve_mx") == (550, b"5.7.1 Refused as a whole")
    raw = letter("drop me")
    assert deliver(suite, raw, listener="sieve_mx")[0] == 250
    both = letter("copy me")
    assert deliver(suite, both, listener="sieve_mx")[0] == 250
    newest(suite, ALICE, both), newest(suite, BOB, both)
    turned = letter("turn me")
    assert deliver(suite, turned, listener="sieve_mx")[0] == 250
    newest(suite, BOB, turned)
    suite.wait_queue_empty()
    for gone in (raw, turned):
        mark = re.search(rb"Message-ID: (\S+)", gone).group(1)
        assert not any(mark in one for one in suite.messages(ALICE))


def held(suite, raw, by, reason):
    """The message is held for that, and arrives when it is released."""
    entry = wait_for(suite.queue, lambda: suite.tail())[0]
    assert (entry["state"], entry["held_by"], entry["held_for"]) == ("held", by, reason)
    suite.run("queue", "release", entry["id"])
    newest(suite, ALICE, raw)
    suite.wait_queue_empty()


def test_answers_and_scripts_can_hold(suite):
    suite.plain.answer = only_when("DATA", {"action": "hold", "response": {"message": "look\r\nat it"},
                                            "modifications": [{"type": "addRecipient", "value": BOB}]})
    raw = letter("held by a hook")
    assert deliver(suite, raw)[0] == 250
    held(suite, raw, "plain", "look  at it")
    newest(suite, BOB, raw)
    raw = letter("hold a case for the operator")
    assert deliver(suite, raw, listener="sieve_mx")[0] == 250
    held(suite, raw, "at-data", "a case for the operator")
    tested = suite.json("hook", "test", "--listener", "sieve_mx", "--client", "192.0.2.1", "--recipient", ALICE, stdin=letter("hold x"))
    assert tested["held"] == "at-data: x" and tested["quarantine"] is None


def test_what_the_operator_sees(suite):
    rows = {row["name"]: row for row in suite.json("hook", "list", "--probe")}
    assert rows["plain"]["answers"].startswith("answers 405") and rows["plain"]["kind"] == "http"
    assert "hidden" not in str(rows["secure"]) and rows["at-data"]["kind"] == "sieve"
    suite.plain.answer = only_when("DATA", {"action": "accept", "modifications": [{"type": "addHeader", "name": "X-Last", "value": "1"}]})
    tested = suite.json("hook", "test", "--listener", "mx", "--client", "192.0.2.1", "--recipient", ALICE, stdin=letter("tested"))
    assert tested["stage"] == "data" and "X-Last: 1" in tested["header"] and tested["verdict"] == "accept"
    assert suite.queue() == []
    refused = suite.json("hook", "test", "--listener", "sieve_mx", "--client", "192.0.2.1", "--sender", "x@bad.example", stdin=letter("no"))
    assert refused["stage"] == "mail" and refused["code"] == 550
    found = suite.run("--json", "check", "--offline", check=False).stdout
    findings = [row for row in json.loads(found) if row["area"] == "filters"]
    assert findings and all(row["grade"] == "fine" for row in findings), findings


@pytest.mark.parametrize("section, words", [
    ({"milter": [{"name": "x", "address": "nowhere"}]}, "neither host:port"),
    ({"milter": [{"name": "x", "address": "a:1"}], "http": [{"name": "x", "url": "http://a"}]}, "two filters named"),
    ({"milter": [{"name": "x", "address": "a:1", "listeners": ["none"]}]}, "which smtpd does not have"),
    ({"http": [{"name": "x", "url": "ftp://a"}]}, "begins with https"),
    ({"sieve": [{"name": "x"}]}, "needs file and stages"),
    ({"milter": [{"name": "a b", "address": "a:1"}]}, "letters, digits"),
    ({"milter": [{"name": "a" * 65, "address": "a:1"}]}, "longer than 64"),
    ({"http": [{"name": "x", "url": "http://a", "quarantine": "drop"}]}, "unknown variant"),
])
def test_configurations_that_make_no_sense(make_suite, section, words):
    suite = make_suite(start=False, config={"hookd": {"enabled": True, **section}})
    result = suite.run("config", "check", check=False)
    assert result.returncode != 0 and words in result.stderr + result.stdout
