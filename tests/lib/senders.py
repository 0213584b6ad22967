"""Messages of senders that publish who they are, brought to port 25 through a proxy from everywhere."""

import base64
import re
import smtplib
import subprocess
import time

import dkim
import nacl.signing
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from suite import message

GOOD, BAD = "192.0.2.2", "192.0.2.3"


def rsa_key(bits):
    """The key as dkimpy takes it, and its record."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = "v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode()
    return pem, " ".join(f'"{text[at:at + 250]}"' for at in range(0, len(text), 250))


def ed25519_key():
    seed = nacl.signing.SigningKey.generate()
    public = base64.b64encode(bytes(seed.verify_key)).decode()
    return base64.b64encode(bytes(seed)), f'"v=DKIM1; k=ed25519; p={public}"'


def weak_key():
    """Of 768 bits, as cryptography makes none any more."""
    openssl = lambda *arguments, **more: subprocess.run(["openssl", *arguments], capture_output=True, check=True, **more).stdout
    pem = openssl("genrsa", "-traditional", "768")
    public = openssl("rsa", "-pubout", "-outform", "DER", input=pem)
    return pem, f'"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"'


KEYS = {"r": rsa_key(2048), "e": ed25519_key(), "weak": weak_key()}


def records(policy, *more):
    """What a domain publishes whose mail comes from GOOD."""
    keys = [f"{selector}._domainkey TXT {record}" for selector, (_, record) in KEYS.items()]
    return [f'@ TXT "v=spf1 ip4:{GOOD} -all"', f'mx A {GOOD}', f'mx TXT "v=spf1 a -all"', *keys,
            *([f'_dmarc TXT "v=DMARC1; p={policy}"'] if policy else []), *more]


def letter(domain, text="Hello.\r\n", **more):
    return message(f"<{time.monotonic_ns()}@{domain}>", sender=f"author@{domain}", text=text, **more)


def signed(octets, selector="r", domain=None, **options):
    domain = domain or re.search(rb"From: <author@([^>]+)>", octets)[1].decode()
    if selector == "e":
        options["signature_algorithm"] = b"ed25519-sha256"
    return dkim.sign(octets, selector.encode(), domain.encode(), KEYS[selector][0], **options) + octets


class Proxied(smtplib.SMTP):
    """A connection that says where it really comes from; without a client it comes from here."""

    def __init__(self, *address, client, **options):
        self.client = client
        super().__init__(*address, **options)

    def _get_socket(self, host, port, timeout):
        connection = super()._get_socket(host, port, timeout)
        if self.client:
            connection.sendall(f"PROXY TCP4 {self.client} 127.0.0.1 1024 {port}\r\n".encode())
        return connection


def deliver(suite, to, octets, sender, client=GOOD, helo="mx.reject.example"):
    """The answer to the message."""
    with Proxied(*suite.address("mx"), client=client, local_hostname=helo, timeout=60) as session:
        session.ehlo()
        session.mail(sender)
        for one in [to] if isinstance(to, str) else to:
            assert session.rcpt(one)[0] == 250
        code, text = session.data(octets)
        return code, text.decode()
