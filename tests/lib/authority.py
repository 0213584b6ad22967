"""An ACME authority (pebble), and name servers whose zones can be changed: what certd is tested against."""

import atexit
import base64
import contextlib
import datetime
import http.server
import ipaddress
import json
import os
import pwd
import secrets
import shutil
import ssl
import subprocess
import tempfile
import threading
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from servers import Server, _tool
from suite import free_port

TSIG = base64.b64encode(secrets.token_bytes(32)).decode()


def open_folder():
    """A folder for files that the suite's account reads; it goes when the tests end."""
    folder = tempfile.mkdtemp(prefix="ph-open-")
    os.chmod(folder, 0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _own(server):
    """The files of a server that does not run as root."""
    if server.user:
        account = pwd.getpwnam(server.user)
        for file in server.dir.iterdir():
            os.chown(file, account.pw_uid, account.pw_gid)


def https_identity(folder):
    """An authority for HTTPS alone, in `ca.pem`, and a certificate of that for 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "HTTPS of the test's authority")])

    def build(subject, public):
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(public)
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                .not_valid_after(now + datetime.timedelta(days=1)))

    ca = (build(ca_name, ca_key.public_key())
          .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(ca_key, hashes.SHA256()))
    leaf = (build(x509.Name([]), key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=True)
            .sign(ca_key, hashes.SHA256()))
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "server.pem").write_bytes(leaf.public_bytes(pem))
    (folder / "server.key").write_bytes(key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    folder.chmod(0o755)


class Pebble(Server):
    """pebble, which asks the name server at `dns`; validations go to the ports `http` and `tls` of 127.0.0.1."""

    def __init__(self, dns, http=1, tls=1, refused_nonces=0, validity=None, bindings=None):
        program = _tool("/usr/bin/pebble", "pebble")
        super().__init__("ph-acme-", "nobody")
        self.port, self.management = free_port(), free_port()
        https_identity(self.dir)
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(self.dir / "server.pem"),
            "privateKey": str(self.dir / "server.key"),
            "httpPort": http,
            "tlsPort": tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": bool(bindings),
        }
        if bindings:
            config["externalAccountMACKeys"] = bindings
        if validity:
            config["certificateValidityPeriod"] = validity
        (self.dir / "pebble.json").write_text(json.dumps({"pebble": config}))
        _own(self)
        self.command = ([program, "-config", self.dir / "pebble.json", "-dnsserver", f"127.0.0.1:{dns}"], {
            "env": {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": str(refused_nonces)},
        })

    @property
    def directory(self):
        return f"https://127.0.0.1:{self.port}/dir"

    def ask(self, path):
        context = ssl.create_default_context(cafile=self.dir / "ca.pem")
        with urllib.request.urlopen(f"https://127.0.0.1:{self.management}{path}", context=context, timeout=10) as answer:
            return answer.read().decode()

    def ready(self):
        super().ready()
        with contextlib.suppress(OSError):
            return bool(self.ask("/roots/0"))

    def root(self):
        """What a mail program of the test trusts."""
        return self.ask("/roots/0")

    def status(self, serial):
        """`Valid` or `Revoked`, as the authority keeps it."""
        return json.loads(self.ask(f"/cert-status-by-serial/{serial:x}"))


class Suggesting:
    """A directory before pebble's that also offers renewal information (RFC 9773), which Debian's pebble does not know. Everything else
    is pebble's own."""

    def __init__(self, pebble):
        self.pebble, self.asked, self.window = pebble, [], None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/dir":
                    body = json.loads(outer._fetch(pebble.directory))
                    body["renewalInfo"] = f"https://127.0.0.1:{outer.port}/ari"
                elif self.path.startswith("/ari/"):
                    outer.asked.append(self.path.removeprefix("/ari/"))
                    start, end = (one.strftime("%Y-%m-%dT%H:%M:%SZ") for one in outer.window)
                    body = {"suggestedWindow": {"start": start, "end": end}, "explanationURL": "https://why.example/"}
                else:
                    return self.send_error(404)
                octets = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(octets)))
                self.send_header("Retry-After", "3600")
                self.end_headers()
                self.wfile.write(octets)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pebble.dir / "server.pem", pebble.dir / "server.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def directory(self):
        return f"https://127.0.0.1:{self.port}/dir"

    @property
    def dir(self):
        return self.pebble.dir

    def _fetch(self, url):
        context = ssl.create_default_context(cafile=self.pebble.dir / "ca.pem")
        with urllib.request.urlopen(url, context=context, timeout=10) as answer:
            return answer.read()

    def remove(self):
        self.server.shutdown()
        self.server.server_close()


class DynamicKnot(Server):
    """knotd with zones that can be changed by whoever has the TSIG key `certd.`; or, with `primary`, a copy of another's zones that is
    only renewed when the test says so."""

    def __init__(self, zones, primary=None):
        knotd = _tool("/usr/sbin/knotd", "knot")
        super().__init__("ph-ddns-", "knot")
        self.port = free_port()
        self.zones = zones
        lines = [f"server:\n  listen: 127.0.0.1@{self.port}\n  rundir: {self.dir}\n",
                 f"database:\n  storage: {self.dir}\n",
                 "log:\n  - target: stderr\n    any: info\n",
                 f"key:\n  - id: certd.\n    algorithm: hmac-sha256\n    secret: {TSIG}\n"]
        if primary:
            lines.append(f"remote:\n  - id: primary\n    address: 127.0.0.1@{primary.port}\n")
        else:
            lines.append("acl:\n  - id: update\n    key: certd.\n    action: update\n"
                         "  - id: transfer\n    address: 127.0.0.1\n    action: transfer\n")
        lines.append(f"template:\n  - id: default\n    storage: {self.dir}\n")
        lines.append("zone:\n")
        for name, text in zones.items():
            if primary:
                lines.append(f"  - domain: {name}.\n    master: primary\n")
            else:
                (self.dir / f"{name}.zone").write_text(text)
                lines.append(f"  - domain: {name}.\n    file: {name}.zone\n    acl: [update, transfer]\n")
        (self.dir / "knot.conf").write_text("".join(lines))
        _own(self)
        self.spawn(knotd, "-c", self.dir / "knot.conf")

    def ready(self):
        super().ready()
        import dns.exception
        try:
            return bool(self.ask(f"{next(iter(self.zones))}.", "SOA"))
        except (dns.exception.DNSException, OSError):
            return False

    def ask(self, name, kind):
        """The answers, as texts."""
        import dns.message
        import dns.query
        import dns.rdatatype
        answer = dns.query.tcp(dns.message.make_query(name, kind), "127.0.0.1", timeout=5, port=self.port)
        return [record.to_text() for rrset in answer.answer for record in rrset
                if rrset.rdtype == dns.rdatatype.from_text(kind)]

    def txt(self, name):
        """A TXT record as dkimpy asks for it."""
        answers = self.ask(name, "TXT")
        return "".join(answers[0].strip('"').split('" "')).encode() if answers else None

    def refresh(self):
        """A copy looks at its primary now."""
        subprocess.run(["/usr/sbin/knotc", "-c", self.dir / "knot.conf", "-b", "zone-retransfer"], check=True,
                       capture_output=True, timeout=30, **self.account())
