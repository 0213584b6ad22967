"""httpd: MTA-STS policies over HTTP/1.1 and HTTP/2, challenges for certd, and clients that want it to stop: slow ones, many ones, odd ones."""

import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from authority import DynamicKnot, Pebble, open_folder
from exchangers import Authority
from servers import Knot, zone
from suite import Suite, free_port, message, wait_for

PATH = "/.well-known/mta-sts.txt"
HOST = "mail.example.test"


def settings(https, http=0, **more):
    return {"httpd": {"enabled": True, "https_address": f"127.0.0.1:{https}", "http_address": f"127.0.0.1:{http}" if http else "", **more}}


class Front:
    """A suite with httpd, and certificates for its hosts by an authority that curl trusts."""

    def __init__(self, names, config=None, **limits):
        self.folder = open_folder()
        self.ca = Authority(self.folder, "ca")
        self.https, self.http = free_port(), free_port()
        files = self.ca.host(HOST, *names).files(self.folder, "front")
        self.suite = Suite(config={**settings(self.https, self.http, **limits), "keyd": {"certificate": [files]}, **(config or {})}).start()

    def curl(self, host, path=PATH, *options, scheme="https"):
        """Status, fields and body."""
        port = self.https if scheme == "https" else self.http
        result = subprocess.run(
            ["curl", "-sS", "-i", "--max-time", "20", "--cacert", self.ca.file, "--connect-to", f"{host}::127.0.0.1:{port}", *options,
             f"{scheme}://{host}{path}"], capture_output=True, timeout=60)
        assert result.returncode == 0, result.stderr
        head, _, body = result.stdout.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        return int(first.split()[1]), fields, body

    def tls(self, name=HOST, protocols=("http/1.1",)):
        context = ssl.create_default_context(cafile=self.ca.file)
        context.set_alpn_protocols(list(protocols))
        plain = socket.create_connection(("127.0.0.1", self.https), timeout=30)
        return context.wrap_socket(plain, server_hostname=name)

    def figure(self, name):
        found = re.search(rf"^posthouse_{re.escape(name)} (\d+)", self.suite.run("metrics").stdout, re.M)
        return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def front():
    made = Front(
        ["mta-sts.one.example", "mta-sts.two.example", "mta-sts.off.example", "mta-sts.none.example", "one.example", "autoconfig.one.example",
         "autoconfig.two.example"],
        {"dns": {"mta_sts": "enforce", "mta_sts_max_age": 86400, "autoconfig": HOST, "domain": {
            '"two.example"': {"mta_sts": "testing", "autoconfig": "", "mx": ["10 mx.elsewhere.example", "20 mail.example.test"]},
            '"off.example"': {"mta_sts": "off"}, '"none.example"': {"mta_sts": "none"}}}},
        connections_per_address=0)
    yield made
    made.suite.remove()


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
def test_the_policy_is_what_the_record_announces(front, version):
    status, fields, body = front.curl("mta-sts.one.example", PATH, version)
    assert status == 200 and fields["content-type"].startswith("text/plain"), fields
    assert body == b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.test\r\nmax_age: 86400\r\n"
    assert fields["content-length"] == str(len(body)) and fields["x-content-type-options"] == "nosniff", fields
    assert fields["strict-transport-security"] == "max-age=31536000" and "server" not in fields, fields
    _, _, other = front.curl("mta-sts.two.example", PATH, version)
    assert other == (b"version: STSv1\r\nmode: testing\r\nmx: mx.elsewhere.example\r\nmx: mail.example.test\r\nmax_age: 86400\r\n")
    assert b"mode: none" in front.curl("mta-sts.none.example", PATH, version)[2]
    # The id stands for the text: RFC 8461 3.1.
    import hashlib
    for domain, text in (("one.example", body), ("two.example", other)):
        shown = next(row["data"] for row in front.suite.json("dns", "show", domain) if row["name"] == f"_mta-sts.{domain}")
        assert f"id={hashlib.sha256(text).hexdigest()[:20]}" in shown, shown


def test_other_hosts_paths_and_methods_get_nothing(front):
    one = "mta-sts.one.example"
    assert front.curl(one, PATH, "-I")[0] == 200
    assert front.curl(one, PATH + "?a=b")[0] == 200
    assert front.curl(one, "/")[0] == 404
    assert front.curl(one, PATH + "/")[0] == 404
    assert front.curl(one, "/.well-known/MTA-STS.txt")[0] == 404
    assert front.curl(HOST)[0] == 404
    assert front.curl("mta-sts.off.example")[0] == 404
    status, fields, _ = front.curl(one, PATH, "-d", "x=y")
    assert status == 405 and fields["allow"] == "GET, HEAD"
    for version in ("--http1.1", "--http2"):
        assert front.curl(one, PATH, version, "-H", "Host: mta-sts.elsewhere.example")[0] == 421
        # Whose certificate it is does not matter, which host it is for does.
        assert front.curl(HOST, PATH, version, "-H", f"Host: {one}")[0] == 200
    assert front.curl(one, PATH, "--http1.1", "-H", "Host: a b")[0] == 400
    assert front.curl(one, PATH, "--http1.1", "-H", "Host:")[0] == 400


def test_port_80_leads_to_https_and_nowhere_else(front):
    status, fields, _ = front.curl("mta-sts.one.example", "/a?b=c", scheme="http")
    assert status == 308 and fields["location"] == "https://mta-sts.one.example/a?b=c", fields
    assert "strict-transport-security" not in fields
    assert front.curl("evil.example", "/", scheme="http")[0] == 421
    assert front.curl("mta-sts.one.example", "/.well-known/acme-challenge/unknown", scheme="http")[0] == 404


def test_a_new_policy_has_a_new_id_without_a_restart(front):
    record = lambda: next(row["data"] for row in front.suite.json("dns", "show", "one.example") if row["name"] == "_mta-sts.one.example")
    before, pids = record(), front.suite.pids()
    front.suite.config["dns"]["mta_sts_max_age"] = 90000
    front.suite.write_config()
    front.suite.run("reload")
    wait_for(lambda: b"max_age: 90000" in front.curl("mta-sts.one.example")[2], front.suite.tail)
    assert record() != before and front.suite.pids() == pids
    front.suite.config["dns"]["mta_sts_max_age"] = 86400
    front.suite.write_config()
    front.suite.run("reload")
    wait_for(lambda: b"max_age: 86400" in front.curl("mta-sts.one.example")[2], front.suite.tail)


def test_requests_are_logged_with_a_trace_and_counted(front):
    front.curl("mta-sts.one.example", PATH + "?who=somebody@example.org")
    line = wait_for(lambda: [line for line in front.suite.log.read_text().splitlines() if "request" in line and PATH in line], "a line")[-1]
    assert re.search(r"trace=[0-9A-Z]{13}", line) and "status=200" in line and "somebody" not in line, line
    assert front.figure('httpd_requests_total{route="policy",status="2xx"}') > 0


def test_openssl_agrees_on_versions_and_protocols(front):
    def client(*options):
        return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{front.https}", "-CAfile", front.ca.file, "-servername",
                               "mta-sts.one.example", "-verify_hostname", "mta-sts.one.example", "-verify_return_error", *options],
                              input="", capture_output=True, text=True, errors="replace", timeout=30)
    for version in ("-tls1_2", "-tls1_3"):
        done = client(version, "-alpn", "h2,http/1.1")
        assert done.returncode == 0 and "ALPN protocol: h2" in done.stdout, done.stdout
    assert "ALPN protocol: http/1.1" in client("-alpn", "http/1.1").stdout
    assert client("-tls1_1", "-cipher", "ALL@SECLEVEL=0").returncode != 0


def test_many_requests_at_once(front):
    """h2load over HTTP/1.1 and 2: connections end after `requests`, and the client makes others."""
    if not shutil.which("h2load"):
        pytest.skip("h2load is not installed (tests/setup)")
    for options in ([], ["--h1"]):
        done = subprocess.run(
            ["h2load", "-n", "2000", "-c", "20", "-m", "8", *options, "--connect-to", f"127.0.0.1:{front.https}",
             f"https://mta-sts.one.example{PATH}"], capture_output=True, text=True, timeout=120)
        assert "2000 succeeded, 0 failed" in done.stdout or "2000 2xx" in done.stdout, done.stdout
    wait_for(lambda: front.figure("httpd_connections") == 0, "all connections are closed")


# --- mail programs

QUESTION = """<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"><Request>
<EMailAddress>jane@{domain}</EMailAddress>
<AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a</AcceptableResponseSchema>
</Request></Autodiscover>"""


def servers_by_srv(suite, domain):
    """What the SRV records say: port by name."""
    rows = [row for row in suite.json("dns", "show", domain) if row["type"] == "SRV" and not row["data"].startswith("0 0 0 ")]
    return {row["name"].split(".")[0]: int(row["data"].split()[2]) for row in rows}


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_mail_programs_are_told_what_the_srv_records_say(front, version):
    import xml.etree.ElementTree as xml
    srv = servers_by_srv(front.suite, "one.example")
    for host, path in (("autoconfig.one.example", "/mail/config-v1.1.xml?emailaddress=jane@one.example"),
                       ("one.example", "/.well-known/autoconfig/mail/config-v1.1.xml")):
        status, fields, body = front.curl(host, path, version)
        assert status == 200 and fields["content-type"].startswith("application/xml"), (status, fields)
        provider = xml.fromstring(body).find("emailProvider")
        assert provider.get("id") == provider.find("domain").text == "one.example"
        found = {(one.get("type"), one.find("socketType").text): int(one.find("port").text) for one in provider if one.find("port") is not None}
        assert found == {("imap", "SSL"): srv["_imaps"], ("imap", "STARTTLS"): srv["_imap"], ("pop3", "SSL"): srv["_pop3s"],
                         ("pop3", "STARTTLS"): srv["_pop3"], ("smtp", "SSL"): srv["_submissions"], ("smtp", "STARTTLS"): srv["_submission"]}
        assert {one.text for one in provider.iter("hostname")} == {HOST}
    at = "/autodiscover/autodiscover.xml"
    status, _, body = front.curl(HOST, at, version, "-H", "Content-Type: text/xml", "-d", QUESTION.format(domain="one.example"))
    assert status == 200, body
    schema = "{http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a}"
    protocols = list(xml.fromstring(body).iter(f"{schema}Protocol"))
    assert {one.find(f"{schema}LoginName").text for one in protocols} == {"jane@one.example"}
    assert int(protocols[0].find(f"{schema}Port").text) == srv["_imaps"]
    # Another domain's programs are not ours to tell; what is no question, or too long, gets no answer.
    assert front.curl(HOST, at, version, "-d", QUESTION.format(domain="two.example"))[0] == 404
    assert front.curl(HOST, at, version, "-d", "x=y")[0] == 400
    assert front.curl(HOST, at, version, "-d", "x" * 20000)[0] == 413
    status, fields, _ = front.curl(HOST, at, version)
    assert status == 405 and fields["allow"] == "POST"
    assert front.curl("autoconfig.two.example", "/mail/config-v1.1.xml", version)[0] == 404


# --- limits

@pytest.fixture(scope="module")
def strict():
    made = Front(["mta-sts.one.example"], {"dns": {"mta_sts": "enforce"}}, connections=8, connections_per_address=5, handshake_s=1,
                 header_s=1, idle_s=2, connection_s=4, requests=3, resets=4)
    yield made
    made.suite.remove()


def closed(connection, seconds=15):
    """Waits for the other side to close; what it said."""
    connection.settimeout(seconds)
    said = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := connection.recv(4096):
            said += piece
    return said


def test_who_says_nothing_or_too_slowly_is_sent_away(strict):
    silent = socket.create_connection(("127.0.0.1", strict.https))
    began = time.monotonic()
    closed(silent)
    assert time.monotonic() - began < 5, "no handshake"
    for wire in (socket.create_connection(("127.0.0.1", strict.http)), strict.tls()):
        with wire:
            began = time.monotonic()
            with contextlib.suppress(OSError):
                for octet in b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 200:
                    wire.sendall(bytes([octet]))
                    time.sleep(0.05)
            closed(wire)
            assert time.monotonic() - began < 6, "a slow header"
    with strict.tls(protocols=["h2"]) as wire:
        began = time.monotonic()
        wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        closed(wire)
        assert time.monotonic() - began < 10, "no request over HTTP/2"


def ask(wire, more=b"", host=b"mta-sts.one.example"):
    wire.sendall(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: " + host + b"\r\n" + more + b"\r\n")


def test_a_connection_has_so_many_requests_and_a_longest_life(strict):
    with strict.tls() as wire:
        for _ in range(3):
            ask(wire)
        said = closed(wire)
        assert said.count(b"HTTP/1.1 200") == 3, said
    with strict.tls() as wire:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for _ in range(2):
                ask(wire)
                assert b"200 OK" in wire.recv(4096)
        closed(wire)
        assert time.monotonic() - began < 8, "idle"


def test_large_headers_are_refused(strict):
    with strict.tls() as wire:
        with contextlib.suppress(OSError):
            ask(wire, b"X: " + b"a" * 100_000 + b"\r\n")
        assert b" 431 " in closed(wire)
    with strict.tls() as wire:
        with contextlib.suppress(OSError):
            ask(wire, b"".join(b"X-%d: a\r\n" % n for n in range(500)))
        assert b" 431 " in closed(wire)


def test_one_address_and_all_together_have_so_many_connections(strict):
    wait_for(lambda: strict.figure("httpd_connections") == 0, "the others are gone")
    held = [socket.create_connection(("127.0.0.1", strict.http)) for _ in range(5)]
    wait_for(lambda: strict.figure("httpd_connections") == 5, "five connections")
    refused = socket.create_connection(("127.0.0.1", strict.http))
    assert closed(refused) == b""
    other = [socket.create_connection(("127.0.0.1", strict.http), source_address=("127.0.0.2", 0)) for _ in range(3)]
    wait_for(lambda: strict.figure("httpd_connections") == 8, "three more from elsewhere")
    assert closed(socket.create_connection(("127.0.0.1", strict.http), source_address=("127.0.0.3", 0))) == b""
    assert strict.figure("httpd_connections_refused_total") >= 2
    for one in held + other:
        one.close()
    wait_for(lambda: strict.figure("httpd_connections") == 0, "all are gone")
    assert strict.curl("mta-sts.one.example")[0] == 200


def test_streams_that_are_taken_back_at_once_end_the_connection(front):
    """CVE-2023-44487: HEADERS and RST_STREAM, over and over."""
    frame = lambda kind, flags, stream, body=b"": len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
    # HPACK: :method GET, :path /, :scheme https from the static table, :authority as a literal.
    authority = b"mta-sts.one.example"
    header = b"\x82\x84\x87\x41" + bytes([len(authority)]) + authority
    with front.tls(protocols=["h2"]) as wire:
        octets = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
        for number in range(1, 400, 2):
            octets += frame(1, 0x5, number, header) + frame(3, 0, number, (8).to_bytes(4, "big"))
        with contextlib.suppress(OSError):
            wire.sendall(octets)
        said = closed(wire)
    frames = []
    while len(said) >= 9:
        length = int.from_bytes(said[:3], "big")
        frames.append((said[3], said[9:9 + length]))
        said = said[9 + length:]
    # GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 7); far from all streams were answered.
    assert [body[4:8] for kind, body in frames if kind == 7][-1] == (11).to_bytes(4, "big"), frames
    assert sum(kind == 1 for kind, _ in frames) < 100, frames
    assert front.curl("mta-sts.one.example")[0] == 200


# --- with certd

@pytest.fixture
def world():
    made = []

    def keep(server):
        made.append(server)
        return server

    yield keep
    for server in reversed(made):
        server.remove()


def test_certificates_come_through_httpd_and_so_do_those_for_policies(make_suite, world):
    """certd answers HTTP-01 through httpd; a new domain with a policy gets its certificate by itself, and one that leads elsewhere is in
    nobody's way."""
    hosts = ["mail A 127.0.0.1", "mta-sts A 127.0.0.1"]
    knot = world(DynamicKnot({"example.test": zone("example.test", hosts), "second.test": zone("second.test", ["mta-sts A 127.0.0.1"]),
                              "astray.test": zone("astray.test", [])}))
    https, http = free_port(), free_port()
    pebble = world(Pebble(knot.port, http=http))
    pebble.start()
    suite = make_suite(start=False, config={
        **settings(https, http), "dns": {"mta_sts": "enforce"},
        "certd": {"enabled": True, "directory": pebble.directory, "directory_ca_file": pebble.dir / "ca.pem", "retry_min": 1, "retry_max": 2,
                  "order_timeout": 10}})
    suite.start()
    rows = lambda: {row["id"]: row["state"] for row in suite.json("certificate", "list") if row.get("id")}
    wait_for(lambda: rows().get(HOST) == "good", lambda: f"{rows()}\n{suite.tail()}", 60, 0.1)
    for domain in ("astray.test", "example.test", "second.test"):
        suite.add_domain(domain)
    # It looks by itself every five minutes; an operator need not wait.
    for domain in ("example.test", "second.test"):
        suite.run("certificate", "order", f"mta-sts.{domain}")
    assert rows()["mta-sts.example.test"] == rows()["mta-sts.second.test"] == "good", rows()
    wait_for(lambda: rows().get("mta-sts.astray.test") == "failed", lambda: f"{rows()}\n{suite.tail()}", 60, 0.1)
    roots = open_folder() / "roots.pem"
    roots.write_text(pebble.root())
    for domain in ("example.test", "second.test"):
        name = f"mta-sts.{domain}"
        body = wait_for(lambda: subprocess.run(
            ["curl", "-sSf", "--cacert", roots, "--connect-to", f"{name}::127.0.0.1:{https}", f"https://{name}{PATH}"],
            capture_output=True, text=True).stdout, suite.tail)
        assert "mode: enforce" in body and "mx: mail.example.test" in body, body
    # A domain that goes takes its certificate along.
    suite.run("domain", "remove", "astray.test")
    suite.run("certificate", "renew", HOST)
    suite.kill("certd")
    suite.wait_up()
    wait_for(lambda: "mta-sts.astray.test" not in rows(), lambda: f"{rows()}", 30)
    assert json.loads(json.dumps(rows()))["mta-sts.second.test"] == "good"


# --- from one suite to another

def test_one_suite_keeps_to_the_policy_of_another(make_suite, world):
    """relayd reads from DNS what `posthouse dns show` prints, and from httpd what it serves; a certificate that does not fit then keeps mail
    from going."""
    folder = open_folder()
    ca, stranger = Authority(folder, "ca"), Authority(folder, "stranger")
    https, port = free_port(), free_port()
    hosts = ["mail.there.example", "mta-sts.there.example"]
    files = ca.host(*hosts).files(folder, "there")
    there = make_suite(ports={"mx": port}, config={
        **settings(https), "suite": {"hostname": "mail.there.example"}, "keyd": {"certificate": [files]},
        "dns": {"mta_sts": "enforce", "addresses": ["127.0.0.1"], "tlsa": False}})
    there.add_domain("there.example")
    there.add_account("you@there.example")
    knot = world(Knot({"there.example": zone("there.example", [there.run("dns", "show", "there.example").stdout])}))
    here = make_suite(config={"relayd": {
        "port": port, "nameservers": [f"127.0.0.1:{knot.port}"], "tls_ca_file": ca.file, "idle_timeout": 0, "dkim": False,
        "tls": {"mta_sts_port": https}}})
    here.add_domain("here.example")
    here.add_account("me@here.example")
    found = json.loads(here.run("--json", "tls", "there.example", "--connect").stdout)
    assert found["mta_sts"].startswith("enforce") and found["hosts"][0]["demand"] == "names", found

    def send(number):
        with here.submission("me@here.example") as client:
            client.sendmail("me@here.example", ["you@there.example"], message(f"<{number}@here.example>", to="you@there.example", sender="me@here.example"))

    send(1)
    here.wait_queue_empty()
    assert re.search(r"TLSv1\.3 verified", here.log.read_text()), here.tail()
    # Somebody with a certificate of their own is in the place of the exchanger; the policy stays.
    cert = stranger.host(*hosts)
    for path, octets in zip(files.values(), cert.pem):
        path.write_bytes(octets)
    there.run("reload")
    send(2)
    row = wait_for(lambda: next((row for row in here.queue() if row.get("last_error") or row.get("recipients")), None), here.tail)
    wait_for(lambda: "certificate-not-trusted" in here.log.read_text(), lambda: f"{row}\n{here.tail()}")
    assert here.queue(), "it waits"


def test_check_says_what_is_missing(make_suite, front):
    front.suite.add_domain("one.example")
    front.suite.add_domain("bare.example")
    found = lambda suite: [line for line in suite.run("check", "--offline", check=False).stdout.splitlines() if "mta-sts" in line]
    (missing,) = [line for line in found(front.suite) if line.startswith("error")]
    assert "mta-sts.bare.example" in missing and "mta-sts.one.example" not in missing, missing
    assert any(line.startswith("warning") and "port 443" in line for line in found(front.suite))
    front.suite.run("domain", "remove", "bare.example")
    assert any(line.startswith("fine") for line in found(front.suite)), found(front.suite)
    suite = make_suite(config={"dns": {"mta_sts": "testing"}})
    suite.add_domain("example.test")
    (off,) = found(suite)
    assert off.startswith("error") and "httpd.enabled" in off, off
    # Another web server serves it.
    suite.config["dns"]["mta_sts_host"] = "www.example.test"
    suite.write_config()
    assert found(suite) == []
