"""DKIM keys that certd changes by itself: no mail leaves with a signature that somebody cannot verify, whatever the name servers do and
whenever certd is killed."""

from pathlib import Path

import pytest

from authority import TSIG, DynamicKnot, open_folder
from servers import zone
from sink import Sink
from suite import Failed, message, wait_for
from verifiers import dkimpy

DOMAIN = "us.example"


@pytest.fixture
def world(make_suite):
    """A primary name server, a secondary that learns late, a suite whose mail all goes to a sink."""
    primary = DynamicKnot({DOMAIN: zone(DOMAIN, [])})
    secondary = DynamicKnot({DOMAIN: zone(DOMAIN, [])}, primary)
    sink = Sink()
    folder = open_folder()
    secret = Path(folder) / "tsig"
    secret.write_text(TSIG + "\n")
    secret.chmod(0o644)
    suite = make_suite(config={
        "relayd": {"dkim_keys_cache": 0, "route": [{"match": "*", "host": "127.0.0.1", "port": sink.port, "tls": "none"}]},
        "certd": {
            "retry_min": 1,
            "retry_max": 2,
            "dns": {
                "provider": "rfc2136",
                "zones": [DOMAIN],
                "server": f"tcp://127.0.0.1:{primary.port}",
                "user": "certd.",
                "secret_file": secret,
                "authoritative": [f"127.0.0.1:{primary.port}", f"127.0.0.1:{secondary.port}"],
                "propagation_pause_ms": 100,
            },
            "dkim": {"rotate": [DOMAIN], "settle": 1, "retire_days": 0, "ttl": 60},
        },
    })
    suite.add_domain(DOMAIN)
    suite.add_account(f"me@{DOMAIN}")
    yield suite, primary, secondary, sink
    sink.close()
    secondary.remove()
    primary.remove()


def put(knot, row):
    """What an operator published before certd came."""
    import dns.query
    import dns.tsig
    import dns.tsigkeyring
    import dns.update
    update = dns.update.UpdateMessage(f"{DOMAIN}.", keyring=dns.tsigkeyring.from_text({"certd.": TSIG}),
                                      keyalgorithm=dns.tsig.HMAC_SHA256)
    text = row["record"]
    parts = " ".join(f'"{text[at:at + 255]}"' for at in range(0, len(text), 255))
    update.add(f"{row['name']}.", 60, "TXT", parts)
    assert dns.query.tcp(update, "127.0.0.1", port=knot.port, timeout=5).rcode() == 0


def signed(suite, sink, knot):
    """`{selector: verifies}` of a mail that leaves now, for somebody who asks this name server."""
    with suite.submission(f"me@{DOMAIN}") as client:
        client.sendmail(f"me@{DOMAIN}", "you@far.example", message("<s@x.example>", to="you@far.example", sender=f"me@{DOMAIN}"))
    ((_, _, mail),) = sink.take(seconds=60)
    return dkimpy(mail, knot)


def step(suite, algorithm="rsa"):
    return next(row for row in suite.json("dkim", "rotations") if row["algorithm"] == algorithm)


def keys(suite):
    return {row["selector"]: row["state"] for row in suite.json("dkim", "show", DOMAIN)}


def test_keys_change_when_all_name_servers_show_the_new_one(world):
    suite, primary, secondary, sink = world
    for selector, algorithm in (("old", "rsa"), ("olde", "ed25519")):
        suite.run("dkim", "create", DOMAIN, "--selector", selector, "--algorithm", algorithm)
    for row in suite.json("dkim", "show", DOMAIN):
        put(primary, row)
    secondary.refresh()
    at = {row["selector"]: f"{row['name']}." for row in suite.json("dkim", "show", DOMAIN)}
    wait_for(lambda: all(secondary.ask(name, "TXT") for name in at.values()), "the secondary has the old records")
    assert signed(suite, sink, secondary) == {"old": True, "olde": True}

    suite.run("dkim", "rotate", DOMAIN)
    wait_for(lambda: all(step(suite, one)["step"] == "waiting for name servers" for one in ("rsa", "ed25519")),
             lambda: f"{suite.json('dkim', 'rotations')}\n{suite.tail(60)}")
    new = {step(suite)["next"], step(suite, "ed25519")["next"]}
    names = [f"{one}._domainkey.{DOMAIN}." for one in new]
    assert all(primary.ask(name, "TXT") for name in names) and not any(secondary.ask(name, "TXT") for name in names)
    assert keys(suite) == {"old": "active", "olde": "active", **{one: "prepared" for one in new}}
    # Whoever asks the slow one could not verify the new keys, and need not.
    assert signed(suite, sink, secondary) == {"old": True, "olde": True}

    before = suite.pids()["certd"]
    suite.kill("certd")
    wait_for(lambda: suite.pids().get("certd") not in (None, before), lambda: suite.tail())
    suite.wait_up()
    assert keys(suite) == {"old": "active", "olde": "active", **{one: "prepared" for one in new}}, "no further keys after a kill"
    assert signed(suite, sink, secondary) == {"old": True, "olde": True}

    secondary.refresh()
    wait_for(lambda: keys(suite) == {one: "active" for one in new}, lambda: f"{keys(suite)}\n{suite.tail(60)}", 60)
    assert signed(suite, sink, secondary) == {one: True for one in new}
    assert signed(suite, sink, primary) == {one: True for one in new}
    wait_for(lambda: not any(primary.ask(name, "TXT") for name in at.values()), "the old records are removed", 30)
    assert all(primary.ask(name, "TXT") for name in names), "and those alone"
    assert step(suite)["step"] == "in use" and step(suite)["next"] == ""
    assert TSIG not in suite.log.read_text()


def test_a_name_server_that_is_away_delays_and_loses_nothing(world):
    suite, primary, secondary, sink = world
    suite.run("dkim", "create", DOMAIN, "--selector", "old")
    put(primary, suite.json("dkim", "show", DOMAIN)[0])
    primary.stop()
    suite.run("dkim", "rotate", DOMAIN)
    wait_for(lambda: step(suite)["trouble"], lambda: suite.tail(60))
    assert keys(suite)["old"] == "active" and len(keys(suite)) == 2
    primary.start()
    wait_for(lambda: step(suite)["step"] == "waiting for name servers", lambda: f"{step(suite)}\n{suite.tail(60)}", 60)
    secondary.refresh()
    wait_for(lambda: set(keys(suite).values()) == {"active"} and "old" not in keys(suite), lambda: f"{keys(suite)}\n{suite.tail(60)}", 60)
    assert set(signed(suite, sink, secondary).values()) == {True}


def test_what_is_not_to_be_rotated_is_not(shared):
    with pytest.raises(Failed) as failed:
        shared.run("dkim", "rotate", "example.test")
    assert "certd.dkim.rotate" in failed.value.text
    assert shared.json("dkim", "rotations") == []
