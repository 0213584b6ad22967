"""Other people's servers, started by the tests: name server, databases, an S3 store. In temporary directories, on loopback,
never as root where they mind."""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from suite import free_port, wait_for


def _tool(pattern, package):
    found = sorted(glob.glob(pattern))
    if not found:
        pytest.skip(f"{package} is not installed (tests/setup)")
    return found[-1]


class Server:
    """A process with a directory of its own, which goes with it."""

    def __init__(self, prefix, user=None):
        self.dir = Path(tempfile.mkdtemp(prefix=prefix))
        self.user = user if user and os.geteuid() == 0 else None
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(self.dir, account.pw_uid, account.pw_gid)
        self.process = None
        self.command = None

    def account(self):
        return {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []} if self.user else {}

    def run(self, *command, **options):
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, cwd="/", timeout=120,
                       **self.account(), **options)

    def spawn(self, *command, **options):
        self.command = (command, options)
        self.start()

    def start(self):
        command, options = self.command
        with open(self.dir / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                            start_new_session=True, **self.account(), **options)
        wait_for(self.ready, lambda: f"{command[0]}: {(self.dir / 'server.log').read_text(errors='replace')[-2000:]}", 60, 0.05)

    def ready(self):
        assert self.process.poll() is None, (self.dir / "server.log").read_text(errors="replace")[-2000:]
        return True

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            if how == signal.SIGKILL:
                # With its children, as when the machine stops: postgres has many.
                os.killpg(self.process.pid, how)
            else:
                self.process.send_signal(how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def remove(self):
        self.stop(signal.SIGINT)
        shutil.rmtree(self.dir, ignore_errors=True)


class Postgres(Server):
    kind = "postgres"

    def __init__(self):
        initdb = _tool("/usr/lib/postgresql/*/bin/initdb", "postgresql")
        super().__init__("ph-pg-", "postgres")
        self.bin = Path(initdb).parent
        self.port = free_port()
        self.run(initdb, "-D", self.dir / "data", "-A", "trust", "-U", "posthouse", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8")
        self.spawn(self.bin / "postgres", "-D", self.dir / "data", "-k", self.dir, "-h", "127.0.0.1", "-p", str(self.port),
                   "-c", "max_connections=100")

    def sql(self, text, database="postgres"):
        subprocess.run([self.bin / "psql", "-qX", "-h", "127.0.0.1", "-p", str(self.port), "-U", "posthouse", "-d", database,
                        "-v", "ON_ERROR_STOP=1", "-c", text], check=True, capture_output=True, timeout=60)

    def ready(self):
        super().ready()
        with contextlib.suppress(subprocess.CalledProcessError):
            self.sql("select 1")
            return True

    def database(self, name):
        self.sql(f"create database {name}")
        return f"postgres://posthouse@127.0.0.1:{self.port}/{name}"


class MariaDb(Server):
    kind = "mariadb"

    def __init__(self):
        server = _tool("/usr/sbin/mariadbd", "mariadb-server")
        super().__init__("ph-my-", "mysql")
        self.port = free_port()
        data = self.dir / "data"
        self.socket = self.dir / "s"
        self.run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
                 "--skip-test-db", *([f"--user={self.user}"] if self.user else []))
        self.spawn(server, "--no-defaults", f"--datadir={data}", f"--socket={self.socket}", "--bind-address=127.0.0.1",
                   f"--port={self.port}", f"--pid-file={self.dir / 'pid'}", "--skip-name-resolve",
                   "--innodb-buffer-pool-size=64M")
        self.sql("create user if not exists posthouse@'127.0.0.1' identified by 'secret'; "
                 "grant all on *.* to posthouse@'127.0.0.1' with grant option")

    def sql(self, text):
        subprocess.run(["mariadb", "--no-defaults", f"--socket={self.socket}", "-u", "root", "-e", text], check=True,
                       capture_output=True, timeout=60)

    def ready(self):
        super().ready()
        with contextlib.suppress(subprocess.CalledProcessError):
            self.sql("select 1")
            return True

    def database(self, name):
        self.sql(f"create database {name} character set utf8mb4")
        return f"mysql://posthouse:secret@127.0.0.1:{self.port}/{name}"


class S3(Server):
    """moto, which speaks S3; started as a server of its own, talked to over HTTP."""

    def __init__(self):
        pytest.importorskip("moto", reason="moto is not installed (tests/setup)")
        super().__init__("ph-s3-")
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.spawn(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))
        self.client().create_bucket(Bucket="mail")

    def client(self):
        import boto3
        from botocore.config import Config
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id="test",
                            aws_secret_access_key="test", config=Config(retries={"max_attempts": 0}))

    def ready(self):
        super().ready()
        import urllib.request
        with contextlib.suppress(OSError):
            urllib.request.urlopen(self.endpoint, timeout=5).read()
            return True

    def section(self):
        return {"kind": "s3", "bucket": "mail", "endpoint": self.endpoint, "access_key": "test", "secret_key": "test",
                "region": "us-east-1", "inline_max": 1024}


class Knot(Server):
    """knotd with the zones of the test."""

    def __init__(self, zones):
        knotd = _tool("/usr/sbin/knotd", "knot")
        super().__init__("ph-dns-", "knot")
        self.port = free_port()
        for name, text in zones.items():
            (self.dir / f"{name}.zone").write_text(text)
        zone_lines = "".join(f"  - domain: {name}.\n    file: {name}.zone\n" for name in zones)
        (self.dir / "knot.conf").write_text(
            f"server:\n  listen: 127.0.0.1@{self.port}\n  rundir: {self.dir}\n"
            f"database:\n  storage: {self.dir}\n"
            f"log:\n  - target: stderr\n    any: warning\n"
            f"template:\n  - id: default\n    storage: {self.dir}\n    zonefile-load: whole\n    journal-content: none\n"
            f"zone:\n{zone_lines}"
        )
        if self.user:
            account = pwd.getpwnam(self.user)
            for file in self.dir.iterdir():
                os.chown(file, account.pw_uid, account.pw_gid)
        self.probe = next(iter(zones))
        self.spawn(knotd, "-c", self.dir / "knot.conf")

    def ready(self):
        super().ready()
        import dns.exception
        import dns.message
        import dns.query
        try:
            query = dns.message.make_query(f"{self.probe}.", "SOA")
            return bool(dns.query.udp(query, "127.0.0.1", timeout=1, port=self.port).answer)
        except (dns.exception.DNSException, OSError):
            return False

    def txt(self, name):
        """A TXT record as dkimpy asks for it."""
        import dns.message
        import dns.query
        import dns.rdatatype
        query = dns.message.make_query(name, "TXT")
        answer = dns.query.tcp(query, "127.0.0.1", timeout=5, port=self.port)
        for rrset in answer.answer:
            if rrset.rdtype == dns.rdatatype.TXT:
                return b"".join(rrset[0].strings)
        return None


def zone(name, records):
    """A zone file with what every zone has."""
    return (f"$ORIGIN {name}.\n$TTL 60\n@ SOA ns.{name}. hostmaster.{name}. 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n"
            + "\n".join(records) + "\n")


class Dovecot(Server):
    """Another IMAP server (and POP3, with `pop3`), with accounts of the given names and one password; mail in Maildirs below `dir/mail`."""

    def __init__(self, accounts, password, pop3=False):
        super().__init__("ph-dovecot-")
        program = _tool("/usr/sbin/dovecot", "dovecot-imapd")
        if pop3:
            _tool("/usr/lib/dovecot/pop3", "dovecot-pop3d")
        self.pop3_port = free_port() if pop3 else 0
        me = pwd.getpwuid(os.geteuid())
        # Dovecot wants three accounts for itself; as root they are its own, else all are ours.
        login, inner = ("dovenull", "dovecot") if os.geteuid() == 0 else (me.pw_name, me.pw_name)
        owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else me
        self.port = free_port()
        self.dir.chmod(0o755)
        mail = self.dir / "mail"
        mail.mkdir()
        os.chown(mail, owner.pw_uid, owner.pw_gid)
        (self.dir / "users").write_text("".join(f"{name}:{{PLAIN}}{password}::::::\n" for name in accounts))
        (self.dir / "users").chmod(0o644)
        (self.dir / "dovecot.conf").write_text(f"""
protocols = imap{" pop3" if pop3 else ""}
base_dir = {self.dir}/run
state_dir = {self.dir}/state
instance_name = {self.dir.name}
log_path = {self.dir}/dovecot.log
ssl = no
disable_plaintext_auth = no
listen = 127.0.0.1
default_internal_user = {inner}
default_login_user = {login}
first_valid_uid = 1
mail_location = maildir:{mail}/%u:LAYOUT=fs
mail_uid = {owner.pw_uid}
mail_gid = {owner.pw_gid}
passdb {{
  driver = passwd-file
  args = {self.dir}/users
}}
userdb {{
  driver = static
  args = uid={owner.pw_uid} gid={owner.pw_gid} home={mail}/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {self.port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {self.pop3_port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
""")
        self.spawn(program, "-F", "-c", self.dir / "dovecot.conf")

    def ready(self):
        super().ready()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2) as probe:
            return probe.recv(4) == b"* OK"
        return False
