"""Access tokens of a real OpenID Connect provider as logins (RFC 7628), in every protocol."""

import base64
import imaplib
import json
import shutil
import smtplib
import subprocess
import urllib.parse
import urllib.request

import pytest

from suite import ROOT, Suite, anybody, free_port, wait_for

PROVIDER = ROOT / "target/oidc"
AUDIENCE = "https://mail.example.test"
MECHANISMS = ["OAUTHBEARER", "XOAUTH2", "PLAIN"]

pytestmark = pytest.mark.skipif(
    not (PROVIDER / "installed.json").exists() or not shutil.which("node"),
    reason="the token provider is not installed: tests/setup",
)


class Provider:
    """oidc-provider from npm, on loopback."""

    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        script = shutil.copy(ROOT / "tests/lib/oidc/provider.mjs", PROVIDER)
        self.process = subprocess.Popen(
            ["node", script, str(self.port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        raise AssertionError("the token provider did not start")

    def token(self, client, resource=AUDIENCE):
        credentials = f"{urllib.parse.quote(client, safe='')}:secret".encode()
        request = urllib.request.Request(
            self.url + "/token",
            urllib.parse.urlencode(
                {"grant_type": "client_credentials", "scope": "mail", "resource": resource}
            ).encode(),
            {"Authorization": "Basic " + base64.b64encode(credentials).decode()},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["access_token"]

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def provider():
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def suite(provider):
    suite = Suite()
    secret = suite.dir / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o644)
    suite.config["authd"]["oauth"] = {
        "issuer": provider.url,
        "introspection_url": provider.url + "/token/introspection",
        "client_id": "mailserver",
        "client_secret_file": secret,
        "audiences": [AUDIENCE, AUDIENCE + "/opaque"],
        "claim": "client_id",
        "scope": "mail",
    }
    for daemon in ["imapd", "smtpd"]:
        suite.config[daemon]["mechanisms"] = MECHANISMS
    suite.write_config()
    suite.start()
    suite.add_domain("example.test")
    suite.add_account("alice@example.test")
    suite.add_account("bob@example.test")
    yield suite
    suite.remove()


def oauthbearer(token, user="alice@example.test"):
    return f"n,a={user},\x01host=mail.example.test\x01port=993\x01auth=Bearer {token}\x01\x01".encode()


def xoauth2(token, user="alice@example.test"):
    return f"user={user}\x01auth=Bearer {token}\x01\x01".encode()


def imap(suite, mechanism, message):
    """Logs in; gives the challenge with which a refusal comes."""
    client = imaplib.IMAP4_SSL(*suite.address("imaps"), ssl_context=anybody(), timeout=30)
    challenges = []

    def answer(challenge):
        challenges.append(challenge)
        return message if len(challenges) == 1 else b"\x01"

    try:
        assert client.authenticate(mechanism, answer)[0] == "OK"
        assert client.select("INBOX")[0] == "OK"
        return None
    except imaplib.IMAP4.error as error:
        assert "AUTHENTICATIONFAILED" in str(error), error
        return challenges[-1]
    finally:
        client.shutdown()


@pytest.mark.parametrize("mechanism,write", [("OAUTHBEARER", oauthbearer), ("XOAUTH2", xoauth2)])
@pytest.mark.parametrize("resource", [AUDIENCE, AUDIENCE + "/opaque"])
def test_a_token_opens_its_own_account_in_imap(suite, provider, mechanism, write, resource):
    token = provider.token("alice@example.test", resource)
    assert imap(suite, mechanism, write(token)) is None
    # The same token for another account.
    client = imaplib.IMAP4_SSL(*suite.address("imaps"), ssl_context=anybody(), timeout=30)
    with pytest.raises(imaplib.IMAP4.error):
        client.authenticate(mechanism, lambda _: write(token, "bob@example.test"))
    client.shutdown()


@pytest.mark.parametrize("mechanism,write", [("OAUTHBEARER", oauthbearer), ("XOAUTH2", xoauth2)])
def test_a_refusal_tells_why(suite, provider, mechanism, write):
    for token in ["nonsense", provider.token("alice@example.test")[:-8] + "AAAAAAAA"]:
        told = json.loads(imap(suite, mechanism, write(token)))
        assert told["status"] == "invalid_token" and told["scope"] == "mail", told
    stranger = provider.token("nobody@example.test")
    assert imap(suite, mechanism, write(stranger, "nobody@example.test"))


def test_a_token_for_another_service_is_refused(suite, provider):
    assert imap(suite, "OAUTHBEARER", oauthbearer(provider.token("alice@example.test", "https://shop.example.test")))


def test_submission_takes_tokens(suite, provider):
    token = provider.token("alice@example.test")
    with smtplib.SMTP_SSL(*suite.address("submissions"), context=anybody(), timeout=30) as client:
        client.ehlo()
        assert "XOAUTH2" in client.esmtp_features["auth"]
        code, _ = client.docmd("AUTH", "XOAUTH2 " + base64.b64encode(xoauth2(token)).decode())
        assert code == 235
        client.sendmail("alice@example.test", ["bob@example.test"], b"Subject: by token\r\n\r\nHello\r\n")
    with smtplib.SMTP_SSL(*suite.address("submissions"), context=anybody(), timeout=30) as client:
        client.ehlo()
        code, _ = client.docmd("AUTH", "XOAUTH2 " + base64.b64encode(xoauth2("bad")).decode())
        assert code == 334
        assert client.docmd("")[0] == 535
    suite.wait_messages("bob@example.test", 1)


def test_tokens_never_reach_the_log(suite, provider):
    token = provider.token("alice@example.test")
    assert imap(suite, "OAUTHBEARER", oauthbearer(token)) is None
    wait_for(lambda: "login" in suite.log.read_text(), "a login in the log")
    text = suite.log.read_text()
    assert token not in text and token[-30:] not in text
