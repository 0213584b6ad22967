"""DNS-PERSIST-01 against a small authority of our own (lib/persistent.py): Debian's pebble, which the other certificates are tested with,
does not know this challenge. It validates the records at a real name server; one test has pebble itself, to be refused."""

import json
import threading
import time
from pathlib import Path

import dns.query
import dns.tsig
import dns.tsigkeyring
import dns.update
import pytest

from authority import TSIG, DynamicKnot, Pebble, open_folder
from persistent import PersistentAuthority
from servers import zone
from suite import Failed, wait_for
from e2e.test_certificates import HOST, good, names, row, settings, shown, state, world  # noqa: F401

DOMAIN = "example.test"
RECORD = f"_validation-persist.{HOST}."
ZONE = zone(DOMAIN, ["mail A 127.0.0.1"])


def persistent(authority, knots, wanted, **more):
    """certd has no right to any zone."""
    servers = {"authoritative": [f"127.0.0.1:{knot.port}" for knot in knots]}
    return settings(authority, "dns-persist-01", names=wanted, dns={**servers, **more.pop("dns", {})}, **more)


def publish(knot, name, *texts):
    """What the operator does: these texts and no others; each is a list of strings, or one."""
    message = dns.update.UpdateMessage(f"{DOMAIN}.", keyring=dns.tsigkeyring.from_text({"certd.": TSIG}), keyalgorithm=dns.tsig.HMAC_SHA256)
    message.delete(name, "TXT")
    for text in texts:
        strings = [text] if isinstance(text, str) else text
        message.add(name, 60, "TXT", " ".join(f'"{one}"' for one in strings))
    assert dns.query.tcp(message, "127.0.0.1", port=knot.port, timeout=5).rcode() == 0


def needed(suite, name=RECORD, domain=DOMAIN):
    """The record that certd wants, from `dns show`; it is known when the authority has been asked once."""
    rows = [one for one in suite.json("dns", "show", domain) if one["name"] == name.rstrip(".")]
    return rows[0]["data"] if rows else None


def account(suite):
    return json.loads((suite.dir / "state/certificates/account.json").read_text())["url"]


def unpublished(suite, which=HOST):
    wait_for(lambda: row(suite, which)["state"] == "unpublished", lambda: f"{row(suite, which)}\n{suite.tail(60)}", 60, 0.1)
    return row(suite, which)["trouble"]


def verdict(suite, knot):
    checked = suite.run("--json", "dns", "check", DOMAIN, "--resolver", f"127.0.0.1:{knot.port}", check=False).stdout
    return next(one for one in json.loads(checked) if one["name"] == RECORD.rstrip("."))["verdict"]


def serial(knot):
    return knot.ask(f"{DOMAIN}.", "SOA")[0].split()[2]


def test_published_once_by_hand_and_renewed_without_dns(make_suite, world):
    knot = world(DynamicKnot({DOMAIN: ZONE}))
    authority = world(PersistentAuthority(knot.port, issuers=["other.test", "authority.test"]))
    suite = make_suite(config=persistent(authority, [knot], [HOST], persist_issuer="authority.test"))
    suite.add_domain(DOMAIN)
    trouble = unpublished(suite)
    text = f"authority.test; accounturi={account(suite)}"
    assert f'publish {RECORD} 60 IN TXT "{text}"' in trouble and f"127.0.0.1:{knot.port}: there is no such record" in trouble
    assert needed(suite) == f'"{text}"'
    # It is looked for again and again, and the authority hears nothing of that.
    waits = state(suite)["waits"]
    wait_for(lambda: state(suite)["waits"] > waits + 1, lambda: suite.tail(), 30)
    assert len(authority.orders) <= 1 and authority.answered == []
    with pytest.raises(Failed) as failed:
        suite.run("certificate", "order", HOST)
    assert text in failed.value.text and authority.answered == []
    assert text in suite.run("check", "--offline", check=False).stdout
    assert verdict(suite, knot) == "missing"

    # Written in another way, in two strings, beside those of others.
    uri = account(suite)
    publish(knot, RECORD, "other.example; accounturi=https://ca.example/1", "v=spf1 -all", "authority.test; accounturi=https://no/1",
            ["Authority.Test ;\tlater=x; AccountURI =  " + uri[:9], uri[9:] + " ;policy=WILDCARD"])
    good(suite)
    assert names(shown(suite, authority.root())) == [HOST]
    assert verdict(suite, knot) == "present"
    assert authority.answered == [(HOST, False)]

    before, orders = serial(knot), len(authority.orders)
    first = shown(suite).serial_number
    suite.run("certificate", "renew", HOST)
    pid = suite.pids()["certd"]
    suite.kill("certd")
    wait_for(lambda: suite.pids().get("certd") not in (None, pid), lambda: suite.tail(), 30)
    suite.wait_up()
    suite.run("certificate", "renew", HOST)
    assert shown(suite, authority.root()).serial_number != first and len(authority.orders) == orders + 2
    assert serial(knot) == before, "nothing is changed in DNS"
    assert json.loads((suite.dir / "state/certificates/persist.json").read_text())["account"] == uri

    # What is gone, or of another account, is said before the authority is asked.
    for texts, why in (([], "no such record"), ([f"authority.test; accounturi={uri}0"], "another account"),
                       ([f"authority.test; accounturi={uri}; persistUntil=1700000000"], "persistUntil"),
                       ([f"elsewhere.test; accounturi={uri}"], "no such record"), ([f"authority.test; accounturi={uri};"], "tag=value")):
        publish(knot, RECORD, *texts)
        with pytest.raises(Failed) as failed:
            suite.run("certificate", "renew", HOST)
        assert why in failed.value.text, failed.value.text
        assert verdict(suite, knot) in ("missing", "different")
    assert len(authority.orders) == orders + 2
    publish(knot, RECORD, f"authority.test; accounturi={uri}; persistUntil={int(time.time()) + 900}")
    assert verdict(suite, knot) == "note"
    suite.run("certificate", "renew", HOST)


def test_the_authority_looks_for_itself(make_suite, world):
    """certd sees good records; the authority asks a server that shows others, and says what is wrong with each."""
    ours, theirs = world(DynamicKnot({DOMAIN: ZONE})), world(DynamicKnot({DOMAIN: ZONE}))
    authority = world(PersistentAuthority(theirs.port, names_account=False))
    names_ = ["*.example.test", DOMAIN]
    suite = make_suite(config=persistent(authority, [ours], names_, retry_min=600, retry_max=600))
    unpublished(suite, DOMAIN)
    record = f"_validation-persist.{DOMAIN}."
    uri = account(suite)
    text = f"authority.test; accounturi={uri}"
    # Without the policy it is for the domain alone.
    publish(ours, record, text)
    with pytest.raises(Failed) as failed:
        suite.run("certificate", "order", DOMAIN)
    assert "policy=wildcard" in failed.value.text and authority.answered == []
    good_text = f"{text}; policy=wildcard"
    publish(ours, record, good_text)
    for texts, why in (([], "no record of ours"), ([f"authority.test; accounturi={uri}1; policy=wildcard"], "somebody else"),
                       ([f"wrong.test; accounturi={uri}; policy=wildcard"], "no record of ours"),
                       ([f"{good_text}; persistUntil=1700000000"], "persistUntil is over"), ([text], "policy=wildcard is missing"),
                       (["authority.test; policy=wildcard"], "accounturi is missing")):
        publish(theirs, record, *texts)
        with pytest.raises(Failed) as failed:
            suite.run("certificate", "order", DOMAIN)
        assert "does not see dns-persist-01 answered" in failed.value.text and why in failed.value.text, failed.value.text
    assert row(suite, DOMAIN)["state"] == "failed"
    publish(theirs, record, good_text)
    suite.run("certificate", "order", DOMAIN)
    assert set(names(shown(suite, authority.root(), name="any.example.test"))) == set(names_)


def test_a_record_with_the_policy_is_for_the_names_below(make_suite, world):
    """Where the authority takes it so, and the configuration says that it does."""
    knot = world(DynamicKnot({DOMAIN: ZONE}))
    authority = world(PersistentAuthority(knot.port, subdomains=True))
    suite = make_suite(config=persistent(authority, [knot], [HOST, "a.b.example.test"], persist_subdomains=True))
    unpublished(suite)
    publish(knot, f"_validation-persist.{DOMAIN}.", f"authority.test; accounturi={account(suite)}; policy=wildcard")
    good(suite)
    assert sorted(authority.answered) == [("a.b.example.test", False), (HOST, False)]


def test_published_by_certd_and_left_there(make_suite, world):
    """By RFC 2136; one server shows it late, and certd is killed meanwhile."""
    primary = world(DynamicKnot({DOMAIN: ZONE}))
    secondary = world(DynamicKnot({DOMAIN: ZONE}, primary))
    authority = world(PersistentAuthority(secondary.port))
    secret = Path(open_folder()) / "tsig"
    secret.write_text(TSIG + "\n")
    secret.chmod(0o644)
    config = persistent(authority, [primary, secondary], ["*.mail.example.test", HOST], dns={
        "provider": "rfc2136", "zones": [DOMAIN], "server": f"tcp://127.0.0.1:{primary.port}", "user": "certd.", "secret_file": secret,
        "propagation_pause_ms": 100, "propagation_timeout": 60,
    })
    suite = make_suite(config=config)
    suite.add_domain(DOMAIN)
    wait_for(lambda: len(primary.ask(RECORD, "TXT")) == 1, lambda: suite.tail(60), 60)
    assert authority.answered == [] and secondary.ask(RECORD, "TXT") == []
    pid = suite.pids()["certd"]
    suite.kill("certd")
    wait_for(lambda: suite.pids().get("certd") not in (None, pid), lambda: suite.tail(), 30)
    wait_for(lambda: "taken up again" in suite.log.read_text() or len(authority.orders) == 1, lambda: suite.tail(60), 30)
    secondary.refresh()
    good(suite)
    text = f"authority.test; accounturi={account(suite)}; policy=wildcard"
    assert primary.ask(RECORD, "TXT") == [f'"{text}"'], "once, and it stays"
    assert primary.ask(f"_acme-challenge.{HOST}.", "TXT") == []
    before = serial(primary)
    suite.run("certificate", "renew", HOST)
    assert serial(primary) == before
    assert TSIG not in suite.log.read_text()
    # `dns publish` knows it as needed, and what it says is changed with the configuration.
    planned = suite.run("dns", "publish", DOMAIN, "--resolver", f"127.0.0.1:{primary.port}", check=False).stdout
    assert "_validation-persist" not in planned, planned
    until = int(time.time()) + 86400 * 90
    suite.config["certd"]["persist_until"] = until
    suite.write_config()
    suite.run("reload")
    wait_for(lambda: (needed(suite) or "").endswith(f'persistUntil={until}"'), lambda: needed(suite), 30)
    order = threading.Thread(target=suite.run, args=("certificate", "renew", HOST))
    order.start()
    wait_for(lambda: any(f"persistUntil={until}" in one for one in primary.ask(RECORD, "TXT")), lambda: suite.tail(60), 30)
    secondary.refresh()
    order.join(60)
    assert not order.is_alive()
    assert primary.ask(RECORD, "TXT") == [f'"{text}; persistUntil={until}"']
    suite.run("dns", "unpublish", DOMAIN, "--yes")
    assert primary.ask(RECORD, "TXT") == []


def test_an_authority_that_does_not_know_it(make_suite, world):
    knot = world(DynamicKnot({DOMAIN: ZONE}))
    pebble = world(Pebble(knot.port))
    pebble.start()
    suite = make_suite(config=persistent(pebble, [knot], [HOST]))
    wait_for(lambda: row(suite)["failures"] > 0, lambda: suite.tail(60), 30)
    trouble = row(suite)["trouble"]
    assert f"does not offer dns-persist-01 for {HOST}, but " in trouble
    assert all(word in trouble for word in ("http-01", "dns-01", "tls-alpn-01")), trouble


def test_what_the_authority_says_is_not_taken_on_trust(make_suite, world):
    knot = world(DynamicKnot({DOMAIN: ZONE}))
    authority = world(PersistentAuthority(knot.port, issuers=[]))
    config = persistent(authority, [knot], [HOST], retry_min=600, retry_max=600)
    suite = make_suite(config=config)
    wait_for(lambda: row(suite)["failures"] > 0, lambda: suite.tail(60), 30)

    def refused():
        with pytest.raises(Failed) as failed:
            suite.run("certificate", "order", HOST)
        return failed.value.text

    own = lambda account: account["url"]
    for issuers, uri, why in (
        ([], own, "has 0 issuer-domain-names"),
        ([f"a{n}.test" for n in range(11)], own, "has 11 issuer-domain-names"),
        (["Authority.test"], own, "issuer-domain-names that are none"),
        (["authority.test"], lambda _: "https://elsewhere.test/account/1", "at another host than its directory"),
        (["authority.test"], lambda _: "https://127.0.0.1/1; policy=wildcard", "is no URI"),
    ):
        authority.issuers, authority.uri = issuers, uri
        text = refused()
        assert why in text, text
        assert needed(suite) is None
    # Another name of our account at the same host is what is to be published; its address does, too.
    authority.uri = lambda _: "https://127.0.0.1/alias/7"
    assert "authority.test; accounturi=https://127.0.0.1/alias/7" in refused()
    assert needed(suite) == '"authority.test; accounturi=https://127.0.0.1/alias/7"'
    # The configuration names an issuer: the record is known before the authority is asked, and the authority must agree.
    suite.config["certd"]["persist_issuer"] = "third.test"
    suite.write_config()
    suite.run("reload")
    orders = len(authority.orders)
    wait_for(lambda: "third.test" in (needed(suite) or ""), lambda: needed(suite), 30)
    assert "publish" in refused() and len(authority.orders) == orders
    publish(knot, RECORD, f"third.test; accounturi={account(suite)}")
    assert "certd.persist_issuer third.test is none of them" in refused()
    assert authority.answered == []
    authority.issuers.append("third.test")
    suite.run("certificate", "order", HOST)
    assert names(shown(suite, authority.root())) == [HOST]


def test_the_zone_is_found_without_any_setting(make_suite, world):
    """The servers that the zone names are asked, not the ones that were asked for them: here nobody is at the port that is usual."""
    knot = world(DynamicKnot({DOMAIN: ZONE}))
    authority = world(PersistentAuthority(knot.port))
    config = settings(authority, "dns-persist-01", names=[HOST], nameservers=[f"127.0.0.1:{knot.port}"])
    suite = make_suite(config=config)
    trouble = unpublished(suite)
    assert "127.0.0.1:53" in trouble and authority.answered == [], trouble
