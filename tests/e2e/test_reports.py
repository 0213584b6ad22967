"""Reports of DMARC and TLS: real mail is judged, what was found is counted, and the report arrives; those of others are taken, read
within bounds, and shown. What the daemon writes is read here by nothing of its own."""

import base64
import email
import gzip
import io
import json
import re
import subprocess
import time
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from pathlib import Path

import pytest

from senders import BAD, GOOD, deliver, letter, records, signed
from servers import Knot, zone
from sink import Sink
from suite import Failed, Suite, wait_for
from verifiers import dkimpy, mail_dkim

DOMAINS = [f"d{number}.example" for number in range(12)]


def with_reports(policy, rua, *more):
    lines = records(None, f'_dmarc TXT "v=DMARC1; p={policy}; fo=1; rua={rua}; ruf=mailto:ruf@reject.example"', *more)
    return lines


@pytest.fixture(scope="module")
def knot():
    rua = "mailto:dmarc@reject.example!10m,mailto:tiny@reject.example!10,mailto:agg@agreed.example,mailto:x@victim.example"
    zones = {
        "reject.example": zone("reject.example", with_reports("reject", rua)),
        "none.example": zone("none.example", with_reports("none", "mailto:d@none.example")),
        "agreed.example": zone("agreed.example", ['reject.example._report._dmarc TXT "v=DMARC1;"']),
        "victim.example": zone("victim.example", []),
        "silent.example": zone("silent.example", records(None)),
        "example": zone("example", []),
    }
    for domain in DOMAINS:
        zones[domain] = zone(domain, with_reports("none", f"mailto:dmarc@{domain}"))
    knot = Knot(zones)
    yield knot
    knot.remove()


@pytest.fixture(scope="module")
def house(knot):
    sink = Sink()
    suite = Suite(config={
        "reportd": {"enabled": True, "from": "reports@ours.example", "organization": "Ours & Co <us>",
                    "addresses": ["dmarc-reports@*", "tls-reports@*", "abuse-reports@*", "reports@*"],
                    "intake": {"forward_unreadable": "jane@ours.example"}},
        "smtpd": {"proxy_networks": ["127.0.0.0/8"],
                  "checks": {"nameservers": [f"127.0.0.1:{knot.port}"], "limits": {"dns_timeout": 1, "timeout": 5},
                             "rule": [{"recipients": ["soft.example"], "policy": "relaxed"}]}},
        "relayd": {"nameservers": [f"127.0.0.1:{knot.port}"],
                   "route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]},
    }).start()
    for domain in ("ours.example", "soft.example"):
        suite.add_domain(domain)
    suite.add_account("jane@ours.example")
    suite.add_account("joe@soft.example")
    suite.run("dkim", "add", "ours.example", "--selector", "reports")
    yield suite, sink
    suite.remove()
    sink.close()


def pending(suite, domain, count):
    """The report that is gathered for a domain, when it has counted so many."""
    def found():
        rows = [row for row in suite.json("report", "pending") if row["domain"] == domain and row["state"] == "gathering"]
        return rows[-1] if rows and rows[-1]["count"] >= count else None
    return wait_for(found, lambda: f"{count} results of {domain}: {suite.json('report', 'pending')}\n{suite.tail()}")


def text_of(element, path):
    found = element.find(path)
    return None if found is None else found.text


def check_schema(feedback):
    """RFC 7489 appendix C: the order and number of elements, and the words."""
    names = lambda element: [child.tag for child in element]
    assert names(feedback)[:3] == ["version", "report_metadata", "policy_published"]
    assert set(names(feedback)[3:]) == {"record"}
    metadata = names(feedback.find("report_metadata"))
    assert metadata in (["org_name", "email", "report_id", "date_range"], ["org_name", "email", "report_id", "date_range", "error"])
    assert names(feedback.find("policy_published")) == ["domain", "adkim", "aspf", "p", "sp", "pct", "fo"]
    for record in feedback.findall("record"):
        assert names(record) == ["row", "identifiers", "auth_results"]
        assert names(record.find("row")) == ["source_ip", "count", "policy_evaluated"]
        evaluated = record.find("row/policy_evaluated")
        assert names(evaluated)[:3] == ["disposition", "dkim", "spf"] and set(names(evaluated)[3:]) <= {"reason"}
        assert evaluated.find("disposition").text in ("none", "quarantine", "reject")
        assert evaluated.find("dkim").text in ("pass", "fail") and evaluated.find("spf").text in ("pass", "fail")
        assert names(record.find("identifiers"))[-2:] == ["envelope_from", "header_from"]
        results = names(record.find("auth_results"))
        assert results[-1] == "spf" and set(results[:-1]) <= {"dkim"}


def parsedmarc(xml):
    """What parsedmarc makes of it. It has a place of its own (tests/setup): it brings half a mail suite with it."""
    python = Path(__file__).resolve().parents[2] / "target/venv-parsedmarc/bin/python"
    if not python.exists():
        pytest.skip("parsedmarc is not there: tests/setup brings it")
    code = ("import json, sys, parsedmarc\n"
            "print(json.dumps(parsedmarc.parse_aggregate_report_xml(sys.stdin.read(), offline=True), default=str))")
    done = subprocess.run([python, "-c", code], input=xml, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def read(mail):
    """The parts of a report's message: the name of its file, and what is in it."""
    parsed = email.message_from_bytes(mail)
    part = [part for part in parsed.walk() if part.get_filename()][0]
    return parsed, part.get_filename(), gzip.decompress(part.get_payload(decode=True))


def test_what_was_judged_is_reported(house):
    suite, sink = house
    jane, joe = "jane@ours.example", "joe@soft.example"
    octets = signed(letter("reject.example"))
    for _ in range(2):
        assert deliver(suite, jane, octets, "author@reject.example")[0] == 250
    assert deliver(suite, jane, letter("reject.example"), "x@silent.example", client=BAD)[0] == 550
    # Taken where we are lenient, and it says why.
    assert deliver(suite, joe, letter("reject.example"), "x@silent.example", client=BAD)[0] == 250
    # About reports there are no reports.
    assert deliver(suite, "dmarc-reports@ours.example", octets, "author@reject.example")[0] == 250
    row = pending(suite, "reject.example", 4)
    assert row["rows"] == 3 and row["end"] - row["begin"] <= 86400 and row["end"] % 86400 == 0
    assert "<feedback>" in suite.run("report", "pending", "--show", str(row["id"])).stdout
    assert suite.json("report", "send", "--domain", "reject.example") == {"reports": 1}
    # One for each domain of a destination.
    mails = sink.take(2)
    assert {sender for sender, _, _ in mails} == {"reports@ours.example"}
    # Not the one that takes ten octets, and not the one that never agreed (RFC 7489 7.1).
    assert sorted(one for _, to, _ in mails for one in to) == ["agg@agreed.example", "dmarc@reject.example"]
    mail = mails[0][2]
    parsed, name, xml = read(mail)
    begin, end = row["begin"], int(name.split("!")[3].split(".")[0])
    assert re.fullmatch(rf"ours\.example!reject\.example!{begin}!{end}\.xml\.gz", name), name
    report_id = parsed["Message-ID"].strip("<>")
    assert " ".join(parsed["Subject"].split()) == f"Report Domain: reject.example Submitter: ours.example Report-ID: <{report_id}>"
    assert parsed["Auto-Submitted"] == "auto-generated"
    names = Knot({"ours.example": zone("ours.example", [suite.run("dns", "show", "ours.example").stdout])})
    try:
        # A fold before the last semicolon, which RFC 6376 3.7 allows, is too much for dkimpy.
        assert mail_dkim(mail, names) == {"reports": "pass"} or dkimpy(mail, names) == {"reports": True}
    finally:
        names.remove()
    feedback = ElementTree.fromstring(xml)
    check_schema(feedback)
    assert text_of(feedback, "report_metadata/org_name") == "Ours & Co <us>"
    assert text_of(feedback, "policy_published/p") == "reject" and text_of(feedback, "policy_published/fo") == "1"
    rows = {(text_of(one, "row/source_ip"), text_of(one, "row/policy_evaluated/disposition")): one for one in feedback.findall("record")}
    assert set(rows) == {(GOOD, "none"), (BAD, "reject"), (BAD, "none")}
    good = rows[GOOD, "none"]
    assert text_of(good, "row/count") == "2" and text_of(good, "row/policy_evaluated/dkim") == "pass"
    assert text_of(good, "auth_results/dkim/selector") == "r" and text_of(good, "auth_results/spf/result") == "pass"
    lenient = rows[BAD, "none"]
    assert text_of(lenient, "row/policy_evaluated/reason/type") == "local_policy"
    assert text_of(lenient, "identifiers/envelope_from") == "silent.example" and text_of(lenient, "identifiers/header_from") == "reject.example"
    sent = [one for one in suite.json("report", "pending") if one["id"] == row["id"]]
    assert wait_for(lambda: [one for one in suite.json("report", "pending") if one["id"] == row["id"] and one["state"] == "sent"], lambda: sent)
    # An independent reader.
    theirs = parsedmarc(xml)
    assert theirs["report_metadata"]["org_name"] == "Ours & Co <us>" and theirs["policy_published"]["domain"] == "reject.example"
    counts = sorted((one["source"]["ip_address"], one["count"], one["policy_evaluated"]["disposition"]) for one in theirs["records"])
    assert counts == [(GOOD, 2, "none"), (BAD, 1, "none"), (BAD, 1, "reject")], counts


def entries(suite, **wanted):
    return [row for row in suite.json("report", "list") if all(row[key] == value for key, value in wanted.items())]


def bring(suite, to, octets):
    """Hands a message over as another server does, and gives what became of it."""
    before = {row["id"] for row in suite.json("report", "list")}
    assert deliver(suite, to, octets, "reporter@silent.example")[0] == 250
    new = wait_for(lambda: [row for row in suite.json("report", "list") if row["id"] not in before], lambda: suite.tail(), 60)
    return new[0]


def attached(media, name, content, subject="Report domain: ours.example"):
    encoded = base64.encodebytes(content).replace(b"\n", b"\r\n")
    head = (f"From: reporter@provider.example\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: {media}; name=\"{name}\"\r\n"
            f"Content-Disposition: attachment; filename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
    return head.encode() + encoded


def aggregate(report_id, source="192.0.2.77", count=7, result="fail"):
    return f"""<?xml version="1.0"?><feedback><report_metadata><org_name>provider.example</org_name><report_id>{report_id}</report_id>
<date_range><begin>1764288000</begin><end>1764374399</end></date_range></report_metadata>
<policy_published><domain>ours.example</domain><p>none</p></policy_published><record><row><source_ip>{source}</source_ip><count>{count}</count>
<policy_evaluated><disposition>none</disposition><dkim>{result}</dkim><spf>fail</spf></policy_evaluated></row>
<identifiers><header_from>ours.example</header_from></identifiers><auth_results/></record></feedback>""".encode()


def zipped(*files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return out.getvalue()


TLS = b"""{"organization-name":"Provider","date-range":{"start-datetime":"2026-04-01T00:00:00Z","end-datetime":"2026-04-01T23:59:59Z"},
"report-id":"1@provider","policies":[{"policy":{"policy-type":"sts","policy-domain":"ours.example"},
"summary":{"total-successful-session-count":10,"total-failure-session-count":3},
"failure-details":[{"result-type":"certificate-expired","receiving-mx-hostname":"mail.ours.example","failed-session-count":3}]}]}"""

ARF = b"""From: fbl@provider.example\r\nSubject: complaint\r\nMIME-Version: 1.0\r\n\
Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nA complaint.\r\n\
--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: Provider/1\r\nVersion: 1\r\nSource-IP: 192.0.2.5\r\n\r\n\
--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: news@ours.example\r\nSubject: buy\r\n\r\nNow.\r\n--b--\r\n"""


def test_reports_of_others_are_read(house):
    suite, _ = house
    name = "provider.example!ours.example!1764288000!1764374399"
    taken = bring(suite, "dmarc-reports@ours.example", attached("application/zip", f"{name}.zip", zipped((f"{name}.xml", aggregate("1")))))
    assert (taken["kind"], taken["domain"], taken["failed"], taken["organization"]) == ("dmarc", "ours.example", 7, "provider.example")
    taken = bring(suite, "dmarc-reports@ours.example", attached("application/gzip", f"{name}.xml.gz", gzip.compress(aggregate("2", GOOD, 5, "pass"))))
    assert (taken["passed"], taken["failed"]) == (5, 0)
    # The same one twice counts once.
    taken = bring(suite, "dmarc-reports@ours.example", attached("application/gzip", f"{name}.xml.gz", gzip.compress(aggregate("2", GOOD, 5, "pass"))))
    assert (taken["passed"], taken["note"]) == (0, "the same report came before")
    taken = bring(suite, "tls-reports@ours.example", attached("application/tlsrpt+gzip", "x.json.gz", gzip.compress(TLS)))
    assert (taken["kind"], taken["passed"], taken["failed"]) == ("tls", 10, 3)
    taken = bring(suite, "abuse-reports@ours.example", ARF)
    assert (taken["kind"], taken["note"]) == ("arf", "abuse")
    shown = suite.json("report", "show", str(taken["id"]))
    assert shown["rows"][0]["source"] == "192.0.2.5" and "Subject: buy" in shown["text"]
    summary = suite.json("report", "summary", "--domain", "ours.example", "--since", "7d")
    assert summary["messages"] == {"passed": 5, "failed": 7} and summary["sessions"] == {"passed": 10, "failed": 3}
    assert [(one["source"], one["failed"]) for one in summary["sources"]] == [("192.0.2.77", 7), (GOOD, 0)]
    assert summary["failures"][0]["result"] == "certificate-expired" and summary["complaints"] == {"abuse": 1}
    screen = suite.run("report", "summary", "--domain", "ours.example").stdout
    assert "192.0.2.77" in screen and "certificate-expired" in screen
    # A large one travels as a file.
    rows = aggregate("3").replace(b"</feedback>", b"<!--" + bytes(base64.b64encode(time.monotonic_ns().to_bytes(8, "big") * 30_000)) + b"--></feedback>")
    taken = bring(suite, "dmarc-reports@ours.example", attached("text/xml", f"{name}.xml", rows))
    assert (taken["kind"], taken["failed"]) == ("dmarc", 7)
    # An account of that address gets the mail as well; others have none.
    suite.run("alias", "add", "tls-reports@ours.example", "joe@soft.example")
    had = len(suite.messages("joe@soft.example"))
    bring(suite, "tls-reports@ours.example", attached("application/tlsrpt+gzip", "x.json.gz", gzip.compress(TLS)))
    suite.wait_messages("joe@soft.example", had + 1)
    with pytest.raises(Failed):
        suite.run("report", "show", "99999")


def high_water(suite):
    """MiB that reportd had at once at most."""
    status = open(f"/proc/{suite.pids()['reportd']}/status").read()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def zeros(gigabytes):
    """A report of so many zeros in gzip, without ever having them: a block of deflate that needs nothing before it, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = packer.compress(b"<feedback>") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 * 1024 * 1024)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + begin + block * (gigabytes * 64) + b"\x03\0" + bytes(8)


def test_bombs_do_no_harm(house):
    suite, _ = house
    before, had = suite.pids(), len(suite.messages("jane@ours.example"))
    name = "p.example!ours.example!1!2"
    laughs = "".join(f'<!ENTITY l{number} "{f"&l{number - 1};" * 10}">' for number in range(1, 10))
    laughs = f'<?xml version="1.0"?><!DOCTYPE f [<!ENTITY l0 "lol">{laughs}]><feedback>&l9;</feedback>'.encode()
    bombs = [
        ("application/gzip", f"{name}.xml.gz", zeros(5), "times larger|octets come out"),
        ("application/gzip", f"{name}.xml.gz", zeros(10), "the attachment has more"),
        ("application/gzip", f"{name}.xml.gz", gzip.compress(b"<feedback>" + b"a" * 60_000_000), "times larger|octets come out"),
        ("application/zip", f"{name}.zip", zipped((f"{name}.xml", b"<feedback>" + b" " * 60_000_000)), "times larger|octets come out"),
        ("application/zip", f"{name}.zip", zipped(("a.zip", zipped(("b.zip", zipped((f"{name}.xml", aggregate("z"))))))), "archive in an archive"),
        ("application/zip", f"{name}.zip", zipped(*((f"{number}.xml", aggregate(number)) for number in range(200))), "200 files"),
        ("text/xml", f"{name}.xml", laughs, "document type"),
        ("application/gzip", f"{name}.xml.gz", gzip.compress(b"<feedback>" + b"<a>" * 400_000, 1), "deep"),
        ("application/gzip", f"{name}.xml.gz", gzip.compress(b"<feedback>" + b"<record><row/></record>" * 400_000, 1), "rows|times larger"),
        ("application/tlsrpt+gzip", "x.json.gz", gzip.compress(b'{"policies":' + b"[" * 5_000_000, 1), ""),
        ("application/tlsrpt+gzip", "x.json.gz", gzip.compress(b'{"policies":[' + b'{"policy":{}},' * 1_500_000, 1), ""),
    ]
    for media, file, content, word in bombs:
        taken = bring(suite, "dmarc-reports@ours.example", attached(media, file, content))
        assert taken["kind"] == "unreadable" and re.search(word, taken["note"]), (media, taken)
    most = high_water(suite)
    print(f"reportd had {most:.0f} MiB at most")
    assert most < 120, most
    assert suite.pids() == before, "every daemon lives"
    # Nothing is lost silently: somebody gets it, too.
    assert suite.wait_messages("jane@ours.example", had + len(bombs))
    assert bring(suite, "dmarc-reports@ours.example", attached("text/xml", f"{name}.xml", aggregate("after")))["kind"] == "dmarc"


def test_reports_arrive_once_whoever_ends(house):
    """kill -9 of reportd and of queued, between fetching and settling, and before and after."""
    suite, sink = house
    sink.mails.clear()
    for domain in DOMAINS:
        assert deliver(suite, "jane@ours.example", signed(letter(domain), domain=domain), f"author@{domain}")[0] == 250
    for domain in DOMAINS:
        pending(suite, domain, 1)
    suite.run("report", "send", "--domain", "*")
    ours = lambda: [mail for mail in sink.mails if any(to.split("@")[1] in DOMAINS for to in mail[1])]
    for role in ("queued", "reportd", "queued", "reportd"):
        have = len(ours())
        wait_for(lambda: len(ours()) > have or len(ours()) >= len(DOMAINS), lambda: f"more than {have} reports\n{suite.json('report', 'pending')}\n{suite.tail()}", 30)
        suite.kill(role)
        suite.wait_up()

    def settled():
        rows = suite.json("report", "pending")
        return all(row["state"] != "due" for row in rows) and len({mail[1][0] for mail in ours()}) == len(DOMAINS)

    # A claim that was cut off comes again when its lease is over.
    wait_for(settled, lambda: f"{len(ours())} of {len(DOMAINS)}\n{suite.json('report', 'pending')}\n{suite.tail()}", 200)
    names = [email.message_from_bytes(mail[2])["Message-ID"] for mail in ours()]
    assert len(set(names)) == len(DOMAINS)
    # RFC 1047: relayd's host may have taken one whose answer queued never heard; not more than queued was killed.
    assert len(names) <= len(DOMAINS) + 2, names


def test_dns_names_the_addresses(house):
    suite, _ = house
    text = suite.run("dns", "show", "ours.example").stdout
    assert "rua=mailto:dmarc-reports@ours.example" in text and "rua=mailto:tls-reports@ours.example" in text
    told = suite.run("--json", "check", "--offline", check=False).stdout
    assert '"reports"' not in told, told


def test_reportd_away_keeps_no_mail(house):
    suite, sink = house
    had = len(suite.messages("jane@ours.example"))
    suite.kill("reportd")
    began = time.monotonic()
    assert deliver(suite, "jane@ours.example", signed(letter("none.example")), "author@none.example")[0] == 250
    suite.wait_messages("jane@ours.example", had + 1)
    assert time.monotonic() - began < 10
    suite.wait_up()
    pending(suite, "none.example", 1)
    assert suite.json("report", "cancel", "--domain", "none.example") == {"reports": 1}
