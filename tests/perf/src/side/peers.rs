//! Debian's Postfix and Dovecot as private instances: their own configuration, queue, mail and ports.
//!
//! Postfix acknowledges when the queue file is synced, which is its only way; Dovecot syncs a message before it answers
//! the LMTP client, which is its default. Mail is kept as Maildir, Debian's usual choice. Limits that a load from one
//! address would run into are raised; login processes serve many connections ("high-performance mode"), which suits Dovecot.

use super::{DOMAIN, PASSWORD, Side, Software, USERS, free_address, user};
use crate::Outcome;
use crate::measure::drain::{DESTINATIONS, ELSEWHERE, host};
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const POSTFIX: &str = "/usr/sbin/postfix";
const DOVECOT: &str = "/usr/sbin/dovecot";
const DOVEADM: &str = "/usr/bin/doveadm";
const XAPIAN: &str = "/usr/lib/dovecot/modules/lib21_fts_xapian_plugin.so";

/// What Dovecot's configuration gets when its index is wanted. With its limits of memory both services die of 100,000 messages.
const INDEXED: &str = "mail_plugins = fts fts_xapian
plugin {
  fts = xapian
  fts_xapian = partial=3 full=20
  fts_autoindex = no
  fts_enforced = yes
}
service indexer-worker {
  vsz_limit = 0
}
service imap {
  vsz_limit = 0
}
";

/// Where the peers' configuration is.
pub struct Peers {
    dovecot: PathBuf,
    postfix: PathBuf,
    dir: PathBuf,
}

impl Peers {
    /// Messages in the deferred queue.
    pub fn deferred(&self) -> usize {
        let mut count = 0;
        let Ok(folders) = fs::read_dir(self.dir.join("queue/deferred")) else {
            return 0;
        };
        for folder in folders.flatten() {
            count += fs::read_dir(folder.path()).map_or(0, Iterator::count);
        }
        count
    }

    /// `postqueue -f`
    pub fn flush(&self) -> Outcome<()> {
        self.postqueue(&["-f"])
    }

    /// What tells how long the queue is: the list of it.
    pub async fn figures(&self) -> Outcome<()> {
        let command = self.command(&["-p"]);
        tokio::task::spawn_blocking(move || run(command)).await?
    }

    fn postqueue(&self, arguments: &[&str]) -> Outcome<()> {
        run(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/sbin/postqueue");
        command.arg("-c").arg(&self.postfix).args(arguments);
        command
    }

    /// Loads the plugin for full-text search and has it index a user's mail.
    pub fn index(&self, user: &str) -> Outcome<Option<Duration>> {
        if !Path::new(XAPIAN).exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&self.dovecot)?;
        fs::write(&self.dovecot, text + INDEXED)?;
        self.doveadm(&["reload"])?;
        let start = Instant::now();
        self.doveadm(&["index", "-u", user, "Many"])?;
        Ok(Some(start.elapsed()))
    }

    fn doveadm(&self, arguments: &[&str]) -> Outcome<()> {
        let output = Command::new(DOVEADM)
            .arg("-c")
            .arg(&self.dovecot)
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("doveadm {}: {text}", arguments.join(" ")).into());
        }
        Ok(())
    }
}

fn run(mut command: Command) -> Outcome<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{command:?}: {text}").into());
    }
    Ok(())
}

/// Why they cannot be measured here, if so.
pub fn why_not() -> Option<String> {
    for (file, package) in [
        (POSTFIX, "postfix"),
        (DOVECOT, "dovecot-core"),
        ("/usr/lib/dovecot/imap", "dovecot-imapd"),
        ("/usr/lib/dovecot/lmtp", "dovecot-lmtpd"),
    ] {
        if !Path::new(file).exists() {
            return Some(format!("{package} is not installed (tests/setup --bench)"));
        }
    }
    (!rustix::process::geteuid().is_root()).then(|| "they start as root only".to_owned())
}

/// Starts both.
pub async fn start(dir: &Path) -> Outcome<Side> {
    if let Some(why) = why_not() {
        return Err(why.into());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let (smtp, imap, imaps) = (free_address()?, free_address()?, free_address()?);
    let dovecot_conf = dovecot(dir, imap, imaps)?;
    let port = free_address()?.port();
    let postfix_conf = postfix(dir, smtp, port)?;
    let log = |name: &str| -> Outcome<Stdio> { Ok(fs::File::create(dir.join(name))?.into()) };
    let dovecot = Command::new(DOVECOT)
        .arg("-F")
        .arg("-c")
        .arg(&dovecot_conf)
        .stdin(Stdio::null())
        .stdout(log("dovecot.out")?)
        .stderr(log("dovecot.err")?)
        .spawn()?;
    let mut side = Side {
        smtp,
        imap,
        imaps,
        elsewhere: port,
        data: dir.to_owned(),
        software: Software::Peers(Peers {
            dovecot: dovecot_conf,
            postfix: postfix_conf.clone(),
            dir: dir.to_owned(),
        }),
        children: vec![dovecot],
    };
    side.children.push(
        Command::new(POSTFIX)
            .arg("-c")
            .arg(postfix_conf)
            .arg("start-fg")
            .stdin(Stdio::null())
            .stdout(log("postfix.out")?)
            .stderr(log("postfix.err")?)
            .spawn()?,
    );
    side.ready().await?;
    Ok(side)
}

/// The numeric ids of a system account, from /etc/passwd: only local accounts are of interest here.
pub fn account(name: &str) -> Outcome<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd")?;
    text.lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .ok_or_else(|| format!("no account {name} in /etc/passwd").into())
}

fn dovecot(dir: &Path, imap: SocketAddr, imaps: SocketAddr) -> Outcome<PathBuf> {
    let (uid, gid) = account("mail")?;
    let mail = dir.join("mail");
    fs::create_dir_all(&mail)?;
    chown(&mail, Some(uid), Some(gid))?;
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&cert, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let dir = dir.display();
    let text = format!(
        r#"protocols = imap lmtp
base_dir = {dir}/run
state_dir = {dir}/state
instance_name = perf
log_path = {dir}/dovecot.log
listen = 127.0.0.1
mail_location = maildir:{dir}/mail/%n
first_valid_uid = 1
disable_plaintext_auth = no
ssl = yes
ssl_cert = <{cert}
ssl_key = <{key}
mail_max_userip_connections = 10000
default_client_limit = 10000
default_process_limit = 4000
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={dir}/mail/%n allow_all_users=yes
}}
service imap-login {{
  service_count = 0
  process_min_avail = 2
  process_limit = 4
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service imap {{
  process_limit = 4000
}}
service lmtp {{
  unix_listener {dir}/lmtp {{
    mode = 0666
  }}
}}
namespace inbox {{
  inbox = yes
}}
"#,
        cert = cert.display(),
        key = key.display(),
        imap = imap.port(),
        imaps = imaps.port(),
    );
    let file = PathBuf::from(format!("{dir}/dovecot.conf"));
    fs::write(&file, text)?;
    Ok(file)
}

fn postfix(dir: &Path, smtp: SocketAddr, elsewhere: u16) -> Outcome<PathBuf> {
    let (uid, _) = account("postfix")?;
    let conf = dir.join("postfix");
    fs::create_dir_all(&conf)?;
    fs::create_dir_all(dir.join("queue"))?;
    fs::create_dir_all(dir.join("postfix-data"))?;
    chown(dir.join("postfix-data"), Some(uid), None)?;
    let mut mailboxes = String::new();
    for number in 0..USERS {
        let _ = writeln!(mailboxes, "{} x", user(number));
    }
    fs::write(conf.join("mailboxes"), mailboxes)?;
    let mut routes = String::new();
    for number in 0..DESTINATIONS {
        let host = host(number, elsewhere).ip();
        let _ = writeln!(routes, "d{number}.{ELSEWHERE} smtp:[{host}]:{elsewhere}");
    }
    fs::write(conf.join("elsewhere"), routes)?;
    let dir = dir.display();
    fs::write(
        conf.join("main.cf"),
        format!(
            "compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/postfix-data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
meta_directory = /etc/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = {dir}/postfix.log
maillog_file_prefixes = {dir}
myhostname = perf.example.org
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_dns_support_level = disabled
transport_maps = texthash:{dir}/postfix/elsewhere
default_destination_concurrency_limit = 20
default_process_limit = 100
alias_maps =
alias_database =
virtual_mailbox_domains = {DOMAIN}
virtual_mailbox_maps = texthash:{dir}/postfix/mailboxes
virtual_transport = lmtp:unix:{dir}/lmtp
smtpd_tls_security_level = none
smtputf8_enable = yes
biff = no
"
        ),
    )?;
    let mut master = format!("127.0.0.1:{} inet n - n - - smtpd\n", smtp.port());
    for line in [
        "pickup unix n - n 60 1 pickup",
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 300 1 qmgr",
        "tlsmgr unix - - n 1000? 1 tlsmgr",
        "rewrite unix - - n - - trivial-rewrite",
        "bounce unix - - n - 0 bounce",
        "defer unix - - n - 0 bounce",
        "trace unix - - n - 0 bounce",
        "verify unix - - n - 1 verify",
        "flush unix n - n 1000? 0 flush",
        "proxymap unix - - n - - proxymap",
        "smtp unix - - n - - smtp",
        "relay unix - - n - - smtp",
        "showq unix n - n - - showq",
        "error unix - - n - - error",
        "retry unix - - n - - error",
        "discard unix - - n - - discard",
        "lmtp unix - - n - - lmtp",
        "anvil unix - - n - 1 anvil",
        "scache unix - - n - 1 scache",
        "postlog unix-dgram n - n - 1 postlogd",
    ] {
        master.push_str(line);
        master.push('\n');
    }
    fs::write(conf.join("master.cf"), master)?;
    Ok(conf)
}
