"""certd at the providers of DNS: records of every kind are published, found, and taken back, and an order is proved by DNS-01. PowerDNS is
itself; the others are servers of our own with the shapes that their documentation has (tests/lib/providers.py), reached at their own names
through a proxy."""

import contextlib
import os
import sqlite3
import urllib.request
from pathlib import Path

import dns.message
import dns.query
import pytest

from authority import Pebble, open_folder
from exchangers import Authority
from providers import Cloudflare, DigitalOcean, Gateway, GoogleCloudDns, Ovh, Route53, Zone, quoted
from servers import Server, _tool
from suite import Failed, Suite, free_port, wait_for

DOMAIN = "shop.example"
HOST = f"mail.{DOMAIN}"


class PowerDns(Server):
    """The real one."""

    settings = {"provider": "pdns"}
    secret = "pdns-api-key"
    lacks = set()

    def __init__(self):
        program = _tool("/usr/sbin/pdns_server", "pdns-server")
        schema = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
        if not schema.exists():
            pytest.skip("pdns-backend-sqlite3 is not installed")
        super().__init__("ph-pdns-", "nobody")
        self.port, self.api = free_port(), free_port()
        database = self.dir / "zones.sqlite"
        with contextlib.closing(sqlite3.connect(database)) as made:
            made.executescript(schema.read_text())
            made.commit()
        (self.dir / "pdns.conf").write_text("\n".join([
            "launch=gsqlite3", f"gsqlite3-database={database}", "local-address=127.0.0.1", f"local-port={self.port}", "api=yes",
            f"api-key={self.secret}", "webserver=yes", "webserver-address=127.0.0.1", f"webserver-port={self.api}",
            f"socket-dir={self.dir}", "cache-ttl=0", "query-cache-ttl=0", "negquery-cache-ttl=0", "zone-cache-refresh-interval=0",
            "guardian=no", "daemon=no", ""]))
        import pwd
        account = pwd.getpwnam(self.user)
        for file in self.dir.iterdir():
            os.chown(file, account.pw_uid, account.pw_gid)
        self.spawn(program, f"--config-dir={self.dir}")
        body = b'{"name": "shop.example.", "kind": "Native", "nameservers": ["ns.shop.example."], "soa_edit_api": "INCREASE"}'
        with self.asked("/api/v1/servers/localhost/zones", body) as answer:
            assert answer.status == 201

    def asked(self, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.api}{path}", body, {"X-API-Key": self.secret})
        return urllib.request.urlopen(request, timeout=5)

    def ready(self):
        super().ready()
        with contextlib.suppress(OSError):
            with self.asked("/api/v1/servers/localhost") as answer:
                return answer.status == 200
        return False


def ask(port, name, kind):
    answer = dns.query.tcp(dns.message.make_query(name, kind), "127.0.0.1", timeout=5, port=port)
    return sorted(record.to_text() for rrset in answer.answer for record in rrset)


class World:
    """A provider, a name server that shows its zone, and a suite that publishes there."""

    def __init__(self, kind, folder, few=False):
        self.made = contextlib.ExitStack()
        authority = Authority(folder, "providers")
        self.open = open_folder()
        ca = self.file("ca.pem", authority.file.read_text())
        self.provider = kind()
        settings = {**self.provider.settings}
        if kind is PowerDns:
            self.made.callback(self.provider.remove)
            self.port, self.gateway = self.provider.port, None
            settings["server"] = f"http://127.0.0.1:{self.provider.api}"
        else:
            self.gateway = Gateway(self.provider, authority)
            self.made.callback(self.gateway.close)
            zone = Zone(self.provider)
            self.made.callback(zone.close)
            self.port = zone.port
            if kind is Route53:
                settings["server"] = self.gateway.url
        if kind is Ovh:
            settings["consumer_key_file"] = self.file("consumer", Ovh.consumer)
        settings |= {"zones": [DOMAIN], "secret_file": self.file("secret", self.provider.secret), "propagation_pause_ms": 50,
                     "authoritative": [f"127.0.0.1:{self.port}"], "timeout": 20, "propagation_timeout": 20}
        self.suite = Suite(config={
            "suite": {"hostname": HOST},
            "dns": {"addresses": ["192.0.2.7", "2001:db8::7"], "mta_sts": "enforce", "autoconfig": HOST,
                    "caa": ["letsencrypt.org; accounturi=https://acme.example/acct/1"],
                    "tlsa": "TLSA" not in getattr(self.provider, "lacks", ())},
            "certd": {"dns": settings},
        })
        if few:
            # What has many records is tried elsewhere.
            self.suite.config["dns"] = {"addresses": ["192.0.2.7"], "mta_sts": "off", "host_spf": "", "tlsa": False, "srv": False}
            self.suite.write_config()
        proxy = {"HTTPS_PROXY": self.gateway.url if self.gateway else "", "NO_PROXY": "127.0.0.1", "SSL_CERT_FILE": str(ca)}
        self.suite.launcher = ["/usr/bin/env", *[f"{key}={value}" for key, value in proxy.items()]]
        self.made.callback(self.suite.remove)

    def file(self, name, text):
        path = self.open / name
        path.write_text(text + "\n")
        path.chmod(0o644)
        return path

    def dns(self, *arguments, check=True):
        return self.suite.run("dns", *arguments, "--resolver", f"127.0.0.1:{self.port}", check=check)

    def start(self):
        self.suite.start()
        self.suite.add_domain(DOMAIN)
        return self


KINDS = [PowerDns, Cloudflare, DigitalOcean, Ovh, GoogleCloudDns, Route53]


@pytest.fixture(params=KINDS, ids=[kind.__name__ for kind in KINDS])
def world(request, tmp_path_factory):
    world = World(request.param, tmp_path_factory.mktemp("providers"))
    with world.made:
        yield world.start()


def test_published_and_taken_back(world):
    suite, provider = world.suite, world.provider
    # An RSA key of 4096 bits makes a text that is longer than 255 octets (RFC 1035 3.3.14).
    suite.run("dkim", "create", DOMAIN, "--selector", "r1")
    suite.run("dkim", "create", DOMAIN, "--selector", "e1", "--algorithm", "ed25519")
    if world.gateway:
        # Somebody else's, beside ours, and under a name of ours.
        provider.add(DOMAIN, "TXT", 300, quoted('somebody\'s "own"'))
        provider.add(f"shop.{DOMAIN}", "A", 300, "192.0.2.99")
        if provider.__class__ is Ovh:
            provider.fresh = [record[1:] for record in provider.records]
    assert "Done." in world.dns("publish", DOMAIN, "--yes").stdout
    checked = world.dns("check", DOMAIN, check=False)
    assert checked.returncode == 0, checked.stdout
    rows = suite.json("dns", "show", DOMAIN)
    wanted = {"MX", "A", "AAAA", "TXT", "SRV", "CNAME", "CAA", "TLSA"} - getattr(provider, "lacks", set())
    assert {row["type"] for row in rows} == wanted
    assert any(len(row["data"]) > 300 for row in rows if row["name"].startswith("r1._domainkey"))
    assert "Nothing is to be changed" in world.dns("publish", DOMAIN, "--yes").stdout
    if world.gateway:
        assert {record[1] for record in provider.records} >= {row["name"].rstrip(".") for row in rows if row["name"].endswith(DOMAIN)}
    # What is needed no more goes, and nothing else.
    suite.run("dkim", "remove", DOMAIN, "e1")
    suite.config["dns"]["dmarc"] = "v=DMARC1; p=reject; rua=mailto:dmarc@{domain}"
    suite.write_config()
    suite.run("reload")
    world.dns("publish", DOMAIN, "--yes")
    assert ask(world.port, f"e1._domainkey.{DOMAIN}.", "TXT") == []
    assert ask(world.port, f"_dmarc.{DOMAIN}.", "TXT") == [f'"v=DMARC1; p=reject; rua=mailto:dmarc@{DOMAIN}"']
    suite.run("dns", "unpublish", DOMAIN, "--yes")
    for row in rows:
        left = ask(world.port, f"{row['name'].rstrip('.')}.", row["type"])
        assert all("somebody" in one for one in left), (row, left)
    if world.gateway:
        assert sorted(record[1:3] for record in provider.records) == [(DOMAIN, "TXT"), (f"shop.{DOMAIN}", "A")]
        assert world.gateway.strangers == []


@pytest.fixture(params=KINDS[1:], ids=[kind.__name__ for kind in KINDS[1:]])
def troubled(request, tmp_path_factory):
    world = World(request.param, tmp_path_factory.mktemp("providers"), few=True)
    with world.made:
        yield world.start()


def test_what_a_provider_refuses_is_told(troubled):
    """With its documented errors; nothing is half done that is not written down, and the next try finishes it."""
    world, provider = troubled, troubled.provider
    for status, body, told in provider.errors.values():
        provider.failures = [(status, body)] * 2
        with pytest.raises(Failed) as failed:
            world.dns("publish", DOMAIN, "--yes")
        assert "the DNS provider: " in failed.value.text and told in failed.value.text, failed.value.text
        provider.failures = []
    assert provider.records == []
    # Too many requests: later, when it says so.
    if not isinstance(provider, Ovh):
        provider.failures = [(429, '{"message": "Rate limit exceeded"}', {"Retry-After": "1"})]
    assert "Done." in world.dns("publish", DOMAIN, "--yes").stdout
    count = len(provider.records)
    # It breaks in the middle: what was removed is removed, and the rest follows.
    good = provider.serve
    calls = []

    def breaks(method, *rest):
        if method in ("POST", "DELETE") and rest[0] != "oauth2.googleapis.com":
            calls.append(method)
            if len(calls) == 4:
                return provider.errors["broken"][0], {}, provider.errors["broken"][1]
        return good(method, *rest)

    provider.serve = breaks
    with pytest.raises(Failed):
        world.suite.run("dns", "unpublish", DOMAIN, "--yes")
    assert 0 < len(provider.records) < count
    provider.serve = good
    world.suite.run("dns", "unpublish", DOMAIN, "--yes")
    assert provider.records == []
    # A token that is not valid (any more).
    (world.open / "secret").write_text("wrong\n" if not isinstance(provider, GoogleCloudDns) else "{}\n")
    with pytest.raises(Failed) as failed:
        world.dns("publish", DOMAIN, "--yes")
    assert "the DNS provider: " in failed.value.text, failed.value.text
    assert provider.secret not in world.suite.log.read_text(errors="replace")


def test_many_records_under_one_name(tmp_path_factory):
    """Pages (DigitalOcean has 200 on one): ours is found behind them."""
    world = World(DigitalOcean, tmp_path_factory.mktemp("providers"), few=True)
    with world.made:
        world.start()
        for number in range(450):
            world.provider.add(f"_dmarc.{DOMAIN}", "TXT", 300, quoted(f"note {number}"))
        # A DMARC record among notes that are none (RFC 7489 6.6.3).
        assert "Done." in world.dns("publish", DOMAIN, "--yes").stdout
        world.suite.run("dns", "unpublish", DOMAIN, "--yes")
        assert len(world.provider.records) == 450


def test_an_alias_at_route_53_is_told(tmp_path_factory):
    """The library reads no record sets without a TTL: nothing is changed, and the trouble is named."""
    world = World(Route53, tmp_path_factory.mktemp("providers"), few=True)
    with world.made:
        world.start()
        world.provider.records.append((1, f"zz.{DOMAIN}", "A", None, "192.0.2.1"))
        world.provider.shown = lambda: []
        with pytest.raises(Failed) as failed:
            world.dns("publish", DOMAIN, "--yes")
        assert "XML parsing error" in failed.value.text and "TTL" in failed.value.text
        assert len(world.provider.records) == 1


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_dns_01(kind, tmp_path_factory):
    """The authority asks the name server that shows what the provider was told; afterwards nothing is left there."""
    world = World(kind, tmp_path_factory.mktemp("providers"))
    with world.made:
        pebble = Pebble(world.port)
        world.made.callback(pebble.remove)
        world.suite.config["certd"] |= {
            "enabled": True, "directory": pebble.directory, "directory_ca_file": pebble.dir / "ca.pem", "challenge": "dns-01",
            "names": [HOST, f"*.{DOMAIN}", DOMAIN], "retry_min": 1, "retry_max": 2, "order_timeout": 30,
        }
        world.suite.write_config()
        pebble.start()
        world.start()
        row = lambda: world.suite.json("certificate", "list")[0]
        wait_for(lambda: row()["state"] == "good", lambda: f"{row()}\n{world.suite.tail(40)}", 60, 0.1)
        assert ask(world.port, f"_acme-challenge.{DOMAIN}.", "TXT") == []
        assert ask(world.port, f"_acme-challenge.{HOST}.", "TXT") == []
