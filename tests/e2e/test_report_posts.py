"""Reports on TLS that are posted to `https:` addresses (RFC 8460 5.4), and reportd's database on other people's servers. Who receives is a
server of its own, in Python; what it got is read by parsedmarc."""

import email
import gzip
import json
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from authority import open_folder
from exchangers import Authority, Exchanger
from receivers import Receiver, flood, opened
from servers import Knot, MariaDb, Postgres, zone
from suite import Suite, free_port, message, wait_for

USER = "me@us.example"
KILLED = [f"killed{number}" for number in range(6)]
# Each is a domain of its own, and posts to a path of its own.
NAMES = ["plain", "created", "missing", "gone", "busy", "redirect", "certificate", "silent", "flood", "header", "inside", "literal", "both",
         "many", "excluded", *KILLED]


def parsedmarc(text):
    """What parsedmarc makes of it. It has a place of its own (tests/setup)."""
    python = Path(__file__).resolve().parents[2] / "target/venv-parsedmarc/bin/python"
    if not python.exists():
        pytest.skip("parsedmarc is not there: tests/setup brings it")
    code = "import json, sys, parsedmarc\nprint(json.dumps(parsedmarc.parse_smtp_tls_report_json(sys.stdin.read()), default=str))"
    done = subprocess.run([python, "-c", code], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Place:
    """A suite, domains whose exchanger takes everything, and the servers that they want reports at."""

    def __init__(self, names=NAMES, config=None):
        self.ca, self.port = Authority(open_folder(), "ca"), free_port()
        hosts = [f"{what}.{name}.example" for name in names for what in ("mx", "rua")]
        self.good = self.ca.host(*hosts)
        self.exchanger = Exchanger("127.0.0.1", self.port, self.good)
        self.receiver = Receiver("127.0.0.1", 0, self.good)
        self.stranger = Receiver("127.0.0.1", 0, self.ca.host("elsewhere.example"))
        self.inside = Receiver("127.0.0.2", 0, self.good)
        # It takes connections, and says nothing.
        self.silent = socket.create_server(("127.0.0.1", 0), backlog=50)
        zones = {f"{name}.example": zone(f"{name}.example", self.records(name)) for name in names}
        self.names = Knot(zones)
        at = [f"127.0.0.1:{self.names.port}"]
        self.suite = Suite(config={
            "reportd": {"enabled": True, "from": "reports@us.example",
                        "send": {"post_retry": 1, "max_destinations": 2, "exclude": ["excluded.example"]}, **(config or {})},
            "smtpd": {"checks": {"nameservers": at, "limits": {"dns_timeout": 1, "timeout": 5}}},
            "relayd": {"port": self.port, "nameservers": at, "tls_ca_file": self.ca.file, "idle_timeout": 0, "dkim": False,
                       "tls": {"dnssec": "off"}, "post": {"timeout": 2, "networks": ["127.0.0.1/32"]}},
        }).start()
        self.suite.add_domain("us.example")
        self.suite.add_account(USER)

    def records(self, name):
        server = {"certificate": self.stranger, "inside": self.inside}.get(name, self.receiver)
        port = self.silent.getsockname()[1] if name == "silent" else server.port
        rua = f"https://rua.{name}.example:{port}/{name}"
        rua = {
            "both": f"mailto:tls@both.example,{rua}",
            "many": ",".join(f"{rua}{number}" for number in range(4)),
            "literal": f"https://127.0.0.2:{self.inside.port}/literal",
        }.get(name, rua)
        address = "127.0.0.2" if name == "inside" else "127.0.0.1"
        return ["@ MX 10 mx", "mx A 127.0.0.1", f"rua A {address}", f'_smtp._tls TXT "v=TLSRPTv1; rua={rua}"']

    def mail(self, name):
        """A session that is reported."""
        to = f"you@{name}.example"
        with self.suite.submission(USER) as client:
            client.sendmail(USER, [to], message(f"<{name}.{time.monotonic_ns()}@us.example>", to=to, sender=USER))

    def rows(self, name, *states):
        return [row for row in self.suite.json("report", "pending") if row["domain"] == f"{name}.example" and (not states or row["state"] in states)]

    def why(self):
        return f"{self.suite.json('report', 'pending')}\n{self.suite.tail(80)}"

    def gathered(self, name):
        return wait_for(lambda: self.rows(name, "gathering"), self.why)[-1]

    def report(self, name):
        """Makes a report of the domain due, after a session with it."""
        self.mail(name)
        self.gathered(name)
        assert self.suite.json("report", "send", "--domain", f"{name}.example") == {"reports": 1}

    def ended(self, name, state, seconds=30):
        return wait_for(lambda: self.rows(name, state), self.why, seconds, 0.1)[-1]

    def remove(self):
        self.suite.remove()
        for server in (self.receiver, self.stranger, self.inside, self.exchanger):
            server.close()
        self.silent.close()
        self.names.remove()


@pytest.fixture(scope="module")
def place():
    made = Place()
    yield made
    made.remove()


def test_a_report_is_posted(place):
    place.receiver.answers["/plain"] = [(200, {}, b"thank you")]
    for name in ("plain", "created"):
        place.report(name)
        row = place.ended(name, "sent")
        assert row["to"] == [f"https://rua.{name}.example:{place.receiver.port}/{name}"] and row["note"] == ""
        (post,) = place.receiver.at(f"/{name}")
        report = opened(post)
        assert report["contact-info"] == "reports@us.example" and report["report-id"] == f"tls.{row['begin']}.{row['id']}@us.example"
        theirs = parsedmarc(gzip.decompress(post[2]).decode())
        assert theirs["report_id"] == report["report-id"] and theirs["organization_name"] == "us.example"
        (policy,) = theirs["policies"]
        assert policy["policy_domain"] == f"{name}.example" and policy["policy_type"] == "no-policy-found"
        assert (policy["successful_session_count"], policy["failed_session_count"]) == (1, 0)
        # One number and one trace through all three.
        log = place.suite.log.read_text()
        (trace,) = set(re.findall(rf"report posted.*report={row['id']}\b.*trace=(\S+)", log))
        assert re.search(rf"report sent.*report={row['id']}\b.*trace={trace}", log), place.suite.tail()


@pytest.mark.parametrize(("name", "code"), [("missing", 404), ("gone", 410)])
def test_who_refuses_gets_no_more(place, name, code):
    place.receiver.answers[f"/{name}"] = [(code, {}, b"nobody\r\n is   here \x1b[31m")]
    place.report(name)
    row = place.ended(name, "dropped")
    assert str(code) in row["note"] and "nobody is here [31m" in row["note"], row
    assert len(place.receiver.at(f"/{name}")) == 1
    # As with an address that returned a report.
    place.report(name)
    row = wait_for(lambda: [one for one in place.rows(name, "dropped") if "refused a report before" in one["note"]], place.why)[0]
    assert len(place.receiver.at(f"/{name}")) == 1


def test_later_is_tried_again(place):
    place.receiver.answers["/busy"] = [(503, {"Retry-After": "1"}, b"busy"), (429, {}, b""), (200, {}, b"")]
    place.report("busy")
    row = place.ended("busy", "deferred", 10)
    assert "503" in row["note"] and "busy" in row["note"] and row["due"] > time.time() - 10, row
    place.ended("busy", "sent", 60)
    first, second, third = place.receiver.at("/busy")
    assert opened(first) == opened(second) == opened(third)


def test_redirects_are_not_followed(place):
    place.receiver.answers["/redirect"] = [(307, {"Location": f"https://rua.redirect.example:{place.receiver.port}/target"}, b"")]
    place.report("redirect")
    assert "307" in place.ended("redirect", "deferred")["note"]
    assert not place.receiver.at("/target")
    assert place.suite.json("report", "cancel", "--domain", "redirect.example") == {"reports": 1}
    assert place.ended("redirect", "dropped")["note"] == "cancelled by an operator"


def test_another_certificate_is_none(place):
    place.report("certificate")
    assert "certificate" in place.ended("certificate", "deferred")["note"]
    assert not place.stranger.posts
    place.stranger.identity = place.good
    place.suite.run("report", "send", "--domain", "certificate.example")
    place.ended("certificate", "sent")
    opened(place.stranger.at("/certificate")[0])


def test_silence_holds_nobody_up(place):
    place.report("silent")
    assert place.ended("silent", "deferred")["note"] == "no answer in time"
    place.suite.run("report", "cancel", "--domain", "silent.example")


def high_water(suite, role):
    """MiB that a daemon had at once at most."""
    status = open(f"/proc/{suite.pids()[role]}/status").read()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def test_long_answers_are_not_read(place):
    had = high_water(place.suite, "relayd")
    most, bodies, headers = 200 * 1024 * 1024, [], []
    place.receiver.answers["/flood"] = flood(b"HTTP/1.1 503 No\r\n\r\n", b"overloaded " * 6000, most, bodies)
    place.receiver.answers["/header"] = flood(b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"x" * 60_000 + b"\r\n", most, headers)
    place.report("flood")
    row = place.ended("flood", "deferred")
    assert "503" in row["note"] and "overloaded" in row["note"] and len(row["note"]) < 300, row
    place.report("header")
    assert place.ended("header", "deferred")["note"]
    wait_for(lambda: bodies and headers, place.why)
    assert max(bodies + headers) < 20 * 1024 * 1024, (bodies, headers)
    assert high_water(place.suite, "relayd") < had + 20
    for name in ("flood", "header"):
        place.suite.run("report", "cancel", "--domain", f"{name}.example")


def test_what_is_not_public_is_not_connected_to(place):
    place.report("inside")
    assert "127.0.0.2 is not an address of the public internet" in place.ended("inside", "deferred")["note"]
    place.report("literal")
    assert "127.0.0.2 is not an address of the public internet" in place.ended("literal", "dropped")["note"]
    assert place.inside.connections == 0
    place.suite.run("report", "cancel", "--domain", "inside.example")


def test_each_destination_gets_it(place):
    place.report("both")
    rows = wait_for(lambda: len(place.rows("both", "sent")) == 2 and place.rows("both", "sent"), place.why)
    assert [row["to"] for row in rows] == [["tls@both.example"], [f"https://rua.both.example:{place.receiver.port}/both"]]
    mail = wait_for(lambda: [octets for octets in place.exchanger.contents if b"TLS-Report-Domain: both.example" in octets], place.why)
    (part,) = [part for part in email.message_from_bytes(mail[0]).walk() if part.get_filename()]
    (post,) = place.receiver.at("/both")
    assert gzip.decompress(part.get_payload(decode=True)) == gzip.decompress(post[2]), "the same report, with the same name"
    # No more than max_destinations; and one of them that is away is no matter of the others.
    place.receiver.answers["/many0"] = [(500, {}, b"")]
    place.report("many")
    assert place.ended("many", "sent")["to"][0].endswith("/many1")
    assert place.ended("many", "deferred")["to"][0].endswith("/many0")
    assert len(place.rows("many")) == 2 and not place.receiver.at("/many2")
    place.suite.run("report", "cancel", "--domain", "many.example")


def test_who_is_excluded_gets_none(place):
    place.mail("excluded")
    place.mail("plain")
    place.gathered("plain")
    assert not place.rows("excluded") and not place.receiver.at("/excluded")


def test_nothing_is_lost_whoever_ends(place):
    """kill -9 of relayd, reportd and queued while a server has a report and has not answered."""
    suite, receiver = place.suite, place.receiver

    def slow(handler):
        time.sleep(1)
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    for name in KILLED:
        receiver.answers[f"/{name}"] = slow
        place.mail(name)
    for name in KILLED:
        place.gathered(name)
    # queued last: with a new connection of it all that is not settled is given again at once.
    for number, role in enumerate(("relayd", "reportd", "queued")):
        for name in KILLED[2 * number:2 * number + 2]:
            before = receiver.began
            suite.run("report", "send", "--domain", f"{name}.example")
            wait_for(lambda: receiver.began > before, place.why, 30, 0.005)
            suite.kill(role)
            suite.wait_up()
    for name in KILLED:
        place.ended(name, "sent", 150)
        posts = receiver.at(f"/{name}")
        assert posts and len({opened(post)["report-id"] for post in posts}) == 1 and len(posts) <= 3, [post[0] for post in posts]
        assert len(place.rows(name)) == 1


@pytest.mark.parametrize("kind", [Postgres, MariaDb])
def test_the_database_elsewhere(kind):
    """A report of others is taken in and listed, and one of ours is sent by mail and by HTTPS; all is there after a restart."""
    server = kind()
    place = Place(["both", "busy"], {"database": server.database("reports")})
    try:
        suite = place.suite
        text = b"""<feedback><report_metadata><org_name>P</org_name><report_id>1</report_id></report_metadata>
            <policy_published><domain>us.example</domain></policy_published><record><row><source_ip>192.0.2.9</source_ip><count>3</count>
            <policy_evaluated><disposition>reject</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated></row>
            <identifiers><header_from>us.example</header_from></identifiers></record></feedback>"""
        suite.send("dmarc-reports@us.example", b"From: r@p.example\r\nSubject: report\r\nContent-Type: text/xml\r\n\r\n" + text.replace(b"\n", b"\r\n"))
        (taken,) = wait_for(lambda: suite.json("report", "list"), place.why)
        assert (taken["kind"], taken["domain"], taken["failed"]) == ("dmarc", "us.example", 3)
        place.receiver.answers["/busy"] = [(503, {}, b""), (200, {}, b"")]
        place.report("both")
        wait_for(lambda: len(place.rows("both", "sent")) == 2, place.why)
        (post,) = place.receiver.at("/both")
        assert parsedmarc(gzip.decompress(post[2]).decode())["report_id"] == opened(post)["report-id"]
        place.report("busy")
        place.ended("busy", "sent", 60)
        assert len(place.receiver.at("/busy")) == 2
        suite.stop()
        suite.start()
        assert suite.json("report", "list") == [taken]
        assert suite.json("report", "show", str(taken["id"]))["rows"][0]["source"] == "192.0.2.9"
        assert len(place.rows("both", "sent")) == 2 and len(place.rows("busy", "sent")) == 1
        # What was kept is in that server, and nowhere else.
        assert not list((suite.dir / "state").rglob("reports.db"))
    finally:
        place.remove()
        server.remove()
