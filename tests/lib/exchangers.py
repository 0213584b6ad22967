"""Mail exchangers with STARTTLS and servers of MTA-STS policies, with certificates that are good, or bad in a way of their own."""

import datetime
import hashlib
import http.server
import socketserver
import ssl
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority."""

    def __init__(self, folder, name):
        self.dir = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            x509.CertificateBuilder().subject_name(self.name).issuer_name(self.name).public_key(self.key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(NOW - DAY).not_valid_after(NOW + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256()))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.file.chmod(0o644)

    def host(self, *names, expired=False, self_signed=False, with_authority=True):
        """A certificate and its key, ready for a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        begin, end = (NOW - 30 * DAY, NOW - DAY) if expired else (NOW - DAY, NOW + 30 * DAY)
        made = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(subject if self_signed else self.name)
            .public_key(key.public_key()).serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .sign(key if self_signed else self.key, hashes.SHA256()))
        return Identity(self, made, key, with_authority and not self_signed)


class Identity:
    """What a server shows."""

    def __init__(self, authority, certificate, key, with_authority):
        self.certificate = certificate
        pem = serialization.Encoding.PEM
        file = authority.dir / f"host-{certificate.serial_number:x}.pem"
        chain = certificate.public_bytes(pem)
        if with_authority:
            chain += authority.certificate.public_bytes(pem)
        self.pem = chain, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(b"".join(self.pem))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(file)
        file.unlink()

    def files(self, folder, name):
        """The same for `[[keyd.certificate]]`."""
        paths = {"cert": folder / f"{name}.pem", "key": folder / f"{name}.key"}
        for path, octets in zip(paths.values(), self.pem):
            path.write_bytes(octets)
            path.chmod(0o644)
        return paths


def tlsa(usage, selector, matching, certificate):
    """The data of a TLSA record."""
    if selector == 0:
        octets = certificate.public_bytes(serialization.Encoding.DER)
    else:
        octets = certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    octets = {0: lambda o: o, 1: lambda o: hashlib.sha256(o).digest(), 2: lambda o: hashlib.sha512(o).digest()}[matching](octets)
    return f"TLSA {usage} {selector} {matching} {octets.hex()}"


class Exchanger:
    """Takes every message. `identity` None: it knows no STARTTLS. `mails` has (sender, recipient, whether under TLS, the name asked
    for in the handshake)."""

    def __init__(self, host, port, identity=None, extensions=(), newest=None):
        exchanger = self
        self.mails, self.sessions, self.arguments, self.contents = [], 0, [], []
        self.identity, self.extensions = identity, list(extensions)
        if identity:
            identity.context.sni_callback = lambda connection, name, _: setattr(connection, "asked", name)
            if newest:
                identity.context.maximum_version = newest

        class Session(socketserver.BaseRequestHandler):
            def handle(self):
                exchanger.sessions += 1
                try:
                    exchanger._session(self.request)
                except (OSError, ValueError):
                    pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self.server = Server((host, port), Session)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _session(self, connection):
        lines = connection.makefile("rb")
        say = lambda text: connection.sendall(text.encode() + b"\r\n")
        say("220 mx.example ESMTP")
        secured, asked, sender, recipients = False, None, None, []
        while line := lines.readline():
            verb = line[:4].upper()
            path = line[line.find(b"<") + 1:line.rfind(b">")].decode(errors="replace")
            if verb == b"EHLO":
                offered = ["mx.example", "8BITMIME", "SMTPUTF8", "SIZE 1000000", *self.extensions]
                if self.identity and not secured:
                    offered.append("STARTTLS")
                say("\r\n".join(f"250{' ' if one is offered[-1] else '-'}{one}" for one in offered))
            elif verb == b"STAR":
                if not self.identity:
                    say("502 5.5.1 no")
                    continue
                say("220 go on")
                connection = self.identity.context.wrap_socket(connection, server_side=True)
                secured, asked = True, getattr(connection, "asked", None)
                lines = connection.makefile("rb")
            elif verb == b"MAIL":
                sender, recipients = path, []
                self.arguments.append(line.decode(errors="replace"))
                say("250 ok")
            elif verb == b"RCPT":
                recipients.append(path)
                say("250 ok")
            elif verb == b"DATA":
                say("354 go on")
                content = b""
                while (piece := lines.readline()) and piece != b".\r\n":
                    content += piece
                self.contents.append(content)
                self.mails += [(sender, recipient, secured, asked) for recipient in recipients]
                say("250 taken")
            elif verb == b"QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Policies:
    """An HTTPS server with one file: the policy. `asked` counts."""

    def __init__(self, host, port, identity, text, status=200, kind="text/plain", location=None):
        policies = self
        self.asked, self.text, self.status = 0, text, status

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                policies.asked += 1
                body = policies.text.encode()
                right = self.path == "/.well-known/mta-sts.txt"
                self.send_response(policies.status if right else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if location:
                    self.send_header("Location", location)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                pass

        self.server = Server((host, port), Answer)
        self.server.socket = identity.context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
