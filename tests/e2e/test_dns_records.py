"""`posthouse dns`: what it prints is loaded by a real name server and found well; each record that is broken is named."""

import json
import shutil
import subprocess

import pytest

from servers import Knot, zone
from suite import Failed

DOMAIN = "shop.example"
SETTINGS = {
    "suite": {"hostname": f"mail.{DOMAIN}"},
    "dns": {
        "addresses": ["192.0.2.7", "2001:db8::7"],
        "mta_sts": "enforce",
        "autoconfig": f"mail.{DOMAIN}",
        "caa": ["letsencrypt.org; accounturi=https://acme.example/acct/1"],
    },
}


@pytest.fixture(scope="module")
def printed():
    """A suite with both kinds of DKIM keys, and what it wants published: the text and the rows."""
    from suite import Suite
    suite = Suite(config=SETTINGS).start()
    suite.run("domain", "add", DOMAIN)
    suite.run("dkim", "create", DOMAIN, "--selector", "r1")
    suite.run("dkim", "create", DOMAIN, "--selector", "e1", "--algorithm", "ed25519")
    yield suite, suite.run("dns", "show", DOMAIN).stdout, suite.json("dns", "show", DOMAIN)
    suite.remove()


def check(suite, lines):
    """What the check finds when these lines are the zone: the findings that are not well, and the exit status."""
    knot = Knot({DOMAIN: zone(DOMAIN, lines)})
    try:
        run = suite.run("--json", "dns", "check", DOMAIN, "--resolver", f"127.0.0.1:{knot.port}", check=False)
    finally:
        knot.remove()
    found = json.loads(run.stdout)
    return [f"{f['name']} {f['type']} {f['verdict']}" for f in found if f["verdict"] != "present"], run.returncode


def test_the_text_is_a_zone(printed, tmp_path):
    _, text, rows = printed
    kinds = {row["type"] for row in rows}
    assert kinds == {"MX", "A", "AAAA", "TXT", "TLSA", "SRV", "CNAME", "CAA"}, kinds
    purposes = {row["purpose"] for row in rows}
    assert {"SPF", "SPF of the host", "DKIM", "DMARC", "TLS reports", "MTA-STS", "services", "autoconfig"} <= purposes
    named = shutil.which("named-checkzone") or shutil.which("named-checkzone", path="/usr/sbin")
    if not named:
        pytest.skip("named-checkzone is not installed (tests/setup)")
    (tmp_path / "zone").write_text(zone(DOMAIN, [text]))
    checked = subprocess.run([named, "-i", "local", DOMAIN, tmp_path / "zone"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_tlsa_is_of_the_certificate_that_is_served(printed):
    import hashlib
    import ssl
    suite, _, rows = printed
    (record,) = [row for row in rows if row["type"] == "TLSA"]
    served = ssl.get_server_certificate((suite.host, suite.ports["imaps"]))
    key = subprocess.run(["openssl", "x509", "-noout", "-pubkey"], input=served, capture_output=True, text=True, check=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=key.encode(), capture_output=True, check=True).stdout
    assert record["name"] == f"_25._tcp.mail.{DOMAIN}"
    assert record["data"] == f"3 1 1 {hashlib.sha256(der).hexdigest()}"


def test_what_is_printed_is_found_well(printed):
    suite, text, _ = printed
    assert check(suite, [text]) == ([], 0)


def test_each_record_that_is_gone_is_named(printed):
    suite, text, rows = printed
    lines = [line for line in text.splitlines() if line and not line.startswith(";")]
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines):
        found, status = check(suite, [other for other in lines if other != line])
        names = {one.split()[0] for one in found}
        assert f"{row['name']} {row['type']} missing" in found and status == 3, (line, found)
        # An alias that has no address any more goes with its host.
        assert names <= {row["name"], f"mta-sts.{DOMAIN}", f"autoconfig.{DOMAIN}"}, (line, found)


@pytest.mark.parametrize("what, more, less, wanted", [
    ("a second SPF", f'{DOMAIN}. TXT "v=spf1 -all"', None, (f"{DOMAIN} TXT conflict", 3)),
    ("a second DMARC", f'_dmarc.{DOMAIN}. TXT "v=DMARC1; p=none"', None, (f"_dmarc.{DOMAIN} TXT conflict", 3)),
    ("weak SPF", f'{DOMAIN}. TXT "v=spf1 mx ?all"', '"v=spf1 mx -all"', (f"{DOMAIN} TXT different", 3)),
    ("another SPF", f'{DOMAIN}. TXT "v=spf1 MX ip4:198.51.100.1 -all"', '"v=spf1 mx -all"', (f"{DOMAIN} TXT note", 0)),
    ("stricter DMARC", f'_dmarc.{DOMAIN}. TXT "v=DMARC1; p=reject; rua=mailto:else@where.example"', "_dmarc.",
     (f"_dmarc.{DOMAIN} TXT note", 0)),
    ("weaker DMARC", f'_dmarc.{DOMAIN}. TXT "v=DMARC1; p=none"', "_dmarc.", (f"_dmarc.{DOMAIN} TXT different", 3)),
    ("another key", f'r1._domainkey.{DOMAIN}. TXT "v=DKIM1; k=rsa; p=MIGf"', "r1._domainkey", (f"r1._domainkey.{DOMAIN} TXT different", 3)),
    ("no service", f"_imaps._tcp.{DOMAIN}. SRV 0 0 0 .", None, (f"_imaps._tcp.{DOMAIN} SRV conflict", 3)),
    ("a foreign exchanger", f"{DOMAIN}. MX 20 backup.example.net.", None, (f"{DOMAIN} MX conflict", 3)),
    ("an old policy", f'_mta-sts.{DOMAIN}. TXT "v=STSv1; id=1"', "_mta-sts.", (f"_mta-sts.{DOMAIN} TXT different", 3)),
    ("other certificates", f'{DOMAIN}. CAA 0 issue "ca.example"', "CAA", (f"{DOMAIN} CAA different", 3)),
    ("a key to come", f"_25._tcp.mail.{DOMAIN}. TLSA 3 1 1 {'ab' * 32}", None, (f"_25._tcp.mail.{DOMAIN} TLSA note", 0)),
])
def test_what_differs_is_told(printed, what, more, less, wanted):
    suite, text, _ = printed
    lines = [line for line in text.splitlines() if not (less and less in line and not line.startswith(";"))]
    found, status = check(suite, [*lines, more])
    assert (found, status) == ([wanted[0]], wanted[1]), what


def test_a_name_server_that_is_away_is_not_taken_for_an_answer(printed):
    from suite import free_port
    suite, _, rows = printed
    with pytest.raises(Failed) as failed:
        suite.run("dns", "check", DOMAIN, "--resolver", f"127.0.0.1:{free_port()}")
    assert failed.value.code == 3 and failed.value.text.count("unknown") >= len(rows)


def test_the_section_is_checked(make_suite):
    suite = make_suite(config={"dns": {"spf": "spf1 -all"}}, start=False)
    with pytest.raises(Failed) as failed:
        suite.run("config", "check")
    assert failed.value.code == 3 and "dns.spf" in failed.value.text
