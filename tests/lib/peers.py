"""Dovecot as another server to import from, and as a reader of what was exported."""

import contextlib
import imaplib
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from servers import Server
from suite import PASSWORD, free_port


class Dovecot(Server):
    """Dovecot with Maildirs below `mail/USER`, for anybody with our password. As root only: it changes its users."""

    def __init__(self):
        if not Path("/usr/lib/dovecot/imap").exists():
            pytest.skip("dovecot-imapd is not installed (tests/setup)")
        if os.geteuid() != 0:
            pytest.skip("Dovecot starts as root only")
        super().__init__("ph-dovecot-")
        self.dir.chmod(0o755)
        self.port = free_port()
        self.tls_port = free_port()
        account = pwd.getpwnam("mail")
        self.ids = (account.pw_uid, account.pw_gid)
        self.mail = self.dir / "mail"
        self.mail.mkdir()
        os.chown(self.mail, *self.ids)
        self.certificate = self.dir / "cert.pem"
        key = self.dir / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
             "-keyout", key, "-out", self.certificate],
            check=True, capture_output=True,
        )
        config = self.dir / "dovecot.conf"
        config.write_text(f"""protocols = imap
base_dir = {self.dir}/run
state_dir = {self.dir}/state
log_path = {self.dir}/dovecot.log
listen = 127.0.0.1
mail_location = maildir:{self.mail}/%n
first_valid_uid = 1
disable_plaintext_auth = no
ssl = yes
ssl_cert = <{self.certificate}
ssl_key = <{key}
passdb {{
  driver = static
  args = password={PASSWORD.replace(" ", "_")}
}}
userdb {{
  driver = static
  args = uid={self.ids[0]} gid={self.ids[1]} home={self.mail}/%n allow_all_users=yes
}}
service imap-login {{
  inet_listener imap {{
    port = {self.port}
  }}
  inet_listener imaps {{
    port = {self.tls_port}
    ssl = yes
  }}
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Gesendet {{
    special_use = \\Sent
  }}
}}
""")
        self.password = PASSWORD.replace(" ", "_")
        self.password_file = self.dir / "password"
        self.password_file.write_text(self.password + "\n")
        self.password_file.chmod(0o644)
        self.certificate.chmod(0o644)
        self.spawn("/usr/sbin/dovecot", "-F", "-c", str(config))

    def ready(self):
        super().ready()
        with contextlib.suppress(OSError):
            imaplib.IMAP4("127.0.0.1", self.port).logout()
            return True

    def imap(self, user):
        client = imaplib.IMAP4("127.0.0.1", self.port)
        client.login(user, self.password)
        return client

    def adopt(self, user, folder):
        """Takes a copy of a Maildir as this user's."""
        target = self.mail / user
        shutil.copytree(folder, target)
        for path in [target, *target.rglob("*")]:
            os.chown(path, *self.ids)
