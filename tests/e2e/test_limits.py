"""Rates, quotas and greylisting, as clients see them: by address, account and guesses, over restarts, and without limitd."""

import contextlib
import os
import signal
import smtplib
import socket
import subprocess

import pytest

from servers import Knot, zone
from suite import Suite, message, wait_for

HOSTED = "example.test"
ALICE = f"alice@{HOSTED}"
BOB = f"bob@{HOSTED}"

RULES = [
    {"name": "account", "key": ["account"], "count": "recipients", "limit": "3/1h"},
    {"name": "stranger", "login": False, "key": ["address"], "limit": "2/1h"},
    {"name": "crowd", "network": ["127.0.0.9"], "key": ["address"], "count": "connections", "limit": "3/1h"},
    {"name": "guess", "listener": ["mx"], "key": ["address"], "count": "unknown", "limit": "2/1h"},
    {"name": "large", "network": ["127.0.0.8"], "key": ["address"], "count": "octets", "limit": "100K/1h"},
]


@pytest.fixture(scope="module")
def suite():
    suite = Suite(config={
        "smtpd": {"trusted_networks": [], "limits": {"unknown_delay_ms": 0}},
        "limitd": {"enabled": True, "write_ms": 100, "rule": RULES},
    })
    suite.start()
    suite.add_domain(HOSTED)
    for account in (ALICE, BOB):
        suite.add_account(account)
    yield suite
    suite.remove()


@contextlib.contextmanager
def stranger(suite, address, listener="mx"):
    client = smtplib.SMTP(timeout=30, source_address=(address, 0), local_hostname="client.example.net")
    client.connect(*suite.address(listener))
    client.ehlo()
    try:
        yield client
    finally:
        client.close()


def greeting(suite, address):
    with socket.create_connection(suite.address("mx"), timeout=30, source_address=(address, 0)) as one:
        return one.recv(512).decode()


def counted(suite, key, rule, used):
    """The count is there, and written: it is shown by a limitd that was killed."""
    rows = suite.json("limit", "show", key)
    return any(row["rule"] == rule and row["used"] == used for row in rows)


def test_a_stolen_password_sends_little(suite):
    with suite.submission(ALICE) as client:
        refused = client.sendmail(ALICE, [ALICE, BOB], message("<1@example.test>", sender=ALICE))
        assert refused == {}
        client.mail(ALICE)
        assert client.rcpt(ALICE)[0] == 250
        code, text = client.rcpt(BOB)
        assert code == 452 and text.startswith(b"4.7.1 ") and b"account" in text, text
        client.rset()
    suite.wait_messages(BOB, 1)
    assert counted(suite, ALICE, "account", 2)
    # Written within a tenth of a second, and there after a kill.
    wait_for(lambda: (suite.dir / "state/limits/limits.db").exists(), "limits.db")
    suite.run("limit", "show", ALICE)

    def survives():
        pid = suite.pids().get("limitd")
        assert suite.kill("limitd")
        wait_for(lambda: suite.pids().get("limitd") not in (None, pid), "limitd is up again")
        wait_for(lambda: suite.run("limit", "list", check=False).returncode == 0, "limitd answers")
        return counted(suite, ALICE, "account", 2)

    wait_for(survives, "the quota is known after kill -9")
    with suite.submission(ALICE) as client:
        client.mail(ALICE)
        assert client.rcpt(ALICE)[0] == 250
        assert client.rcpt(BOB)[0] == 452
    # Bob has a count of his own.
    with suite.submission(BOB) as client:
        assert client.sendmail(BOB, [ALICE], message("<2@example.test>", sender=BOB)) == {}
    assert suite.json("limit", "reset", ALICE)["forgotten"] >= 1
    with suite.submission(ALICE) as client:
        assert client.sendmail(ALICE, [ALICE, BOB], message("<3@example.test>", sender=ALICE)) == {}


def test_a_stranger_sends_so_many_messages(suite):
    with stranger(suite, "127.0.0.5") as client:
        for number in range(2):
            assert client.sendmail("a@example.net", [ALICE], message(f"<s{number}@example.net>")) == {}
        code, text = client.mail("a@example.net")
        assert code == 451 and b"stranger" in text, text
        # A message that was not taken has cost nothing.
    with stranger(suite, "127.0.0.6") as client:
        for _ in range(5):
            client.mail("a@example.net")
            client.rcpt(ALICE)
            client.rset()
        assert client.sendmail("a@example.net", [ALICE], message("<t@example.net>")) == {}
    rows = suite.json("limit", "list", "--rule", "stranger")
    assert {row["key"]: row["used"] for row in rows} == {"127.0.0.5": 2, "127.0.0.6": 1}
    assert all(row["wait"] > 0 for row in rows if row["used"] == 2)


def test_connections_are_counted(suite):
    assert [greeting(suite, "127.0.0.9")[:3] for _ in range(4)] == ["220", "220", "220", "421"]
    assert greeting(suite, "127.0.0.10").startswith("220")


def test_who_guesses_has_to_go(suite):
    with stranger(suite, "127.0.0.7") as client:
        client.mail("a@example.net")
        for number in range(2):
            assert client.rcpt(f"guess{number}@{HOSTED}")[0] == 550
        assert client.rcpt(f"guess2@{HOSTED}")[0] == 550
        with pytest.raises(smtplib.SMTPServerDisconnected):
            code, text = client.noop()
            assert code == 421, text
            client.noop()
    assert greeting(suite, "127.0.0.7").startswith("421 4.7.0 Too many unknown recipients")
    assert greeting(suite, "127.0.0.11").startswith("220")


def test_octets(suite):
    with stranger(suite, "127.0.0.8") as client:
        code, text = client.mail("a@example.net", ["SIZE=200000"])
        assert code == 552 and text.startswith(b"5.3.4"), text
        large = message("<o@example.net>", text="x" * 70 + "\r\n") + b"y" * 60_000
        assert client.sendmail("a@example.net", [ALICE], large) == {}
        code, text = client.mail("a@example.net", ["SIZE=50000"])
        assert code == 452 and b"large" in text, text


def test_limitd_that_does_not_answer(suite):
    """Mail goes on, the first one after a few seconds, and once it is there again it counts."""
    pid = suite.pids()["limitd"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with stranger(suite, "127.0.0.12") as client:
            for number in range(4):
                assert client.sendmail("a@example.net", [ALICE], message(f"<f{number}@example.net>")) == {}
    finally:
        os.kill(pid, signal.SIGCONT)
    assert suite.log.read_text().count("limitd is away") == 1

    def counts():
        with stranger(suite, "127.0.0.13") as client:
            return client.mail("a@example.net")[0] == 250 and "limitd is there again" in suite.log.read_text()

    wait_for(counts, "limitd is asked again")


def swaks(suite, sender, to, address, *more):
    host, port = suite.address("mx")
    return subprocess.run(
        ["swaks", "--server", host, "--port", str(port), "--from", sender, "--to", to, "--helo", "client.example.net",
         "--local-interface", address, "--timeout", "20", *more],
        capture_output=True, text=True, timeout=60,
    )


@pytest.fixture(scope="module")
def grey():
    suite = Suite(config={
        "smtpd": {"trusted_networks": []},
        "limitd": {
            "enabled": True, "write_ms": 100, "ipv4_network": 32,
            "greylist": {"enabled": True, "delay": 2, "network_after": 2, "spf_pass": "none", "except_recipient": [f"postmaster@{HOSTED}", BOB]},
        },
    })
    suite.start()
    suite.add_domain(HOSTED)
    for account in (ALICE, BOB):
        suite.add_account(account)
    yield suite
    suite.remove()


def test_unknown_clients_come_again(grey):
    first = swaks(grey, "a@example.net", ALICE, "127.0.0.5")
    assert first.returncode != 0 and "451 4.7.1 Greylisted" in first.stdout, first.stdout
    assert grey.json("greylist", "list", ALICE)["waiting"][0]["network"] == "127.0.0.5/32"
    wait_for(lambda: swaks(grey, "a@example.net", ALICE, "127.0.0.5").returncode == 0, "it is let in", 20, 0.3)
    # Not from elsewhere, and not from somebody else.
    assert swaks(grey, "a@example.net", ALICE, "127.0.0.6").returncode != 0
    assert swaks(grey, "b@example.net", ALICE, "127.0.0.5").returncode != 0
    # Known after a kill.
    wait_for(lambda: grey.json("greylist", "list", ALICE)["waiting"][-1]["passed"], "it is written")
    grey.kill("limitd")
    wait_for(lambda: grey.run("greylist", "list", check=False).returncode == 0, "limitd answers")
    assert swaks(grey, "a@example.net", ALICE, "127.0.0.5").returncode == 0
    # Twice was enough: the network need not wait any more.
    assert swaks(grey, "c@example.net", ALICE, "127.0.0.5").returncode == 0
    networks = grey.json("greylist", "list", "127.0.0.5/32")["networks"]
    assert networks[0]["allowed"] and networks[0]["good"] == 2, networks
    assert grey.json("greylist", "forget", "127.0.0.5/32")["forgotten"] >= 2
    assert swaks(grey, "c@example.net", ALICE, "127.0.0.5").returncode != 0


def test_who_need_not_wait(grey):
    assert swaks(grey, "a@example.net", BOB, "127.0.0.20").returncode == 0
    grey.run("greylist", "allow", "127.0.0.21", "--lasting", "1h")
    assert swaks(grey, "a@example.net", ALICE, "127.0.0.21").returncode == 0
    with grey.submission(BOB) as client:
        assert client.sendmail(BOB, [ALICE], message("<l@example.test>", sender=BOB)) == {}


def test_a_callout_is_answered_and_a_report_waits(grey):
    with stranger(grey, "127.0.0.30") as client:
        client.mail("")
        assert client.rcpt(ALICE)[0] == 250
        assert client.data(message("<r@example.net>"))[0] == 451


def test_our_own_queue_comes_again(grey):
    """Another Posthouse sends: its queue takes the 451 and has delivered a little later."""
    host, port = grey.address("mx")
    sender = Suite(config={"relayd": {"route": [{"match": "*", "host": host, "port": port, "tls": "none"}]}})
    try:
        sender.start()
        sender.add_domain("sender.example")
        sender.add_account("carol@sender.example")
        with sender.submission("carol@sender.example") as client:
            client.sendmail("carol@sender.example", [ALICE], message("<own@sender.example>", sender="carol@sender.example"))
        found = lambda: [one for one in grey.messages(ALICE) if b"<own@sender.example>" in one]
        wait_for(found, lambda: f"the message came\n{sender.tail()}", 60, 0.3)
        sender.wait_queue_empty()
        assert "Greylisted" in sender.log.read_text()
    finally:
        sender.remove()


def test_the_schema_of_counts_is_shown(suite):
    rows = {row["database"]: row for row in suite.json("schema", "show")["schemas"]}
    assert list(rows) == ["store", "directory", "limits"]
    assert rows["limits"]["version"] == rows["limits"]["known"] == 1
    assert rows["limits"]["at_start"] == "as this program needs it"


@pytest.fixture(scope="module")
def known_senders():
    """Greylisting where DNS knows the senders: large.example sends from several addresses, named.example has a name."""
    knot = Knot({
        "large.example": zone("large.example", ['@ TXT "v=spf1 ip4:127.0.0.20/30 -all"']),
        "named.example": zone("named.example", ["out A 192.0.2.30", "false A 192.0.2.99"]),
        "2.0.192.in-addr.arpa": zone("2.0.192.in-addr.arpa", ["30 PTR out.named.example.", "31 PTR false.named.example."]),
    })
    suite = Suite(config={
        "smtpd": {"trusted_networks": [], "proxy_networks": [PROXY], "checks": {"nameservers": [f"127.0.0.1:{knot.port}"]}},
        "limitd": {
            "enabled": True, "write_ms": 100, "ipv4_network": 32,
            "greylist": {"enabled": True, "delay": 2, "network_after": 2, "except_client": [".named.example"]},
        },
    })
    try:
        suite.start()
        suite.add_domain(HOSTED)
        for account in (ALICE, BOB):
            suite.add_account(account)
        yield suite
    finally:
        suite.remove()
        knot.remove()


# Names of loopback addresses are everybody's own affair: clients with a name come by a proxy.
PROXY = "127.0.0.200"


def waits(suite, sender, address, to=ALICE):
    if address.startswith("127."):
        sent = swaks(suite, sender, to, address)
    else:
        header = ["--proxy-version", "1", "--proxy-family", "TCP4", "--proxy-source", address, "--proxy-source-port", "4000",
                  "--proxy-dest", "192.0.2.1", "--proxy-dest-port", "25"]
        sent = swaks(suite, sender, to, PROXY, *header)
    assert sent.returncode == 0 or "451 4.7.1 Greylisted" in sent.stdout, sent.stdout
    return sent.returncode != 0


def test_a_domain_comes_again_from_another_address(known_senders):
    suite = known_senders
    assert waits(suite, "a@large.example", "127.0.0.20")
    row, = suite.json("greylist", "list", "a@large.example")["waiting"]
    assert row["network"] == "large.example"
    wait_for(lambda: not waits(suite, "a@large.example", "127.0.0.21"), "it is let in", 20, 0.3)
    # Whom SPF does not know is judged by its address.
    assert waits(suite, "a@large.example", "127.0.0.24")
    networks = {row["network"] for row in suite.json("greylist", "list", "a@large.example")["waiting"]}
    assert networks == {"large.example", "127.0.0.24/32"}
    # After a second message the domain need not wait, whoever it writes to.
    assert not waits(suite, "a@large.example", "127.0.0.22")
    assert not waits(suite, "b@large.example", "127.0.0.23", BOB)
    assert waits(suite, "b@large.example", "127.0.0.25", BOB)


def test_a_client_with_a_name_need_not_wait(known_senders):
    assert not waits(known_senders, "a@elsewhere.example", "192.0.2.30")
    # A name that does not lead back is nobody's.
    assert waits(known_senders, "a@elsewhere.example", "192.0.2.31")
