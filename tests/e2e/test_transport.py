"""How mail is protected on its way: DANE (RFC 7672), MTA-STS (RFC 8461), REQUIRETLS (RFC 8689) and the table of our own, against
exchangers with real certificates, servers of policies, and a signed tree of zones. Each case delivers, waits or comes back, and
says why."""

import json
import re
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exchangers import Authority, Exchanger, Policies, tlsa
from signed import SignedTree, Unbound
from suite import Failed, Suite, free_port, message, wait_for

USER = "me@us.example"
SIGNED, NSEC3, OPT_OUT, PLAIN = "signed", "hashed", "optout", "plain"


@dataclass
class Host:
    """An exchanger: what it shows, and what DNS says of it."""

    identity: object = None             # takes (authority, name of the host, domain); None: no STARTTLS
    tlsa: list = field(default_factory=list)    # each takes (authority, identity)
    zone: str = None                    # another than the domain's
    listening: bool = True
    alias: bool = False                 # MX names an alias of it
    tlsa_alias: bool = False
    options: dict = field(default_factory=dict)


@dataclass
class Sts:
    text: str = "version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n"
    mode: str = "enforce"
    mx: str = None                      # the first host, if not given
    own_name: bool = True
    listening: bool = True
    options: dict = field(default_factory=dict)


@dataclass
class Case:
    name: str
    hosts: list
    outcome: str                        # clear, tls, deferred, bounced
    reason: str = None                  # a result of RFC 8460 4.3 in the log, a code in the report
    zone: str = PLAIN
    sts: Sts = None
    entry: dict = None                  # in our table
    require: bool = False               # REQUIRETLS
    optional: bool = False              # TLS-Required: No
    at: int = 0                         # the host that gets it
    implicit: bool = False              # no MX

    @property
    def domain(self):
        return f"{self.name}.{self.zone}"


good = lambda ca, host, domain: ca.host(host)
leaf_only = lambda ca, host, domain: ca.host(host, with_authority=False)
for_domain = lambda ca, host, domain: ca.host(domain)
stranger = lambda ca, host, domain: ca.host("elsewhere.example")
expired = lambda ca, host, domain: ca.host(host, expired=True)
selfmade = lambda ca, host, domain: ca.host(host, self_signed=True)
own = lambda ca, host, domain: ca.host("elsewhere.example", expired=True, self_signed=True)

ee = lambda selector, matching: lambda ca, identity: tlsa(3, selector, matching, identity.certificate)
ta = lambda selector, matching: lambda ca, identity: tlsa(2, selector, matching, ca.certificate)
pkix = lambda ca, identity: tlsa(1, 1, 1, identity.certificate if identity else ca.certificate)
other = lambda ca, identity: tlsa(3, 1, 1, ca.host("other.example").certificate)
same = [ee(1, 1)]

DANE = [
    # RFC 7672 3.1.1: neither name nor date of the host's own certificate counts.
    Case("ee", [Host(own, same)], "tls", "DANE", SIGNED),
    Case("ee301", [Host(own, [ee(0, 1)])], "tls", "DANE", SIGNED),
    Case("ee312", [Host(own, [ee(1, 2)])], "tls", "DANE", SIGNED),
    Case("ee300", [Host(own, [ee(0, 0)])], "tls", "DANE", SIGNED),
    Case("rollover", [Host(own, [other, ee(1, 1)])], "tls", "DANE", SIGNED),
    Case("mismatch", [Host(good, [other])], "deferred", "tlsa-invalid", SIGNED),
    Case("downgrade", [Host(None, [other])], "deferred", "starttls-not-supported", SIGNED),
    # RFC 7672 3.1.2, 3.2.2
    Case("ta", [Host(good, [ta(0, 1)])], "tls", "DANE", SIGNED),
    Case("ta211", [Host(good, [ta(1, 1)])], "tls", "DANE", SIGNED),
    Case("ta-domain", [Host(for_domain, [ta(0, 1)])], "tls", "DANE", SIGNED),
    Case("ta-name", [Host(stranger, [ta(0, 1)])], "deferred", "certificate-host-mismatch", SIGNED),
    Case("ta-expired", [Host(expired, [ta(0, 1)])], "deferred", "certificate-expired", SIGNED),
    Case("ta-unsent", [Host(leaf_only, [ta(1, 1)])], "deferred", "tlsa-invalid", SIGNED),
    Case("ta200", [Host(leaf_only, [ta(0, 0)])], "tls", "DANE", SIGNED),
    Case("ta210", [Host(leaf_only, [ta(1, 0)])], "tls", "DANE", SIGNED),
    # RFC 7672 2.2: records that are of no use still say that there is TLS.
    Case("unusable", [Host(own, [pkix])], "tls", None, SIGNED),
    Case("unusable-clear", [Host(None, [pkix])], "deferred", "starttls-not-supported", SIGNED),
    Case("no-tlsa", [Host(None)], "clear", None, SIGNED),
    # RFC 7672 2.1.1, 2.2.1: the next exchanger
    Case("second", [Host(good, [other]), Host(own, same)], "tls", "tlsa-invalid", SIGNED, at=1),
    Case("second-clear", [Host(good, [other]), Host(None)], "clear", "tlsa-invalid", SIGNED, at=1),
    Case("gone", [Host(own, same, listening=False)], "deferred", "cannot connect", SIGNED),
    # RFC 7672 2.2.2
    Case("alias", [Host(own, same, alias=True)], "tls", "DANE", SIGNED),
    Case("tlsa-alias", [Host(own, same, tlsa_alias=True)], "tls", "DANE", SIGNED),
    Case("implicit", [Host(own, same)], "tls", "DANE", SIGNED, implicit=True),
    Case("implicit-bad", [Host(own, [other])], "deferred", "tlsa-invalid", SIGNED, implicit=True),
    # NSEC3, with and without opt-out
    Case("ee", [Host(own, same)], "tls", "DANE", NSEC3),
    Case("mismatch", [Host(own, [other])], "deferred", "tlsa-invalid", NSEC3),
    Case("no-tlsa", [Host(None)], "clear", None, NSEC3),
    Case("no-mx", [Host(None)], "clear", None, NSEC3, implicit=True),
    Case("ee", [Host(own, same)], "tls", "DANE", OPT_OUT),
    Case("no-tlsa", [Host(None)], "clear", None, OPT_OUT),
    # Unsigned: no DANE (RFC 7672 2.2.1, 2.1.3)
    Case("unsigned", [Host(good, [other])], "tls", None),
    Case("unsigned-mx", [Host(good, [other], zone=SIGNED)], "tls", None),
    Case("unsigned-host", [Host(good, [other], zone=PLAIN)], "tls", None, SIGNED),
    # Bogus (RFC 7672 2.1.1)
    Case("any", [Host(own, same)], "deferred", "dnssec-invalid", "expired"),
    Case("any", [Host(own, same)], "deferred", "dnssec-invalid", "wrongds"),
    Case("any", [Host(own, same)], "deferred", "dnssec-invalid", "stripped"),
    Case("bogus-host", [Host(own, same, zone="expired")], "deferred", "DNSSEC", SIGNED),
    Case("bogus-then-good", [Host(own, same, zone="expired"), Host(own, same)], "tls", "dnssec-invalid", SIGNED, at=1),
]

STS = [
    Case("enforce", [Host(good)], "tls", "verified", sts=Sts()),
    Case("wildcard", [Host(good)], "tls", "verified", sts=Sts(mx="*.wildcard.plain")),
    Case("enforce-expired", [Host(expired)], "deferred", "certificate-expired", sts=Sts()),
    Case("enforce-name", [Host(stranger)], "deferred", "certificate-host-mismatch", sts=Sts()),
    Case("enforce-own", [Host(selfmade)], "deferred", "certificate-not-trusted", sts=Sts()),
    Case("enforce-clear", [Host(None)], "deferred", "starttls-not-supported", sts=Sts()),
    Case("enforce-unnamed", [Host(good)], "deferred", "not in the MTA-STS policy", sts=Sts(mx="mx.example")),
    Case("enforce-gone", [Host(good, listening=False)], "deferred", "cannot connect", sts=Sts()),
    Case("enforce-second", [Host(selfmade), Host(good)], "tls", "certificate-not-trusted", at=1, sts=Sts(mx="*.enforce-second.plain")),
    Case("testing-own", [Host(selfmade)], "tls", "certificate-not-trusted", sts=Sts(mode="testing")),
    Case("testing-clear", [Host(None)], "clear", "starttls-not-supported", sts=Sts(mode="testing")),
    Case("testing-unnamed", [Host(good)], "tls", "validation-failure", sts=Sts(mode="testing", mx="mx.example")),
    Case("mode-none", [Host(own)], "tls", None, sts=Sts(mode="none")),
    # RFC 8461 3.3: as if there were no policy, and it is said.
    Case("no-file", [Host(own)], "tls", "sts-policy-fetch-error", sts=Sts(options={"status": 404})),
    Case("redirect", [Host(own)], "tls", "sts-policy-fetch-error",
         sts=Sts(options={"status": 301, "location": "https://mta-sts.enforce.plain/.well-known/mta-sts.txt"})),
    Case("html", [Host(own)], "tls", "sts-policy-fetch-error", sts=Sts(options={"kind": "text/html"})),
    Case("large", [Host(own)], "tls", "sts-policy-fetch-error", sts=Sts(text="version: STSv1\n" + "x: y\n" * 20000)),
    Case("impostor", [Host(own)], "tls", "sts-webpki-invalid", sts=Sts(own_name=False)),
    Case("nonsense", [Host(own)], "tls", "sts-policy-invalid", sts=Sts(text="mode: enforce\n")),
    Case("nowhere", [Host(own)], "tls", "sts-policy-fetch-error", sts=Sts(listening=False)),
    # RFC 8461 2: DANE decides.
    Case("both-bad", [Host(good, [other])], "deferred", "tlsa-invalid", SIGNED, sts=Sts()),
    Case("both-good", [Host(own, same)], "tls", "DANE", SIGNED, sts=Sts()),
    Case("both-unusable", [Host(selfmade, [pkix])], "deferred", "certificate-not-trusted", SIGNED, sts=Sts()),
    Case("sts-only", [Host(selfmade)], "deferred", "certificate-not-trusted", SIGNED, sts=Sts()),
]

TABLE = [
    Case("dane-only", [Host(good)], "deferred", "dane-required", SIGNED, entry={"policy": "dane-only"}),
    Case("dane-only-unsigned", [Host(good, same)], "deferred", "dane-required", entry={"policy": "dane-only"}),
    Case("dane-only-good", [Host(own, same)], "tls", "DANE", SIGNED, entry={"policy": "dane-only"}),
    Case("dane-without-sts", [Host(own)], "tls", None, sts=Sts(), entry={"policy": "dane"}),
    Case("sts-without-dane", [Host(good, [other])], "tls", "verified", SIGNED, sts=Sts(), entry={"policy": "mta-sts"}),
    Case("must-sts", [Host(good)], "deferred", "validation-failure", entry={"policy": "mta-sts-only"}),
    Case("must-sts-testing", [Host(selfmade)], "deferred", "certificate-not-trusted", sts=Sts(mode="testing"),
         entry={"policy": "mta-sts-only"}),
    Case("may", [Host(None, [other])], "clear", None, SIGNED, sts=Sts(), entry={"policy": "may"}),
    Case("none", [Host(good)], "clear", None, entry={"policy": "none"}),
    Case("encrypt", [Host(None)], "deferred", "starttls-not-supported", entry={"policy": "encrypt"}),
    Case("encrypt-own", [Host(own)], "tls", None, entry={"policy": "encrypt"}),
    Case("encrypt-old", [Host(own, options={"newest": ssl.TLSVersion.TLSv1_2})], "deferred", "validation-failure",
         entry={"policy": "encrypt", "min_version": "1.3"}),
    Case("verify", [Host(good)], "tls", "verified", entry={"policy": "verify"}),
    Case("verify-own", [Host(selfmade)], "deferred", "certificate-not-trusted", entry={"policy": "verify"}),
    Case("secure", [Host(good)], "tls", "verified", entry={"policy": "secure"}),
    Case("secure-name", [Host(stranger)], "deferred", "certificate-host-mismatch", entry={"policy": "secure"}),
    Case("secure-names", [Host(stranger)], "tls", "verified", entry={"policy": "secure", "names": [".example"]}),
]

able = {"extensions": ["REQUIRETLS"]}
REQUIRED = [
    Case("rq-signed", [Host(good, options=able)], "tls", "verified", SIGNED, require=True),
    Case("rq-dane", [Host(own, same, options=able)], "tls", "DANE", SIGNED, require=True),
    Case("rq-sts", [Host(good, options=able)], "tls", "verified", require=True, sts=Sts()),
    Case("rq-unable", [Host(good)], "bounced", "5.7.30", SIGNED, require=True),
    Case("rq-second", [Host(good), Host(good, options=able)], "tls", "verified", SIGNED, require=True, at=1),
    Case("rq-clear", [Host(None, options=able)], "bounced", "5.7.10", SIGNED, require=True),
    Case("rq-own", [Host(own, options=able)], "bounced", "5.7.10", SIGNED, require=True),
    Case("rq-dane-bad", [Host(good, [other], options=able)], "bounced", "5.7.10", SIGNED, require=True),
    Case("rq-unsigned", [Host(good, options=able)], "bounced", "5.7.30", require=True),
    Case("rq-gone", [Host(good, options=able, listening=False)], "deferred", "cannot connect", SIGNED, require=True),
    # RFC 8689 3: the sender prefers its arrival. Our own table is another matter.
    Case("no-need", [Host(good, [other])], "tls", None, SIGNED, optional=True),
    Case("no-need-sts", [Host(None)], "clear", None, sts=Sts(), optional=True),
    Case("no-need-ours", [Host(None)], "deferred", "starttls-not-supported", entry={"policy": "encrypt"}, optional=True),
]

ALL = DANE + STS + TABLE + REQUIRED
HOW = {SIGNED: "nsec", NSEC3: "nsec3", OPT_OUT: "opt-out", PLAIN: "unsigned", "expired": "expired", "wrongds": "wrong-ds",
       "stripped": "stripped"}


class House:
    """A suite, the tree of zones, and the exchangers and policies of all cases."""

    def __init__(self, tmp):
        tmp.chmod(0o755)
        self.ca = Authority(tmp, "ca")
        self.port, self.policy_port = free_port(), free_port()
        self.lines = {zone: [] for zone in HOW}
        self.exchangers, self.policies = {}, {}
        self.addresses = iter(f"127.{16 + number // 250}.0.{number % 250 + 1}" for number in range(1000))
        for case in ALL:
            self._case(case)
            self.lines[case.zone].append(f'_smtp._tls.{case.domain}. TXT "v=TLSRPTv1; rua=mailto:tls@{case.domain}"')
        self.tree = SignedTree({zone: (how, self.lines[zone]) for zone, how in HOW.items()})
        self.suite = Suite(config={
            "reportd": {"enabled": True},
            "relayd": {
                "port": self.port, "connect_timeout": 5, "nameservers": [f"127.0.0.1:{self.tree.port}"], "tls_ca_file": self.ca.file,
                "idle_timeout": 0, "dkim": False,
                "tls": {
                    "trust_anchors": self.tree.anchor, "mta_sts_port": self.policy_port, "mta_sts_timeout": 5,
                    "destination": {f'"{case.domain}"': case.entry for case in ALL if case.entry},
                },
            },
        }).start()
        self.suite.add_domain("us.example")
        self.suite.add_account(USER)

    def _case(self, case):
        hosts = []
        for number, host in enumerate(case.hosts):
            zone, address = host.zone or case.zone, next(self.addresses)
            name = case.domain if case.implicit else f"mx{number}.{case.name}.{zone}"
            shown = f"real{number}.{case.name}.{zone}" if host.alias else name
            identity = host.identity and host.identity(self.ca, shown, case.domain)
            lines = self.lines[zone]
            lines.append(f"{shown}. A {address}")
            if host.alias:
                lines.append(f"{name}. CNAME {shown}.")
            at = f"_{self.port}._tcp.{shown}."
            if host.tlsa_alias:
                lines.append(f"{at} CNAME tlsa.{shown}.")
                at = f"tlsa.{shown}."
            lines += [f"{at} {make(self.ca, identity)}" for make in host.tlsa]
            if not case.implicit:
                self.lines[case.zone].append(f"{case.domain}. MX {10 + number} {name}.")
            server = Exchanger(address, self.port, identity, **host.options) if host.listening else None
            hosts.append((server, shown, address))
        self.exchangers[case.domain] = hosts
        if case.sts:
            self._policy(case, hosts)

    def _policy(self, case, hosts):
        sts, address = case.sts, next(self.addresses)
        name = f"mta-sts.{case.domain}"
        self.lines[case.zone] += [f"{name}. A {address}", f'_mta-sts.{case.domain}. TXT "v=STSv1; id=1;"']
        if sts.listening:
            identity = self.ca.host(name if sts.own_name else "mta-sts.elsewhere.example")
            text = sts.text.format(mode=sts.mode, mx=sts.mx or hosts[0][1]) if "{" in sts.text else sts.text
            self.policies[case.domain] = Policies(address, self.policy_port, identity, text, **sts.options)

    def send(self, case, number=0):
        to = f"you{number}@{case.domain}"
        head = b"TLS-Required: No\r\n" if case.optional else b""
        with self.suite.submission(USER) as client:
            client.mail(USER, ["REQUIRETLS"] if case.require else [])
            code, text = client.rcpt(to)
            assert code == 250, text
            code, text = client.data(head + message(f"<{number}.{case.domain}@us.example>", to=to, sender=USER))
            assert code == 250, text
        return to

    def taken(self, to, case, at=None):
        """(host's number, mail) for each time that it was taken."""
        return [(number, mail) for number, (server, _, _) in enumerate(self.exchangers[case.domain]) if server
                for mail in server.mails if mail[1] == to]

    def last(self, to):
        return next((entry["last"] for entry in self.suite.queue() if to in str(entry["to"]) and entry["last"]), None)

    def report(self, to):
        return next((mail for mail in self.suite.messages(USER) if to.encode() in mail and b"multipart/report" in mail), None)

    def log(self, *words):
        """Lines of the log with all of these."""
        return [line for line in self.suite.log.read_text(errors="replace").splitlines() if all(word in line for word in words)]

    def remove(self):
        self.suite.remove()
        self.tree.remove()
        for hosts in self.exchangers.values():
            for server, _, _ in hosts:
                if server:
                    server.close()
        for policy in self.policies.values():
            policy.close()


@pytest.fixture(scope="module")
def house():
    # pytest's own folders are for nobody but us.
    with tempfile.TemporaryDirectory(prefix="ph-transport-") as folder:
        yield from _house(Path(folder))


def _house(folder):
    made = House(folder)
    # All at once: each case is then only waited for.
    for case in ALL:
        made.send(case)
    yield made
    made.remove()


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.domain)
def test_what_becomes_of_it(house, case):
    to = f"you0@{case.domain}"
    why = lambda: f"{case.domain}: {house.taken(to, case)} {house.last(to)} {house.log(case.domain)}"
    if case.outcome in ("clear", "tls"):
        ((at, (_, _, secured, asked)),) = wait_for(lambda: house.taken(to, case), why, 60)
        assert (at, secured) == (case.at, case.outcome == "tls"), why()
        if secured:
            # RFC 7672 8.1, RFC 8461 4.2: the host is told which name is meant.
            assert asked == house.exchangers[case.domain][at][1], why()
        if case.reason in ("verified", "DANE"):
            assert wait_for(lambda: house.log(to, "sent", f"{case.reason}"), why), why()
        elif case.reason:
            assert house.log("TLS session", f'domain="{case.domain}"', f'result="{case.reason}"'), why()
        return
    if case.outcome == "bounced":
        report = wait_for(lambda: house.report(to), why, 60)
        assert f"Status: {case.reason}".encode() in report, report
    else:
        last = wait_for(lambda: house.last(to), why, 60)
        assert re.match("4[0-9][0-9] 4", last), last
        assert case.reason in last or house.log("TLS session", f'domain="{case.domain}"', f'result="{case.reason}"'), why()
    assert not house.taken(to, case), why()


def test_required_tls_is_passed_on(house):
    (server, _, _), = house.exchangers["rq-signed.signed"]
    wait_for(lambda: server.mails, "the message")
    assert "REQUIRETLS" in server.arguments[0]
    (plain, _, _), = house.exchangers["ee.signed"]
    assert "REQUIRETLS" not in plain.arguments[0]


def test_sessions_are_counted(house):
    figures = house.suite.run("metrics").stdout
    for policy, result in (("tlsa", "success"), ("tlsa", "tlsa-invalid"), ("sts", "success"), ("sts", "sts-webpki-invalid"),
                           ("no-policy-found", "success"), ("tlsa", "dnssec-invalid")):
        assert re.search(rf'relayd_tls_sessions_total{{policy="{policy}",result="{result}"}} [1-9]', figures), (policy, result)


def test_a_policy_is_fetched_once_and_remembered(house):
    case = next(case for case in STS if case.name == "enforce")
    policy, (server, name, address) = house.policies[case.domain], house.exchangers[case.domain][0]
    wait_for(lambda: server.mails, "the first message")
    to = house.send(case, 1)
    wait_for(lambda: house.taken(to, case), "the second message")
    assert policy.asked == 1
    # Somebody on the way: no policy to be had, no STARTTLS. It is remembered.
    policy.status = 404
    server.identity = None
    to = house.send(case, 2)
    last = wait_for(lambda: house.last(to), "an answer")
    assert "starttls-not-supported" in last or "offers no TLS" in last, last
    server.identity = house.ca.host(name)
    house.suite.run("queue", "retry", "--all")
    wait_for(lambda: house.taken(to, case), lambda: f"the third message {house.last(to)}", 60)
    # A restart changes nothing: it is queued that remembers (test_policies.py).
    server.identity = None
    house.suite.kill("relayd")
    house.suite.wait_up()
    asked = policy.asked
    to = house.send(case, 3)
    last = wait_for(lambda: house.last(to), "an answer")
    assert "starttls-not-supported" in last or "offers no TLS" in last, last
    assert not house.taken(to, case) and policy.asked == asked


def test_the_tool_says_what_is_demanded_and_why(house):
    def tls(domain, *options):
        found = house.suite.run("--json", "tls", domain, *options, check=False)
        return found.returncode, json.loads(found.stdout)

    code, found = tls("ee.signed", "--connect")
    assert (code, found["dnssec"], found["mx"]) == (0, "checked", "signed"), found
    (host,) = found["hosts"]
    assert host["demand"] == "dane" and host["tlsa"][0].startswith("3 1 1 ") and "DANE" in host["sessions"][0], host
    code, found = tls("mismatch.signed", "--connect")
    assert code == 3 and "tlsa-invalid" in found["hosts"][0]["sessions"][0], found
    code, found = tls("wildcard.plain")
    assert code == 0 and found["mta_sts"].startswith("enforce") and found["hosts"][0]["demand"] == "names", found
    code, found = tls("impostor.plain")
    assert code == 0 and "sts-webpki-invalid" in found["mta_sts"] and found["hosts"][0]["demand"] == "may", found
    code, found = tls("any.expired")
    assert code == 3 and "DNSSEC" in found["refused"], found
    code, found = tls("secure.plain")
    assert (found["policy"], found["entry"]) == ("secure", "secure.plain"), found
    text = house.suite.run("tls", "ee.signed").stdout
    assert "TLS with certificates that fit the TLSA records" in text, text
    with pytest.raises(Failed):
        house.suite.run("tls", "no domain")


def test_it_is_the_same_through_a_validating_name_server(house):
    """What a resolver in front makes of signatures, aliases and denials (one that itself refuses what is bogus) changes nothing."""
    unbound = Unbound(house.tree)
    try:
        known, bogus = {case.domain for case in DANE if case.zone in (SIGNED, NSEC3, OPT_OUT, PLAIN)}, 0
        for domain in sorted({case.domain for case in DANE}):
            direct, through = (
                json.loads(house.suite.run("--json", "tls", domain, check=False, env=env).stdout)
                for env in ({}, {"POSTHOUSE_RELAYD__NAMESERVERS": f'["127.0.0.1:{unbound.port}"]'}))
            assert through["dnssec"] == "checked", through
            if domain not in known:
                assert direct["refused"] and through["refused"], through
                bogus += 1
                continue
            for field_name in ("mx", "policy"):
                assert direct[field_name] == through[field_name], (domain, direct, through)
            demands = lambda found: [(host["name"], host["addresses"], host["demand"], host["tlsa"]) for host in found["hosts"]]
            assert sorted(demands(direct)) == sorted(demands(through)), (domain, direct, through)
        assert bogus == 3
    finally:
        unbound.remove()


# RFC 8460 4.3
RESULT_TYPES = {
    "starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted", "validation-failure",
    "tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid",
}
REPORTED = [case for case in ALL if case.reason in RESULT_TYPES and not case.optional]


@pytest.mark.parametrize("case", REPORTED, ids=lambda case: case.domain)
def test_the_report_tells_why(house, case):
    """What goes to the domain's owner (RFC 8460 4.4), as it would be sent now."""
    def report():
        for row in house.suite.json("report", "pending"):
            if (row["kind"], row["domain"]) == ("tls", case.domain):
                found = json.loads(house.suite.run("report", "pending", "--show", row["id"]).stdout)
                kinds = {detail["result-type"] for policy in found["policies"] for detail in policy.get("failure-details", [])}
                return found if case.reason in kinds else None
        return None
    found = wait_for(report, lambda: f"{case.reason}: {house.suite.json('report', 'pending')} {house.log(case.domain)}", 60)
    assert set(found) == {"organization-name", "date-range", "contact-info", "report-id", "policies"}
    for policy in found["policies"]:
        details = policy.get("failure-details", [])
        assert policy["policy"]["policy-type"] in ("tlsa", "sts", "no-policy-found")
        assert policy["policy"]["policy-domain"] == case.domain
        assert policy["summary"]["total-failure-session-count"] == sum(detail["failed-session-count"] for detail in details)
        assert all(detail["result-type"] in RESULT_TYPES for detail in details)
    if case.sts and case.reason.startswith("certificate-") and case.zone == PLAIN:
        policy = next(one["policy"] for one in found["policies"] if one["policy"]["policy-type"] == "sts")
        assert f"mode: {case.sts.mode}" in policy["policy-string"] and policy["mx-host"]
    if case.zone == SIGNED and case.reason == "tlsa-invalid":
        policy = next(one["policy"] for one in found["policies"] if one["policy"]["policy-type"] == "tlsa" and "policy-string" in one["policy"])
        assert re.fullmatch(r"[23] [01] [012] [0-9A-Fa-f]+(\.\.\.)?", policy["policy-string"][0]), policy


def test_reports_say_nothing_of_mail_that_needs_no_tls(house):
    quiet = {case.domain for case in ALL if case.optional and not case.entry}
    assert not quiet & {row["domain"] for row in house.suite.json("report", "pending")}
