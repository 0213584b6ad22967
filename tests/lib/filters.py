"""Filters as administrators attach them: OpenDKIM, ClamAV's milter, Rspamd. Each in a directory of its own, on loopback, without
anything from outside."""

import os
import pwd

from milters import answers
from servers import Server, _tool
from suite import free_port

# The pattern of the industry's test file, which is no virus; in two halves, so that no scanner minds this file.
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
# What Rspamd takes for spam without any rule, in two halves as well.
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


class Filter(Server):
    """One that listens on `port`."""

    def __init__(self, prefix):
        super().__init__(prefix, user="nobody")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def write(self, name, text):
        file = self.dir / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if self.account():
            os.chown(file, self.account_id(), -1)
        return file

    def account_id(self):
        return pwd.getpwnam(self.user).pw_uid

    def ready(self):
        super().ready()
        return answers(self.port)


class OpenDkim(Filter):
    """Signs what authenticated clients send for a domain."""

    def __init__(self, domain, key):
        program = _tool("/usr/sbin/opendkim", "opendkim")
        super().__init__("ph-opendkim-")
        file = self.write("key.pem", key)
        file.chmod(0o600)
        config = self.write("opendkim.conf", f"""Domain {domain}
Selector filter
KeyFile {file}
Socket inet:{self.port}@127.0.0.1
Canonicalization relaxed/simple
Mode s
MacroList {{auth_type}}
InternalHosts 192.0.2.254
RequireSafeKeys no
Background no
Syslog no
""")
        self.spawn(program, "-f", "-x", config)


class Clamd(Filter):
    """ClamAV with one signature: EICAR."""

    def __init__(self):
        program = _tool("/usr/sbin/clamd", "clamav-daemon")
        super().__init__("ph-clamd-")
        self.write("db/own.ndb", f"Own.Eicar:0:*:{EICAR.encode().hex()}\n")
        config = self.write("clamd.conf", f"""Foreground yes
TCPSocket {self.port}
TCPAddr 127.0.0.1
DatabaseDirectory {self.dir}/db
TemporaryDirectory {self.dir}
MaxThreads 2
""")
        self.spawn(program, "-c", config)


class ClamavMilter(Filter):
    """Refuses what clamd finds infected."""

    def __init__(self, clamd, action="Reject"):
        program = _tool("/usr/sbin/clamav-milter", "clamav-milter")
        super().__init__("ph-clamav-milter-")
        config = self.write("milter.conf", f"""Foreground yes
MilterSocket inet:{self.port}@127.0.0.1
ClamdSocket tcp:127.0.0.1:{clamd.port}
OnInfected {action}
RejectMsg Infected: %v
AddHeader Replace
TemporaryDirectory {self.dir}
""")
        self.spawn(program, "-c", config)


class Rspamd(Filter):
    """Its proxy worker as a milter that scans by itself; no DNS, no maps, no Redis."""

    def __init__(self):
        program = _tool("/usr/bin/rspamd", "rspamd")
        super().__init__("ph-rspamd-")
        main = self.write("rspamd.conf", f"""
options {{
  pidfile = "{self.dir}/rspamd.pid";
  tempdir = "{self.dir}";
  rrd = "{self.dir}/rspamd.rrd";
  hs_cache_dir = "{self.dir}";
  url_tld = "/usr/share/rspamd/effective_tld_names.dat";
  filters = "chartable,regexp";
  dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; }}
  max_urls = 100;
}}
logging {{ type = "console"; level = "notice"; }}
worker "rspamd_proxy" {{
  bind_socket = "{self.address}";
  milter = yes;
  count = 1;
  timeout = 20s;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
actions {{ reject = 15; add_header = 6; }}
milter_headers {{ use = ["x-spamd-bar", "x-rspamd-server"]; skip_local = false; skip_authenticated = false; }}
modules {{ path = "/usr/share/rspamd/plugins/milter_headers.lua"; }}
""" + f'lua = "{self.dir}/rspamd.local.lua";\n')
        self.write("rspamd.local.lua", """
rspamd_config:register_symbol({
  name = 'TEST_WORD', type = 'normal', score = 7.0, group = 'test',
  callback = function(task)
    local subject = task:get_subject()
    return subject ~= nil and subject:find('testword') ~= nil
  end
})
""")
        self.spawn(program, "-f", "-c", main)
