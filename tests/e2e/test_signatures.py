"""DKIM signatures of what leaves, judged by two verifiers that are not ours; what may change on the way, and what may not."""

import json
import re

import pytest

from servers import Knot, zone
from sink import Sink
from suite import Failed, Suite, message
from verifiers import dkimpy, mail_dkim

LETTER = message("<a@us.example>", to="you@far.example", sender="me@us.example", text="Hello.\r\n\r\nBye.\r\n")
HEAD = b"From: me@us.example\r\nTo: you@far.example\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <x@us.example>\r\n"
BODIES = {
    "plain": LETTER,
    "folded": HEAD + b"Subject: a\r\n\tfolded\r\n  subject   of \r\n\tlines\r\nX-Empty:\r\nContent-Type: text/plain;\r\n charset=utf-8\r\n\r\nx\r\n",
    "8bit": HEAD + "Subject: Grüße\r\n\r\nÄpfel\u00a0und Öl\r\n".encode(),
    "long lines": HEAD + b"\r\n" + b"0123456789" * 95 + b"\r\n" + b"word " * 190 + b"\r\n",
    "empty body": HEAD + b"\r\n",
    "blank lines": HEAD + b"\r\n\r\n\r\nx\r\n\r\n\r\n",
    "no final newline": HEAD + b"\r\nlast line",
    "spaces": HEAD + b"\r\n  a \t b  \r\n\t\r\n.\r\n..dots\r\n",
    "large": HEAD + b"\r\n" + (b"line of a large one  \r\n" * 250_000),
}


@pytest.fixture(scope="module")
def house():
    """A suite whose mail all goes to a sink, and a name server with what it wants published."""
    sink = Sink()
    suite = Suite(config={"relayd": {
        "dkim_keys_cache": 0,
        "route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}],
        "signing": {
            "default_domain": "us.example",
            "domain": {
                '"strict.example"': {"canonicalization": "simple/simple", "expiry_seconds": 86400, "oversigned": ["Subject"], "headers": ["To"]},
                '"quiet.example"': {"enabled": False},
            },
        },
    }}).start()
    for domain in ("us.example", "sub.us.example", "strict.example", "quiet.example", "other.example", "turn.example"):
        suite.add_domain(domain)
        suite.add_account(f"me@{domain}")
    for domain in ("us.example", "strict.example", "quiet.example"):
        suite.run("dkim", "add", domain, "--selector", "r1")
        suite.run("dkim", "add", domain, "--selector", "e1", "--algorithm", "ed25519")
    suite.run("dkim", "add", "turn.example", "--selector", "old")
    suite.run("dkim", "add", "turn.example", "--selector", "new", "--prepared")
    knot = Knot({domain: zone(domain, [suite.run("dns", "show", domain).stdout])
                 for domain in ("us.example", "strict.example", "turn.example")})
    yield suite, sink, knot
    suite.remove()
    knot.remove()
    sink.close()


def sent(suite, sink, sender, octets):
    with suite.submission(sender) as client:
        client.sendmail(sender, "you@far.example", octets)
    ((_, _, mail),) = sink.take(seconds=60)
    return mail


def signed(suite, sink, domain, **changes):
    return sent(suite, sink, f"me@{domain}", message("<s@x.example>", to="you@far.example", sender=f"me@{domain}", **changes))


def domains(mail):
    return sorted(set(re.findall(rb"\bd=([a-z.]+);", mail.partition(b"\r\n\r\n")[0])))


def verdicts(mail, knot):
    ours, theirs = dkimpy(mail, knot), mail_dkim(mail, knot)
    if theirs is not None:
        for selector, result in theirs.items():
            assert (result == "pass") == ours[selector], (ours, theirs)
    return ours


@pytest.mark.parametrize("name", BODIES)
def test_both_signatures_verify(house, name):
    suite, sink, knot = house
    mail = sent(suite, sink, "me@us.example", BODIES[name])
    assert verdicts(mail, knot) == {"r1": True, "e1": True}, mail[:1500]
    assert b"l=" not in mail[:mail.index(b"b=")]


def test_what_may_change_and_what_may_not(house):
    suite, sink, knot = house
    mail = sent(suite, sink, "me@us.example", LETTER)
    both = lambda passed: {"r1": passed, "e1": passed}
    # Relaxed: white space at the end of lines, folding, the case of names, lines at the end.
    assert verdicts(mail.replace(b"Hello.\r\n", b"Hello. \t \r\n"), knot) == both(True)
    assert verdicts(mail.replace(b"Subject: a letter", b"SUBJECT:   a\r\n\tletter "), knot) == both(True)
    assert verdicts(mail + b"\r\n\r\n", knot) == both(True)
    assert verdicts(b"Received: by elsewhere\r\nX-Other: 1\r\n" + mail, knot) == both(True)
    # A mailing list's footer, its prefix of the subject, one word, a field more that was signed as not there.
    assert verdicts(mail + b"-- \r\nthe list\r\n", knot) == both(False)
    assert verdicts(mail.replace(b"a letter", b"[list] a letter"), knot) == both(False)
    assert verdicts(mail.replace(b"Hello", b"hello"), knot) == both(False)
    for field in (b"From: else@where.example", b"Subject: another", b"Cc: third@x.example", b"Reply-To: else@where.example",
                  b"Content-Type: text/html", b"Date: Tue, 2 Jan 2024 00:00:00 +0000"):
        assert verdicts(field + b"\r\n" + mail, knot) == both(False), field


def test_a_domain_has_settings_of_its_own(house):
    suite, sink, knot = house
    mail = signed(suite, sink, "strict.example")
    assert verdicts(mail, knot) == {"r1": True, "e1": True}
    flat = re.sub(rb"\s+", b"", mail.partition(b"\r\n\r\n")[0])
    assert flat.count(b"c=simple/simple;") == 2
    assert [int(x) - int(t) for t, x in re.findall(rb";t=(\d+);x=(\d+);", flat)] == [86400, 86400]
    assert sorted(re.search(rb";h=([A-Za-z:-]+);", flat)[1].lower().split(b":")) == [b"from", b"from", b"subject", b"subject", b"to"]
    assert verdicts(mail.replace(b"Hello.\r\n", b"Hello. \r\n"), knot) == {"r1": False, "e1": False}
    # Not in its list, so it may be added.
    assert verdicts(b"Cc: third@x.example\r\n" + mail, knot) == {"r1": True, "e1": True}


def test_who_signs_for_whom(house):
    suite, sink, knot = house
    for sender, signer in (("sub.us.example", [b"us.example"]), ("other.example", [b"us.example"]), ("quiet.example", [])):
        mail = signed(suite, sink, sender)
        assert domains(mail) == signer
        if signer:
            assert verdicts(mail, knot) == {"r1": True, "e1": True}


def test_keys_are_rotated_without_a_gap(house):
    suite, sink, knot = house
    states = lambda: {key["selector"]: key["state"] for key in suite.json("dkim", "list", "turn.example")}
    assert states() == {"old": "active", "new": "prepared"}
    before = signed(suite, sink, "turn.example")
    assert verdicts(before, knot) == {"old": True}
    suite.run("dkim", "activate", "turn.example", "new")
    assert verdicts(signed(suite, sink, "turn.example"), knot) == {"old": True, "new": True}
    suite.run("dkim", "activate", "turn.example", "new", "--alone")
    assert states() == {"old": "retired", "new": "active"}
    assert verdicts(signed(suite, sink, "turn.example"), knot) == {"new": True}
    # What was signed before still verifies: the record of a retired key stays.
    assert verdicts(before, knot) == {"old": True}
    assert "old._domainkey" in suite.run("dns", "show", "turn.example").stdout
    # The state outlives keyd.
    pid = suite.pids()["keyd"]
    suite.kill("keyd")
    suite.wait_up()
    assert suite.pids()["keyd"] != pid and states() == {"old": "retired", "new": "active"}
    suite.run("dkim", "remove", "turn.example", "old")
    suite.run("dkim", "retire", "turn.example", "new")
    # The default domain signs now.
    assert domains(signed(suite, sink, "turn.example")) == [b"us.example"]
    with pytest.raises(Failed, match="no such key"):
        suite.run("dkim", "activate", "turn.example", "old")


def test_the_check_tells_who_signs_and_with_what(house, make_suite):
    suite, _, _ = house
    found = checked(suite)
    assert "us.example is signed by us.example with e1, r1" in found
    assert "sub.us.example is signed by us.example with e1, r1" in found
    assert not any("quiet.example" in text for text in found)
    bare = make_suite()
    for domain in ("none.example", "modern.example", "later.example"):
        bare.add_domain(domain)
    bare.run("dkim", "add", "modern.example", "--selector", "e", "--algorithm", "ed25519")
    bare.run("dkim", "add", "later.example", "--selector", "r", "--prepared")
    found = checked(bare)
    assert any("none.example has no DKIM key" in text for text in found), found
    assert any("modern.example is signed with Ed25519 alone" in text for text in found), found
    assert any("later.example has no active DKIM key" in text for text in found), found


def checked(suite):
    rows = json.loads(suite.run("--json", "check", "--offline", check=False).stdout)
    return [row["finding"] for row in rows if row["area"] == "dkim"]
