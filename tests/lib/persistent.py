"""An ACME authority (RFC 8555) that knows DNS-PERSIST-01 alone: Debian's pebble is older than that challenge.

Everything is checked as an authority does it: each nonce once, signatures with the account's key, the CSR, and the TXT records of
`_validation-persist` at the name server `dns`, by draft-ietf-acme-dns-persist-01. What the draft leaves to the authority is set by the
test: whether the challenge names the account, and whether a record with `policy=wildcard` is for the names below."""

import base64
import datetime
import http.server
import itertools
import json
import re
import secrets
import ssl
import tempfile
import threading
import time
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from authority import https_identity

ISSUE_VALUE = re.compile(r"[ \t]*([a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)[ \t]*(?:;(.*))?", re.DOTALL)
PARAMETER = re.compile(r"[ \t]*([a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)[ \t]*=[ \t]*([!-:<-~]*)[ \t]*")


class Problem(Exception):
    def __init__(self, kind, detail, status=400):
        super().__init__(detail)
        self.kind, self.detail, self.status = kind, detail, status

    def body(self):
        return {"type": f"urn:ietf:params:acme:error:{self.kind}", "detail": self.detail, "status": self.status}


def unpadded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def parameters(rest):
    """What stands behind the issuer (RFC 8659 4.2)."""
    found = {}
    for part in rest.split(";") if rest.strip(" \t") else []:
        match = PARAMETER.fullmatch(part)
        if not match:
            raise Problem("malformed", f"{part!r} is no parameter")
        tag = match[1].lower()
        if tag in found:
            raise Problem("malformed", f"{tag} is there twice")
        found[tag] = match[2]
    return found


class PersistentAuthority:
    def __init__(self, dns, issuers=("authority.test",), names_account=True, subdomains=False, validity=90 * 86400, account_url=None):
        self.dns, self.issuers, self.names_account, self.subdomains = dns, list(issuers), names_account, subdomains
        self.validity, self.account_url = validity, account_url
        self.folder = tempfile.TemporaryDirectory(prefix="ph-persist-")
        self.dir = Path(self.folder.name)
        https_identity(self.dir)
        self.lock, self.numbers = threading.Lock(), itertools.count(1)
        self.nonces, self.accounts, self.orders, self.authorizations, self.certificates = set(), {}, {}, {}, {}
        self.answered = []
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("the test's authority", self.key.public_key(), [], 86400 * 365)
        self._serve()

    def _serve(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.answer(self, None)

            do_HEAD = do_GET

            def do_POST(self):
                outer.answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.dir / "server.pem", self.dir / "server.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.base = f"https://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def directory(self):
        return f"{self.base}/dir"

    def remove(self):
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()

    def root(self):
        """What a mail program of the test trusts."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def answer(self, request, body):
        headers, status = {}, 200
        with self.lock:
            try:
                status, content, headers = self.route(request.path, body)
            except Problem as problem:
                status, content = problem.status, problem.body()
            nonce = secrets.token_urlsafe(16)
            self.nonces.add(nonce)
        octets = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        kind = "application/problem+json" if status >= 400 else "application/json"
        request.send_response(status)
        for name, value in {"Content-Type": kind, "Replay-Nonce": nonce, "Cache-Control": "no-store", **headers}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(octets)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(octets)

    def route(self, path, body):
        if path == "/dir":
            return 200, {"newNonce": f"{self.base}/nonce", "newAccount": f"{self.base}/new-account", "newOrder": f"{self.base}/new-order",
                         "revokeCert": f"{self.base}/revoke", "keyChange": f"{self.base}/key-change"}, {}
        if path == "/nonce":
            return 200, "", {}
        if body is None:
            raise Problem("malformed", "only POST here", 405)
        account, payload = self.verified(path, body)
        if path == "/new-account":
            return self.new_account(account, payload)
        if path == "/new-order":
            return self.new_order(account, json.loads(payload))
        _, kind, number = path.split("/")
        return getattr(self, f"post_{kind}")(account, int(number), payload)

    def verified(self, path, body):
        """RFC 8555 6.2 to 6.5; who asks, and for what."""
        jws = json.loads(body)
        header = json.loads(unpadded(jws["protected"]))
        if header.get("nonce") not in self.nonces:
            raise Problem("badNonce", "this nonce is not known")
        self.nonces.remove(header["nonce"])
        if header["url"] != self.base + path or header["alg"] != "ES256" or ("jwk" in header) == ("kid" in header):
            raise Problem("malformed", "the protected header is wrong")
        if path == "/new-account":
            jwk, account = header["jwk"], None
        else:
            account = next((one for one in self.accounts.values() if one["url"] == header.get("kid")), None)
            if not account:
                raise Problem("accountDoesNotExist", "no such account")
            jwk = account["jwk"]
        x, y = (int.from_bytes(unpadded(jwk[part])) for part in ("x", "y"))
        signature = unpadded(jws["signature"])
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
        try:
            ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key().verify(
                utils.encode_dss_signature(r, s), f"{jws['protected']}.{jws['payload']}".encode(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Problem("unauthorized", "the signature is wrong", 403) from None
        return account or jwk, unpadded(jws["payload"])

    def new_account(self, jwk, payload):
        wanted, key = json.loads(payload), json.dumps(jwk, sort_keys=True)
        known = key in self.accounts
        if not known:
            if not wanted.get("termsOfServiceAgreed"):
                raise Problem("userActionRequired", "the terms of service", 403)
            url = self.account_url or f"{self.base}/account/{next(self.numbers)}"
            self.accounts[key] = {"jwk": jwk, "url": url, "contact": wanted.get("contact", [])}
        account = self.accounts[key]
        return (200 if known else 201), {"status": "valid", "contact": account["contact"]}, {"Location": account["url"]}

    def post_account(self, account, number, payload):
        account.update(json.loads(payload) if payload else {})
        return 200, {"status": "valid", "contact": account["contact"]}, {}

    def new_order(self, account, wanted):
        names = [one["value"] for one in wanted["identifiers"]]
        number, urls = next(self.numbers), []
        for name in names:
            at = next(self.numbers)
            self.authorizations[at] = {"domain": name.removeprefix("*."), "wildcard": name.startswith("*."), "status": "pending",
                                       "account": account, "order": number, "error": None}
            urls.append(f"{self.base}/authorization/{at}")
        self.orders[number] = {"names": names, "status": "pending", "authorizations": urls, "account": account, "certificate": None}
        return 201, self.order(number), {"Location": f"{self.base}/order/{number}"}

    def order(self, number):
        order = self.orders[number]
        shown = {"status": order["status"], "identifiers": [{"type": "dns", "value": name} for name in order["names"]],
                 "authorizations": order["authorizations"], "finalize": f"{self.base}/finalize/{number}"}
        if order["certificate"]:
            shown["certificate"] = f"{self.base}/certificate/{number}"
        return shown

    def post_order(self, account, number, payload):
        self.owned(self.orders, number, account)
        return 200, self.order(number), {}

    def owned(self, table, number, account):
        if number not in table or table[number]["account"] is not account:
            raise Problem("unauthorized", "not yours", 404)
        return table[number]

    def uri(self, account):
        return account.get("uri", account["url"])

    def challenge(self, number):
        one = self.authorizations[number]
        shown = {"type": "dns-persist-01", "url": f"{self.base}/challenge/{number}", "status": one["status"],
                 "issuer-domain-names": self.issuers}
        if self.names_account:
            shown["accounturi"] = self.uri(one["account"])
        if one["error"]:
            shown["error"] = one["error"]
        return shown

    def post_authorization(self, account, number, payload):
        one = self.owned(self.authorizations, number, account)
        shown = {"identifier": {"type": "dns", "value": one["domain"]}, "status": one["status"], "challenges": [self.challenge(number)]}
        return 200, {**shown, **({"wildcard": True} if one["wildcard"] else {})}, {}

    def post_challenge(self, account, number, payload):
        one = self.owned(self.authorizations, number, account)
        self.answered.append((one["domain"], one["wildcard"]))
        if json.loads(payload) != {}:
            raise Problem("malformed", "the answer to dns-persist-01 is an empty object")
        order = self.orders[one["order"]]
        try:
            self.validate(one)
            one["status"] = "valid"
        except Problem as problem:
            one["status"], one["error"] = "invalid", problem.body()
            order["status"] = "invalid"
        ours = [other for other in self.authorizations.values() if other["order"] == one["order"]]
        if all(other["status"] == "valid" for other in ours):
            order["status"] = "ready"
        return 200, {**self.challenge(number), "error": None}, {}

    def texts(self, domain):
        query = dns.message.make_query(f"_validation-persist.{domain}.", "TXT")
        try:
            answer = dns.query.tcp(query, "127.0.0.1", timeout=5, port=self.dns)
        except (dns.exception.DNSException, OSError) as error:
            raise Problem("dns", str(error)) from None
        return [b"".join(record.strings).decode() for rrset in answer.answer for record in rrset if rrset.rdtype == dns.rdatatype.TXT]

    def validate(self, one):
        """The draft's 4.2; with `subdomains`, 6."""
        reasons = []
        labels = one["domain"].split(".")
        for cut in range(len(labels) - 1 if self.subdomains else 1):
            for text in self.texts(".".join(labels[cut:])):
                try:
                    if self.accepts(text, one, one["wildcard"] or cut > 0):
                        return
                except Problem as problem:
                    reasons.append(problem)
        raise reasons[0] if reasons else Problem("unauthorized", "no record of ours is there", 403)

    def accepts(self, text, one, wildcard):
        match = ISSUE_VALUE.fullmatch(text)
        if not match or match[1].lower() not in self.issuers:
            return False
        found = parameters(match[2] or "")
        if not found.get("accounturi"):
            raise Problem("malformed", "accounturi is missing")
        until = found.get("persistuntil")
        if until is not None and not re.fullmatch("[0-9]+", until):
            raise Problem("malformed", "persistUntil is no number")
        if found["accounturi"] not in (one["account"]["url"], self.uri(one["account"])):
            raise Problem("unauthorized", "accounturi is of somebody else", 403)
        if until is not None and time.time() > int(until):
            raise Problem("unauthorized", "persistUntil is over", 403)
        if wildcard and found.get("policy", "").lower() != "wildcard":
            raise Problem("unauthorized", "policy=wildcard is missing", 403)
        return True

    def post_finalize(self, account, number, payload):
        order = self.owned(self.orders, number, account)
        if order["status"] != "ready":
            raise Problem("orderNotReady", f"the order is {order['status']}", 403)
        request = x509.load_der_x509_csr(unpadded(json.loads(payload)["csr"]))
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
        if not request.is_signature_valid or sorted(names) != sorted(order["names"]):
            raise Problem("badCSR", "the request is not for this order")
        leaf = self._sign(names[0], request.public_key(), names, self.validity)
        order["certificate"] = "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in (leaf, self.certificate))
        order["status"] = "valid"
        return 200, self.order(number), {}

    def post_certificate(self, account, number, payload):
        return 200, self.owned(self.orders, number, account)["certificate"], {"Content-Type": "application/pem-certificate-chain"}

    def _sign(self, subject, public, names, seconds):
        now = datetime.datetime.now(datetime.UTC)
        name = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        builder = (x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("the test's authority")).public_key(public)
                   .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(seconds=5))
                   .not_valid_after(now + datetime.timedelta(seconds=seconds))
                   .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
                   .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        return builder.sign(self.key, hashes.SHA256())
