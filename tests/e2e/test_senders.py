"""Who sent what comes to port 25: messages signed by dkimpy, published in knot, brought through a proxy from everywhere; what is
written down about them, what is refused, and what goes to Junk."""

import re
import subprocess
import time

import dkim
import pytest

from senders import BAD, GOOD, KEYS, deliver, letter, records, signed
from servers import Knot, zone
from sink import Sink
from suite import Suite, free_port, wait_for
from verifiers import dkimpy_arc, mail_dkim_arc


@pytest.fixture(scope="module")
def knot():
    zones = {f"{policy}.example": zone(f"{policy}.example", records(policy)) for policy in ("reject", "quarantine", "none")}
    zones["sub.example"] = zone("sub.example", records("reject", '_dmarc.lists TXT "v=DMARC1; p=none"', 'deep.er TXT "v=spf1 -all"'))
    zones["silent.example"] = zone("silent.example", records(None))
    zones["2.0.192.in-addr.arpa"] = zone("2.0.192.in-addr.arpa", ["2 PTR mx.reject.example.", "3 PTR mx.reject.example."])
    # Where the walk up the tree ends.
    zones["example"] = zone("example", [])
    knot = Knot(zones)
    yield knot
    knot.remove()


@pytest.fixture(scope="module")
def house(knot):
    """A suite whose clients all come through a proxy, and whose mail for elsewhere goes to a sink."""
    sink = Sink()
    suite = Suite(config={
        "smtpd": {
            "proxy_networks": ["127.0.0.0/8"],
            "checks": {
                "nameservers": [f"127.0.0.1:{knot.port}"],
                "limits": {"dns_timeout": 1, "timeout": 5},
                "trusted_sealers": ["silent.example"],
                "rule": [
                    {"recipients": ["hard.example"], "policy": "strict"},
                    {"recipients": ["soft.example"], "policy": "relaxed"},
                    {"recipients": ["tagged.example"], "policy": "tag"},
                ],
            },
        },
        "relayd": {"nameservers": [f"127.0.0.1:{knot.port}"],
                   "route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]},
    }).start()
    for domain in ("ours.example", "hard.example", "soft.example", "tagged.example"):
        suite.add_domain(domain)
    suite.run("alias", "add", "away@ours.example", "friend@far.example")
    suite.run("dkim", "add", "ours.example", "--selector", "r")
    yield suite, sink
    suite.remove()
    sink.close()


_users = iter(range(1000))


def user(suite, domain="ours.example"):
    return suite.add_account(f"user{next(_users)}@{domain}")


def results(mail):
    """Our results by method, as the topmost field says."""
    header = mail.partition(b"\r\n\r\n")[0].replace(b"\r\n\t", b" ").replace(b"\r\n ", b" ")
    fields = re.findall(rb"^Authentication-Results: mail\.example\.test;(.*)$", header, re.M)
    assert len(fields) == 1, fields
    found = {}
    for part in fields[0].decode().split(";"):
        method, rest = part.strip().split("=", 1)
        found.setdefault(method, []).append(rest)
    return found


def test_what_is_genuine_passes(house):
    suite, _ = house
    jane = user(suite)
    forged = b"Authentication-Results: mail.example.test; dmarc=fail\r\nAuthentication-Results: other.example; none\r\n"
    octets = signed(signed(letter("reject.example")), "e")
    assert deliver(suite, jane, forged + octets, "author@reject.example")[0] == 250
    (mail,) = suite.wait_messages(jane, 1)
    found = results(mail)
    assert found["iprev"] == [f"pass (mx.reject.example) policy.iprev={GOOD}"]
    assert found["spf"] == ["pass smtp.helo=mx.reject.example", "pass smtp.mailfrom=author@reject.example"]
    assert [one.split(" header.b")[0] for one in found["dkim"]] == [
        "pass header.d=reject.example header.s=e header.a=ed25519-sha256",
        "pass header.d=reject.example header.s=r header.a=rsa-sha256"]
    assert found["arc"] == ["none"]
    assert found["dmarc"] == ["pass header.from=reject.example policy.dmarc=reject"]
    assert b"Authentication-Results: other.example; none\r\n" in mail, "the results of others are theirs"
    assert mail.index(b"Received:") < mail.index(b"Authentication-Results: mail.example.test")


@pytest.mark.parametrize("canonicalize", [(b"relaxed", b"relaxed"), (b"simple", b"simple"), (b"relaxed", b"simple")])
def test_a_large_message_is_hashed_on_its_way(house, canonicalize):
    suite, _ = house
    jane = user(suite)
    text = "".join(f"line {number} \t of a large message  \r\n" for number in range(40_000)) + "\r\n\r\n"
    octets = signed(letter("reject.example", text), canonicalize=canonicalize)
    # From a stranger's address: DKIM alone vouches.
    assert deliver(suite, jane, octets, "bounce@silent.example", client=BAD)[0] == 250
    broken = octets.replace(b"line 39999 ", b"line 39998 ")
    code, text = deliver(suite, jane, broken, "bounce@silent.example", client=BAD)
    assert (code, text[:5]) == (550, "5.7.1")
    (mail,) = suite.wait_messages(jane, 1)
    found = results(mail)
    assert found["dkim"][0].startswith("pass") and found["dmarc"][0].startswith("pass") and found["spf"][1].startswith("fail")


def test_the_policy_of_the_author_is_followed(house):
    suite, _ = house
    jane = user(suite)
    code, text = deliver(suite, jane, letter("reject.example"), "x@silent.example", client=BAD)
    assert code == 550 and text.startswith("5.7.1") and "reject.example" in text and "DMARC" in text
    # Below a domain without a record of its own, that of the organization holds; with one, that does.
    assert deliver(suite, jane, letter("deep.er.sub.example"), "x@silent.example", client=BAD)[0] == 550
    assert deliver(suite, jane, letter("lists.sub.example"), "x@silent.example", client=BAD)[0] == 250
    assert deliver(suite, jane, letter("none.example"), "x@silent.example", client=BAD)[0] == 250
    assert deliver(suite, jane, letter("silent.example"), "x@silent.example", client=BAD)[0] == 250
    assert len(suite.wait_messages(jane, 3)) == 3
    assert deliver(suite, jane, letter("quarantine.example"), "x@silent.example", client=BAD)[0] == 250
    (mail,) = suite.wait_messages(jane, 1, mailbox="Junk")
    assert results(mail)["dmarc"][0].startswith("fail") and b"X-Posthouse-Suspect: junk; checks=dmarc\r\n" in mail
    assert len(suite.messages(jane)) == 3
    # Another form of the name is the same name.
    for other in (b"reject.example.", b"REJECT.example"):
        assert deliver(suite, jane, letter("reject.example").replace(b"author@reject.example", b"author@" + other), "x@silent.example", client=BAD)[0] == 550
    # One that two domains share is as good as the worse of them.
    two = letter("none.example").replace(b"From: <author@none.example>", b"From: <author@none.example>, <ceo@reject.example>")
    assert deliver(suite, jane, two, "author@none.example", client=GOOD)[0] == 550


def test_signatures_that_do_not_count(house):
    suite, _ = house
    jane = user(suite)
    plain = letter("none.example")
    sha1 = signed(plain, signature_algorithm=b"rsa-sha1")
    for octets, wanted in ((signed(plain, "weak"), "fail (the signature is wrong)"), (sha1, "permerror (rsa-sha1 does not count)"), (signed(plain, length=True), "policy (l= leaves"),
                           (signed(plain).replace(b"Hello.", b"Hallo."), "fail (the body was changed)"),
                           (signed(plain).replace(b"a letter", b"a bill"), "fail (the signature is wrong)"),
                           (signed(plain).replace(b"s=r;", b"s=gone;"), "permerror (no record)")):
        assert deliver(suite, jane, octets, "x@silent.example")[0] == 250
        (mail,) = suite.wait_messages(jane, 1)
        assert results(mail)["dkim"][0].startswith(wanted), results(mail)
        client = suite.imap(jane)
        client.select("INBOX")
        client.store("1", "+FLAGS", "\\Deleted")
        client.expunge()
        client.logout()


def test_rules_for_domains_of_ours(house):
    suite, _ = house
    hard, soft, jane, tagged = (user(suite, domain) for domain in ("hard.example", "soft.example", "ours.example", "tagged.example"))
    # SPF alone: refused where the domain is strict.
    mail = letter("silent.example")
    code, text = deliver(suite, hard, mail, "x@silent.example", client=BAD)
    assert code == 550 and text.startswith("5.7.23") and "SPF" in text
    # Together with others it cannot be refused for one: Junk there, as ever elsewhere.
    assert deliver(suite, [hard, soft, jane, tagged], mail, "x@silent.example", client=BAD)[0] == 250
    for account, mailbox in ((hard, "Junk"), (soft, "INBOX"), (jane, "INBOX"), (tagged, "INBOX")):
        (found,) = suite.wait_messages(account, 1, mailbox=mailbox)
        assert re.search(rb"X-Posthouse-Suspect: junk; checks=spf;\s+recipients=0\r\n", found)
        assert re.search(rb"X-Posthouse-Suspect: tag; checks=spf;\s+recipients=3\r\n", found)
    assert deliver(suite, [hard, jane], letter("reject.example"), "x@silent.example", client=BAD)[0] == 550
    # From somebody allowed it passes there, too.
    assert deliver(suite, hard, mail, "x@silent.example", client=GOOD)[0] == 250
    suite.wait_messages(hard, 1)


def test_scripts_and_other_mailboxes_for_junk(house):
    suite, _ = house
    jane = user(suite)
    bad = lambda: deliver(suite, jane, letter("quarantine.example"), "x@silent.example", client=BAD)
    client = suite.imap(jane)
    # Junk under another name, by its use.
    assert client.delete("Junk")[0] == "OK"
    assert client.xatom("CREATE", "Spam", "(USE (\\Junk))")[0] == "OK"
    assert bad()[0] == 250
    suite.wait_messages(jane, 1, mailbox="Spam")
    # Without any it is made again, with its use.
    assert client.delete("Spam")[0] == "OK"
    assert bad()[0] == 250
    suite.wait_messages(jane, 1, mailbox="Junk")
    assert any(b"\\Junk" in line for line in client.list('""', '"Junk"')[1])
    # A script has the last word: keep means Junk, a mailbox by name is that one.
    suite.run("script", "put", jane, "s", "--activate",
              stdin='require "fileinto"; if header :contains "X-Posthouse-Suspect" "dmarc" { fileinto "INBOX"; } else { keep; }')
    wait_for(lambda: bad()[0] == 250 and len(suite.messages(jane)) > 0, "the script is in force", 20, 0.5)
    suite.run("script", "put", jane, "s", "--activate", stdin='keep;')
    before = len(suite.messages(jane, "Junk"))
    wait_for(lambda: bad()[0] == 250 and len(suite.messages(jane, "Junk")) > before, "the script is in force", 20, 0.5)
    client.logout()


def arc_sealed(octets, domain="silent.example", results="dmarc=pass header.from=reject.example"):
    """As a list that took it and hands it on."""
    found = b"Authentication-Results: mx.%s; %s\r\n" % (domain.encode(), results.encode())
    key = KEYS["r"][0]
    return b"".join(dkim.arc_sign(found + octets, b"r", domain.encode(), key, b"mx." + domain.encode())) + octets


def test_a_chain_goes_on(house, knot):
    suite, sink = house
    names = Knot({"ours.example": zone("ours.example", [suite.run("dns", "show", "ours.example").stdout]),
                  "silent.example": (knot.dir / "silent.example.zone").read_text()})
    try:
        octets = arc_sealed(letter("silent.example"))
        assert deliver(suite, "away@ours.example", octets, "x@silent.example")[0] == 250
        ((_, _, mail),) = sink.take()
        assert mail.startswith(b"ARC-Seal: i=2; a=rsa-sha256; cv=pass; d=ours.example;"), mail[:600]
        assert re.search(rb"ARC-Authentication-Results: i=2; mail\.example\.test;[^\0]*?arc=pass \(i=1 by silent\.example\)", mail)
        assert dkimpy_arc(mail, names) == "pass"
        theirs = mail_dkim_arc(mail, names)
        assert theirs is None or theirs[0] == "pass", theirs
        # What was changed since is sealed as such, once.
        broken = octets.replace(b"Hello.", b"Hallo.")
        assert deliver(suite, "away@ours.example", broken, "x@silent.example")[0] == 250
        ((_, _, mail),) = sink.take()
        assert mail.startswith(b"ARC-Seal: i=2; a=rsa-sha256; cv=fail; d=ours.example;"), mail[:600]
    finally:
        names.remove()


def test_a_trusted_sealer_vouches(house):
    suite, _ = house
    jane = user(suite)
    # The list has changed the body: DKIM fails, and SPF is the list's.
    original = letter("reject.example")
    assert deliver(suite, jane, arc_sealed(original), "list@silent.example", client=GOOD)[0] == 250
    found = results(suite.wait_messages(jane, 1)[0])
    assert found["arc"] == ["pass (i=1 by silent.example)"] and found["dmarc"][0].startswith("fail")
    for octets in (arc_sealed(original, results="dmarc=fail header.from=reject.example"), arc_sealed(original, domain="none.example"),
                   arc_sealed(original, results="dmarc=pass header.from=silent.example"), arc_sealed(original).replace(b"Hello.", b"Hallo.")):
        assert deliver(suite, jane, octets, "list@silent.example", client=GOOD)[0] == 550


def test_names_cannot_look_like_results(house):
    suite, _ = house
    jane = user(suite)
    assert deliver(suite, jane, letter("silent.example"), '"; dmarc=pass header.from=x (y"@silent.example', client=GOOD,
                   helo="a;dmarc=pass")[0] == 250
    found = results(suite.wait_messages(jane, 1)[0])
    assert found["spf"] == ["pass smtp.mailfrom=silent.example"] and found["dmarc"] == ["none header.from=silent.example"]


def test_the_null_sender_is_judged_by_its_name(house):
    suite, _ = house
    jane = user(suite)
    report = letter("mx.reject.example")
    assert deliver(suite, jane, report, "", client=GOOD, helo="mx.reject.example")[0] == 250
    assert results(suite.wait_messages(jane, 1)[0])["dmarc"][0].startswith("pass header.from=mx.reject.example")
    assert deliver(suite, jane, report, "", client=BAD, helo="mx.reject.example")[0] == 550


def test_swaks_is_judged_like_everybody(house):
    suite, _ = house
    jane = user(suite)
    host, port = suite.address("mx")
    done = subprocess.run(["swaks", "--server", f"{host}:{port}", "--proxy-version", "1", "--proxy-family", "TCP4",
                           "--proxy-source", BAD, "--proxy-source-port", "1024", "--proxy-dest", host, "--proxy-dest-port", str(port), "--from", "x@reject.example", "--to", jane,
                           "--h-From", "<x@reject.example>"], capture_output=True, text=True, timeout=60)
    assert "550 5.7.1 Refused: neither SPF nor DKIM" in done.stdout + done.stderr


def test_the_tool_judges_alike(house, tmp_path):
    suite, _ = house
    file = suite.dir / "judged.eml"
    file.write_bytes(signed(letter("reject.example")))
    shown = suite.json("judge", file, "--client", GOOD, "--helo", "mx.reject.example", "--sender", "author@reject.example")
    assert shown["results"]["dmarc"]["result"] == "pass" and shown["refused"] is None
    text = suite.run("judge", file, "--client", BAD, "--sender", "x@silent.example").stdout
    assert "dkim     pass" in text and "It would be taken." in text
    file.write_bytes(letter("reject.example"))
    text = suite.run("judge", file, "--client", BAD, "--sender", "x@silent.example").stdout
    assert "It would be refused: 550 5.7.1" in text
    text = suite.run("judge", file, "--client", BAD, "--sender", "x@silent.example", "--recipient", "a@soft.example").stdout
    assert "It would be taken." in text


def test_without_dns_mail_is_taken(make_suite):
    """A name server that never answers: a port that takes the questions and is silent."""
    import socket
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silence = {"nameservers": [f"127.0.0.1:{silent.getsockname()[1]}"], "limits": {"dns_timeout": 1, "timeout": 2}}
        suite = make_suite(config={"smtpd": {"proxy_networks": ["127.0.0.0/8"], "checks": silence}})
        suite.add_domain("ours.example")
        jane = user(suite)
        began = time.monotonic()
        assert deliver(suite, jane, signed(letter("reject.example")), "x@reject.example")[0] == 250
        assert time.monotonic() - began < 10
        found = results(suite.wait_messages(jane, 1)[0])
        words = {method: {one.split()[0] for one in parts} for method, parts in found.items()}
        assert words == {"iprev": {"temperror"}, "spf": {"temperror"}, "dkim": {"temperror"}, "arc": {"none"}, "dmarc": {"temperror"}}
        suite.stop()
        suite.config["smtpd"]["checks"]["temporary"] = "defer"
        suite.write_config()
        suite.start()
        code, text = deliver(suite, jane, letter("reject.example"), "x@reject.example")
        assert code == 451 and text.startswith("4.7.1")


def test_friends_are_not_judged(make_suite):
    """Loopback is trusted as it ships: nothing is asked, also where no name server is."""
    suite = make_suite(config={"smtpd": {"checks": {"nameservers": [f"127.0.0.1:{free_port()}"]}}})
    suite.add_domain("ours.example")
    jane = user(suite)
    began = time.monotonic()
    own = b"Authentication-Results: mail.example.test; dmarc=pass\r\n"
    assert deliver(suite, jane, own + letter("reject.example"), "x@reject.example", client=None)[0] == 250
    assert time.monotonic() - began < 3
    (mail,) = suite.wait_messages(jane, 1)
    assert mail.count(b"Authentication-Results:") == 1, "a neighbour may say what we found before"
