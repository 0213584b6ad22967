"""certd against a real authority (pebble): certificates come, are shown by the listeners at once, are renewed and revoked; a kill in the
middle of an order loses nothing."""

import base64
import datetime
import hashlib
import json
import re
import smtplib
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from authority import TSIG, DynamicKnot, Pebble, Suggesting, open_folder
from servers import zone
from suite import Failed, free_port, wait_for

HOST = "mail.example.test"
ZONE = zone("example.test", ["mail A 127.0.0.1", "imap A 127.0.0.1", "* A 127.0.0.1"])


@pytest.fixture
def world():
    """Servers that end with the test."""
    made = []

    def keep(server):
        made.append(server)
        return server

    yield keep
    for server in reversed(made):
        server.remove()


def settings(pebble, challenge="http-01", **more):
    return {"certd": {
        "enabled": True,
        "directory": pebble.directory,
        "directory_ca_file": pebble.dir / "ca.pem",
        "contact": ["postmaster@example.test"],
        "challenge": challenge,
        "retry_min": 1,
        "retry_max": 2,
        "order_timeout": 30,
        **more,
    }}


def shown(suite, roots=None, name=HOST, starttls=False):
    """The certificate that a listener shows; with `roots`, to a client that trusts these alone and checks the name."""
    context = ssl.create_default_context(cadata=roots) if roots else ssl.create_default_context()
    if not roots:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if starttls:
        with smtplib.SMTP(*suite.address("mx"), local_hostname="client.example.net", timeout=30) as client:
            client.ehlo()
            client._host = name
            client.starttls(context=context)
            der = client.sock.getpeercert(True)
    else:
        with socket.create_connection(suite.address("imaps"), timeout=30) as plain:
            with context.wrap_socket(plain, server_hostname=name) as tls:
                der = tls.getpeercert(True)
    return x509.load_der_x509_certificate(der)


def names(certificate):
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)


def row(suite, which=HOST):
    return next(one for one in suite.json("certificate", "list") if one.get("id") == which)


def good(suite, which=HOST, seconds=60):
    wait_for(lambda: row(suite, which)["state"] == "good", lambda: f"{row(suite, which)}\n{suite.tail(60)}", seconds, 0.1)
    return row(suite, which)


def state(suite, which=HOST):
    return json.loads((suite.dir / f"state/certificates/certificate-{which}.json").read_text())


def test_http_01_from_an_authority_that_is_away_to_a_revoked_certificate(make_suite, world):
    """The whole life: the authority is away, comes (and refuses every third nonce), gives, renews, revokes."""
    knot = world(DynamicKnot({"example.test": ZONE}))
    http = free_port()
    pebble = world(Pebble(knot.port, http=http, refused_nonces=33))
    suite = make_suite(config=settings(pebble, http_address=f"127.0.0.1:{http}", names=[HOST, "imap.example.test"]))
    pids = suite.pids()
    first = shown(suite)
    assert names(first) == [HOST, "localhost"]
    wait_for(lambda: row(suite)["failures"] >= 2, lambda: f"{row(suite)}", 30)
    assert row(suite)["state"] == "failed" and "refused" in row(suite)["trouble"].lower()
    checked = suite.run("check", "--offline", check=False).stdout
    assert re.search(r"error +certificates .*certd failed \d+ times", checked), checked

    pebble.start()
    suite.run("certificate", "order")
    got = good(suite)
    assert got["failures"] == 0 and got["trouble"] is None
    roots = pebble.root()
    for starttls in (False, True):
        used = shown(suite, roots, starttls=starttls)
        assert set(names(used)) == {HOST, "imap.example.test"}
    shown(suite, roots, name="imap.example.test")
    # Clients that name no host get it, too.
    assert shown(suite, roots=None, name=None).serial_number == used.serial_number
    assert "is good until" in suite.run("certificate", "order", HOST).stdout
    assert shown(suite, roots).serial_number == used.serial_number, "what is good is left alone"

    suite.run("certificate", "renew", HOST)
    renewed = shown(suite, roots)
    assert renewed.serial_number != used.serial_number
    spki = lambda one: one.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert spki(renewed) != spki(used), "each certificate has its own key"
    assert pebble.status(renewed.serial_number)["Status"] == "Valid"

    suite.run("certificate", "revoke", HOST, "--reason", "key-compromise")
    status = pebble.status(renewed.serial_number)
    assert (status["Status"], status["Reason"]) == ("Revoked", 1), status
    last = shown(suite, roots)
    assert last.serial_number != renewed.serial_number and spki(last) != spki(renewed)
    assert pebble.status(last.serial_number)["Status"] == "Valid"

    assert suite.pids() == pids, "nothing was restarted"
    log = suite.log.read_text()
    assert "it is tried again" in log and "certificate revoked" in log
    for secret in (suite.dir / "state/keys/acme").glob("*.pem"):
        body = secret.read_text().split("-----")[2].strip().splitlines()[0]
        assert body not in log and body not in "".join(
            file.read_text() for file in (suite.dir / "state/certificates").glob("*.json"))
    with pytest.raises(Failed) as failed:
        suite.run("certificate", "order", "other.example.test")
    assert f"there are {HOST}" in failed.value.text


def test_a_certificate_survives_a_restart_of_everything_and_the_account_is_found_again(make_suite, world):
    knot = world(DynamicKnot({"example.test": ZONE}))
    http = free_port()
    pebble = world(Pebble(knot.port, http=http))
    pebble.start()
    suite = make_suite(config=settings(pebble, http_address=f"127.0.0.1:{http}"))
    good(suite)
    before = shown(suite, pebble.root())
    account = json.loads((suite.dir / "state/certificates/account.json").read_text())
    assert account["url"].startswith(f"https://127.0.0.1:{pebble.port}/")
    for role in ("certd", "keyd"):
        suite.kill(role)
    suite.wait_up()
    good(suite)
    assert shown(suite, pebble.root()).serial_number == before.serial_number
    # All notes lost: the account is found by its key, and nothing is ordered that is there.
    suite.stop()
    for file in (suite.dir / "state/certificates").iterdir():
        file.unlink()
    suite.start()
    good(suite)
    suite.run("certificate", "renew")
    assert shown(suite, pebble.root()).serial_number != before.serial_number
    again = json.loads((suite.dir / "state/certificates/account.json").read_text())
    assert again["url"] == account["url"]
    # The authority forgets everything: another account is made.
    pebble.stop()
    pebble.start()
    suite.run("certificate", "renew")
    assert "does not know our account" in suite.log.read_text()
    shown(suite, pebble.root())


def test_renewal_comes_by_itself(make_suite, world):
    """Certificates that live for some seconds are replaced again and again."""
    knot = world(DynamicKnot({"example.test": ZONE}))
    http = free_port()
    pebble = world(Pebble(knot.port, http=http, validity=30))
    pebble.start()
    suite = make_suite(config=settings(pebble, http_address=f"127.0.0.1:{http}", renew_percent=10))
    good(suite)
    roots, seen = pebble.root(), set()

    def third():
        one = shown(suite, roots)
        seen.add(one.serial_number)
        assert one.not_valid_after_utc > datetime.datetime.now(datetime.UTC), "an expired one was shown"
        return len(seen) >= 3

    wait_for(third, lambda: f"{len(seen)} certificates\n{suite.tail(60)}", 60, 0.2)


def test_the_authority_suggests_when_to_renew(make_suite, world):
    """RFC 9773: its window counts, not the age; one in the past renews at once."""
    knot = world(DynamicKnot({"example.test": ZONE}))
    http = free_port()
    pebble = world(Pebble(knot.port, http=http))
    pebble.start()
    front = world(Suggesting(pebble))
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    days = lambda count: now + datetime.timedelta(days=count)
    front.window = days(10), days(20)
    suite = make_suite(config=settings(front, http_address=f"127.0.0.1:{http}", renew_percent=1))
    good(suite)
    first = shown(suite, pebble.root())
    wait_for(lambda: row(suite)["window"], lambda: f"{row(suite)}\n{suite.tail()}")
    assert row(suite)["window"] == [int(days(10).timestamp()), int(days(20).timestamp())]
    assert days(10).timestamp() <= row(suite)["renew_at"] <= days(20).timestamp()
    # RFC 9773 4.1
    octets = lambda number: number.to_bytes(number.bit_length() // 8 + 1, "big")
    text = lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")
    authority = first.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert front.asked[0] == f"{text(authority)}.{text(octets(first.serial_number))}"
    # After a restart the same time holds, and nothing is asked before the hour is over.
    chosen, asked = row(suite)["renew_at"], len(front.asked)
    suite.kill("certd")
    suite.wait_up()
    good(suite)
    assert row(suite)["renew_at"] == chosen and len(front.asked) == asked
    # The authority must revoke it, and says so by a window in the past. certd asks again, as its notes are gone.
    suite.stop()
    (suite.dir / f"state/certificates/certificate-{HOST}.json").unlink()
    front.window = days(-2), days(-1)
    suite.start()
    wait_for(lambda: shown(suite).serial_number != first.serial_number, lambda: suite.tail(60), 60)
    # What came just now is not replaced again because of it.
    assert good(suite)["renew_at"] > datetime.datetime.now(datetime.UTC).timestamp() + 3000


def test_tls_alpn_01(make_suite, world):
    knot = world(DynamicKnot({"example.test": ZONE}))
    tls = free_port()
    pebble = world(Pebble(knot.port, tls=tls))
    pebble.start()
    suite = make_suite(config=settings(pebble, "tls-alpn-01", tls_alpn_address=f"127.0.0.1:{tls}", key="ecdsa-p384"))
    good(suite)
    assert shown(suite, pebble.root()).public_key().curve.name == "secp384r1"
    # Whoever does not ask for the challenge's protocol is shown nothing.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", tls), timeout=10) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain, server_hostname=HOST)


def dns_settings(pebble, servers, suite_dir, **more):
    secret = Path(suite_dir) / "tsig"
    secret.write_text(TSIG + "\n")
    secret.chmod(0o644)
    return settings(pebble, "dns-01", dns={
        "provider": "rfc2136",
        "zones": ["example.test"],
        "server": f"tcp://127.0.0.1:{servers[0].port}",
        "user": "certd.",
        "secret_file": secret,
        "authoritative": [f"127.0.0.1:{server.port}" for server in servers],
        "propagation_pause_ms": 100,
        "propagation_timeout": 60,
    }, **more)


def test_dns_01_waits_for_all_servers_and_survives_a_kill(make_suite, world):
    """The secondary shows the record late. certd is killed while it waits, and finishes the same order."""
    primary = world(DynamicKnot({"example.test": ZONE}))
    secondary = world(DynamicKnot({"example.test": ZONE}, primary))
    pebble = world(Pebble(secondary.port))
    pebble.start()
    folder = open_folder()
    config = dns_settings(pebble, [primary, secondary], folder, names=["*.example.test", "example.test"])
    suite = make_suite(config=config)
    challenge = "_acme-challenge.example.test."
    which = "example.test"
    wait_for(lambda: len(primary.ask(challenge, "TXT")) == 2, lambda: suite.tail(60), 30)
    before = state(suite, which)
    assert before["order"] and len(before["published"]) == 2
    assert secondary.ask(challenge, "TXT") == [] and row(suite, which)["state"] != "good"
    pid = suite.pids()["certd"]
    suite.kill("certd")
    wait_for(lambda: suite.pids().get("certd") not in (None, pid), lambda: suite.tail(), 30)
    wait_for(lambda: "taken up again" in suite.log.read_text(), lambda: suite.tail(60), 30)
    assert state(suite, which)["order"] == before["order"]
    assert len(primary.ask(challenge, "TXT")) == 2, "not published twice"
    secondary.refresh()
    good(suite, which)
    certificate = shown(suite, pebble.root(), name="anything.example.test")
    assert set(names(certificate)) == {"*.example.test", "example.test"}
    wait_for(lambda: primary.ask(challenge, "TXT") == [], "the records of the challenge are removed", 30)
    assert state(suite, which)["published"] == []
    assert TSIG not in suite.log.read_text() and TSIG not in suite.run("config", "show").stdout


def test_the_next_key_is_announced_before_it_is_used(make_suite, world):
    """RFC 7671 8.1: whoever asks the slowest name server always finds a TLSA record for the key that is shown."""
    empty = zone("example.test", ["mail A 127.0.0.1"])
    primary = world(DynamicKnot({"example.test": empty}))
    secondary = world(DynamicKnot({"example.test": empty}, primary))
    http = free_port()
    pebble = world(Pebble(primary.port, http=http))
    folder = open_folder()
    config = dns_settings(pebble, [primary, secondary], folder, http_address=f"127.0.0.1:{http}")
    config["certd"]["challenge"] = "http-01"
    config["certd"]["dns"]["tlsa_settle"] = 1
    suite = make_suite(config=config)
    suite.add_domain("example.test")
    name = f"_25._tcp.{HOST}."
    of = lambda one: hashlib.sha256(one.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    digests = lambda server: {text.split()[-1] for text in server.ask(name, "TLSA")}
    suite.run("dns", "publish", "example.test", "--resolver", f"127.0.0.1:{primary.port}", "--yes", check=False)
    secondary.refresh()
    own = of(shown(suite))
    wait_for(lambda: digests(secondary) == {own}, lambda: f"{digests(secondary)}")
    pebble.start()
    wait_for(lambda: len(digests(primary)) == 2, lambda: suite.tail(60), 30)
    assert of(shown(suite)) == own and digests(secondary) == {own}
    suite.kill("certd")
    suite.wait_up()
    assert "TLSA" in suite.run("certificate", "order", HOST, check=False).stderr
    assert of(shown(suite)) == own and len(digests(primary)) == 2
    secondary.refresh()
    good(suite)
    used = of(shown(suite, pebble.root()))
    assert used != own and used in digests(secondary)
    wait_for(lambda: digests(primary) == {used}, lambda: f"{digests(primary)}")
    checked = suite.run("dns", "publish", "example.test", "--resolver", f"127.0.0.1:{primary.port}", "--yes", check=False)
    assert "TLSA" not in checked.stdout, checked.stdout


def test_names_outside_the_zones_are_not_touched(make_suite, world):
    primary = world(DynamicKnot({"example.test": ZONE, "other.test": zone("other.test", ["mail A 127.0.0.1"])}))
    pebble = world(Pebble(primary.port))
    pebble.start()
    folder = open_folder()
    suite = make_suite(config=dns_settings(pebble, [primary], folder, names=["mail.other.test"]))
    wait_for(lambda: row(suite, "mail.other.test")["failures"] > 0, lambda: suite.tail(60), 30)
    assert "in none of the zones" in row(suite, "mail.other.test")["trouble"]
    assert primary.ask("_acme-challenge.mail.other.test.", "TXT") == []


def test_an_authority_that_wants_customers_only(make_suite, world):
    """External account binding: the customer's key ties the account key that keyd holds."""
    knot = world(DynamicKnot({"example.test": ZONE}))
    http = free_port()
    key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    pebble = world(Pebble(knot.port, http=http, bindings={"kid-1": key}))
    pebble.start()
    folder = open_folder()
    (folder / "key").write_text(key)
    (folder / "wrong").write_text(key[::-1])
    for name in ("key", "wrong"):
        (folder / name).chmod(0o644)
    config = settings(pebble, http_address=f"127.0.0.1:{http}", eab_key_id="kid-1", eab_key_file=folder / "wrong")
    suite = make_suite(config=config)
    wait_for(lambda: row(suite)["failures"] > 0, lambda: suite.tail(60), 30)
    suite.config["certd"]["eab_key_file"] = folder / "key"
    suite.write_config()
    suite.stop()
    suite.start()
    good(suite)
    shown(suite, pebble.root())


def test_without_configuration_nothing_is_reached_and_nothing_listens(shared):
    row = next(one for one in shared.json("status") if one["role"] == "certd")
    assert row["state"] == "off"
    only = shared.json("certificate", "list")
    assert [one["from"] for one in only] == ["keyd itself"]
    with pytest.raises(Failed) as failed:
        shared.run("certificate", "order")
    assert "not enabled" in failed.value.text
    wrong = {"POSTHOUSE_CERTD__ENABLED": "true", "POSTHOUSE_CERTD__CHALLENGE": "dns-01"}
    said = shared.run("config", "check", check=False, env=wrong)
    assert said.returncode == 3 and "certd.dns.provider" in said.stderr
    # The listeners work with the certificate that keyd made.
    assert names(shown(shared)) == [HOST, "localhost"]
