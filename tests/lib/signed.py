"""A tree of DNS zones with a root of its own: signed by knot, signed long ago, signed by somebody else, or not at all."""

import datetime
import os
import pwd
import subprocess

from servers import Server, _tool, zone
from suite import free_port

CONF = """
server:
  listen: 127.0.0.1@{port}
  rundir: {dir}
database:
  storage: {dir}
log:
  - target: stderr
    any: warning
policy:
  - id: nsec
    manual: on
    single-type-signing: on
  - id: nsec3
    manual: on
    single-type-signing: on
    nsec3: on
    nsec3-salt-length: 0
  - id: opt-out
    manual: on
    single-type-signing: on
    nsec3: on
    nsec3-opt-out: on
    nsec3-salt-length: 0
template:
  - id: default
    storage: {dir}
    zonefile-load: whole
    journal-content: none
zone:
{zones}"""


class SignedTree(Server):
    """knotd with a root zone and zones directly below it. `zones` maps a name to (how, lines), where how is one of `nsec`, `nsec3`,
    `opt-out` (NSEC3 that says nothing of unsigned zones below), `unsigned`, `wrong-ds` (signed, but the zone above knows another key), `expired` (signatures of long ago) and `stripped`
    (the zone above says that it is signed, and it is not). The trust anchor is the file `anchor`."""

    def __init__(self, zones):
        knotd = _tool("/usr/sbin/knotd", "knot")
        super().__init__("ph-dnssec-", "knot")
        self.dir.chmod(0o755)
        self.port = free_port()
        signing = {"nsec": "nsec", "nsec3": "nsec3", "opt-out": "opt-out", "wrong-ds": "nsec"}
        lines = ["  - domain: .\n    file: root.zone\n    dnssec-signing: on\n    dnssec-policy: nsec\n"]
        for name, (how, _) in zones.items():
            lines.append(f"  - domain: {name}.\n    file: {name}.zone\n")
            if how in signing:
                lines.append(f"    dnssec-signing: on\n    dnssec-policy: {signing[how]}\n")
        self.conf = self.dir / "knot.conf"
        self.conf.write_text(CONF.format(port=self.port, dir=self.dir, zones="".join(lines)))
        root = ["ns A 127.0.0.1"]
        for name, (how, text) in zones.items():
            root.append(f"{name} NS ns")
            content = zone(name, text)
            if how in ("nsec", "nsec3", "opt-out"):
                root += self._delegation(name)
            elif how == "wrong-ds":
                self._key(name)
                root.append(f"{name} DS 12345 13 2 {'ab' * 32}")
            elif how == "expired":
                content, signer = _signed_long_ago(name, content)
                root.append(f"{name} DS {signer}")
            elif how == "stripped":
                root.append(f"{name} DS 12345 13 2 {'cd' * 32}")
            (self.dir / f"{name}.zone").write_text(content)
        (self.dir / "root.zone").write_text(
            "$ORIGIN .\n$TTL 60\n@ SOA ns. hostmaster. 1 3600 600 86400 60\n@ NS ns\n" + "\n".join(root) + "\n")
        self._key(".")
        self.anchor = self.dir / "anchor.key"
        # `. DNSKEY 257 3 13 ...`, in zone file form.
        key = self._keymgr(".", "dnskey").split(None, 2)
        self.anchor.write_text(f". 60 IN DNSKEY {key[2]}")
        self._own()
        self.zones = list(zones)
        self.spawn(knotd, "-c", self.conf)

    def _own(self):
        if self.user:
            account = pwd.getpwnam(self.user)
            for path in [self.dir, *self.dir.rglob("*")]:
                os.chown(path, account.pw_uid, account.pw_gid)

    def _keymgr(self, name, *arguments):
        result = subprocess.run([_tool("/usr/sbin/keymgr", "knot"), "-c", self.conf, name if name == "." else f"{name}.", *arguments],
                                check=True, capture_output=True, text=True, timeout=60)
        return result.stdout

    def _key(self, name):
        self._keymgr(name, "generate", "algorithm=ECDSAP256SHA256", "ksk=yes", "zsk=yes")

    def _delegation(self, name):
        self._key(name)
        # `signed. DS 1234 13 2 ...`, a line a digest.
        return [" ".join([name, *line.split()[1:]]) for line in self._keymgr(name, "ds").splitlines()]

    def ready(self):
        super().ready()
        import dns.exception
        import dns.flags
        import dns.message
        import dns.query
        import dns.rdatatype
        try:
            query = dns.message.make_query(".", "SOA", want_dnssec=True)
            answer = dns.query.udp(query, "127.0.0.1", timeout=1, port=self.port).answer
            return any(rrset.rdtype == dns.rdatatype.RRSIG for rrset in answer)
        except (dns.exception.DNSException, OSError):
            return False


class Unbound(Server):
    """A caching and validating name server in front of the tree, as a mail server should have one."""

    def __init__(self, tree):
        unbound = _tool("/usr/sbin/unbound", "unbound")
        super().__init__("ph-unbound-")
        self.port = free_port()
        (self.dir / "unbound.conf").write_text(
            f"server:\n  interface: 127.0.0.1@{self.port}\n  do-not-query-localhost: no\n  directory: {self.dir}\n  chroot: \"\"\n"
            f"  username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  trust-anchor-file: {tree.anchor}\n  do-ip6: no\n"
            f"  local-zone: test. nodefault\nremote-control:\n  control-enable: no\n"
            f"stub-zone:\n  name: .\n  stub-addr: 127.0.0.1@{tree.port}\n"
            + "".join(f"stub-zone:\n  name: {zone}.\n  stub-addr: 127.0.0.1@{tree.port}\n" for zone in tree.zones))
        self.spawn(unbound, "-d", "-c", self.dir / "unbound.conf")

    def ready(self):
        super().ready()
        import dns.exception
        import dns.flags
        import dns.message
        import dns.query
        try:
            query = dns.message.make_query(".", "SOA", want_dnssec=True)
            answer = dns.query.udp(query, "127.0.0.1", timeout=1, port=self.port)
            return bool(answer.answer) and bool(answer.flags & dns.flags.AD)
        except (dns.exception.DNSException, OSError):
            return False


def _signed_long_ago(name, content):
    """The zone with signatures that were good two years ago, and its DS."""
    import dns.dnssec
    import dns.name
    import dns.rdataclass
    import dns.rdatatype
    import dns.zone
    from cryptography.hazmat.primitives.asymmetric import ec

    origin = dns.name.from_text(name)
    private = ec.generate_private_key(ec.SECP256R1())
    key = dns.dnssec.make_dnskey(private.public_key(), dns.dnssec.Algorithm.ECDSAP256SHA256, flags=257)
    made = dns.zone.from_text(content, origin=origin, relativize=False)
    then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=730)
    with made.writer() as transaction:
        dns.dnssec.sign_zone(made, transaction, keys=[(private, key)], add_dnskey=True, dnskey_ttl=60,
                             inception=then, expiration=then + datetime.timedelta(days=30))
    return made.to_text(relativize=False), dns.dnssec.make_ds(origin, key, "SHA256").to_text()
