"""`posthouse dns publish`: what is missing is published and found well by `dns check`; what others published stays."""

from pathlib import Path

import pytest

from authority import TSIG, DynamicKnot, open_folder
from servers import zone
from suite import Failed

DOMAIN = "shop.example"


@pytest.fixture(scope="module")
def shop():
    from suite import Suite
    knot = DynamicKnot({DOMAIN: zone(DOMAIN, ["verify TXT \"somebody's\""])})
    folder = open_folder()
    secret = Path(folder) / "tsig"
    secret.write_text(TSIG + "\n")
    secret.chmod(0o644)
    suite = Suite(config={
        "suite": {"hostname": f"mail.{DOMAIN}"},
        "dns": {
            "addresses": ["192.0.2.7", "2001:db8::7"],
            "mta_sts": "enforce",
            "autoconfig": f"mail.{DOMAIN}",
            "caa": ["letsencrypt.org; accounturi=https://acme.example/acct/1"],
        },
        "certd": {"dns": {
            "provider": "rfc2136", "zones": [DOMAIN], "server": f"tcp://127.0.0.1:{knot.port}", "user": "certd.", "secret_file": secret,
        }},
    }).start()
    suite.add_domain(DOMAIN)
    suite.run("dkim", "create", DOMAIN, "--selector", "r1")
    suite.run("dkim", "create", DOMAIN, "--selector", "e1", "--algorithm", "ed25519")
    yield suite, knot
    suite.remove()
    knot.remove()


def dns(suite, knot, *arguments, check=True):
    return suite.run("dns", *arguments, "--resolver", f"127.0.0.1:{knot.port}", check=check)


def update(knot, change):
    import dns.query
    import dns.tsig
    import dns.tsigkeyring
    import dns.update
    message = dns.update.UpdateMessage(f"{DOMAIN}.", keyring=dns.tsigkeyring.from_text({"certd.": TSIG}),
                                       keyalgorithm=dns.tsig.HMAC_SHA256)
    change(message)
    assert dns.query.tcp(message, "127.0.0.1", port=knot.port, timeout=5).rcode() == 0


def test_from_an_empty_zone_and_back(shop):
    suite, knot = shop
    shown = dns(suite, knot, "publish", DOMAIN).stdout
    assert "Nothing was changed" in shown and f"r1._domainkey.{DOMAIN}" in shown
    assert knot.ask(f"{DOMAIN}.", "MX") == [], "only shown"
    assert "Done." in dns(suite, knot, "publish", DOMAIN, "--yes").stdout
    assert dns(suite, knot, "check", DOMAIN).returncode == 0, "all is as it should be"
    kinds = {row["type"] for row in suite.json("dns", "show", DOMAIN)}
    assert kinds == {"MX", "A", "AAAA", "TXT", "TLSA", "SRV", "CNAME", "CAA"}, kinds
    assert "Nothing is to be changed" in dns(suite, knot, "publish", DOMAIN, "--yes").stdout
    # A key goes, another policy comes: what we published before is taken back.
    suite.run("dkim", "remove", DOMAIN, "e1")
    suite.config["dns"]["dmarc"] = "v=DMARC1; p=reject; rua=mailto:dmarc@{domain}"
    suite.write_config()
    suite.run("reload")
    dns(suite, knot, "publish", DOMAIN, "--yes")
    assert knot.ask(f"e1._domainkey.{DOMAIN}.", "TXT") == []
    assert knot.ask(f"_dmarc.{DOMAIN}.", "TXT") == [f'"v=DMARC1; p=reject; rua=mailto:dmarc@{DOMAIN}"']
    assert dns(suite, knot, "check", DOMAIN).returncode == 0
    # Somebody else's records are theirs.
    update(knot, lambda message: message.replace(DOMAIN + ".", 60, "TXT", '"v=spf1 +all"'))
    left = dns(suite, knot, "publish", DOMAIN, "--yes", check=False)
    assert left.returncode == 3 and "not by certd" in left.stdout
    assert knot.ask(f"{DOMAIN}.", "TXT") == ['"v=spf1 +all"']
    suite.run("dns", "unpublish", DOMAIN, "--yes")
    for name, kind in ((DOMAIN, "MX"), (f"r1._domainkey.{DOMAIN}", "TXT"), (f"mail.{DOMAIN}", "A"), (f"_25._tcp.mail.{DOMAIN}", "TLSA")):
        assert knot.ask(f"{name}.", kind) == [], name
    assert knot.ask(f"{DOMAIN}.", "TXT") == ['"v=spf1 +all"'] and knot.ask(f"verify.{DOMAIN}.", "TXT") == ['"somebody\'s"']
    assert "Nothing is to be changed" in suite.run("dns", "unpublish", DOMAIN, "--yes").stdout


def test_without_a_provider_nothing_is_published(shared):
    with pytest.raises(Failed) as failed:
        shared.run("dns", "publish", "example.test", "--yes")
    assert "certd.dns" in failed.value.text
