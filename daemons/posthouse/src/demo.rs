//! What `posthouse up` tells when everything runs, and the demo domain that `--demo` makes at its first start.

use crate::command::send;
use crate::connect::{Place, Suite};
use crate::failure::Failure;
use crate::output::say;
use ipc::api::authd::{
    Account, AccountList, AccountPut, Domain, DomainList, DomainPut, NewPassword, PutMode,
};
use ipc::api::control;
use std::fmt::Write as _;
use types::{AccountId, Address, Rights, Role};

const DOMAIN: &str = "demo.test";
const PEOPLE: [(&str, &str); 2] = [("alice", "Alice"), ("bob", "Bob")];

/// Prints where the suite listens.
pub(crate) async fn addresses(suite: &Suite) -> Result<(), Failure> {
    for (name, at) in listeners(suite).await? {
        say(&format!("  {name:12} {at}"));
    }
    Ok(())
}

async fn listeners(suite: &Suite) -> Result<Vec<(String, String)>, Failure> {
    let mut all = Vec::new();
    for role in [Role::Smtpd, Role::Imapd] {
        all.extend(suite.call(role, &control::Status).await?.listeners);
    }
    Ok(all)
}

/// Makes the demo domain if it is not there, and tells how to use it.
pub(crate) async fn prepare(suite: &Suite, place: &Place) -> Result<(), Failure> {
    let passwords = place.dir.join("demo-passwords.txt");
    let known = suite
        .call(
            Role::Authd,
            &DomainList {
                name: Some(DOMAIN.to_owned()),
            },
        )
        .await?;
    if known.is_empty() {
        make(suite, &passwords).await?;
    } else {
        let request = AccountList {
            name: None,
            domain: Some(DOMAIN.to_owned()),
            after: None,
            limit: 200,
        };
        let accounts = suite.call(Role::Authd, &request).await?.len();
        say(&format!(
            "Found the domain {DOMAIN} with {accounts} accounts from an earlier start."
        ));
    }
    tell(suite, place, &passwords).await
}

async fn make(suite: &Suite, passwords: &std::path::Path) -> Result<(), Failure> {
    let domain = Domain {
        name: DOMAIN.to_owned(),
        enabled: true,
        catch_all: None,
        subaddressing: true,
        quota_bytes: 0,
        alias_of: None,
    };
    suite
        .call(
            Role::Authd,
            &DomainPut {
                mode: PutMode::Create,
                domain,
            },
        )
        .await?;
    let mut lines = String::new();
    for (local, person) in PEOPLE {
        let name = format!("{local}@{DOMAIN}");
        let password = invent();
        let _ = writeln!(lines, "{name} {password}");
        let account = Account {
            id: AccountId(0),
            name,
            display_name: person.to_owned(),
            enabled: true,
            quota_bytes: 0,
            quota_messages: 0,
            rights: Rights::ALL,
            has_password: true,
        };
        let password = Some(NewPassword::Clear(password));
        suite
            .call(
                Role::Authd,
                &AccountPut {
                    mode: PutMode::Create,
                    account,
                    password,
                },
            )
            .await?;
    }
    write_private(passwords, &lines)?;
    let address = |text: &str| {
        format!("{text}@{DOMAIN}")
            .parse::<Address>()
            .map_err(|error| Failure::new(error.to_string()))
    };
    let (from, to) = (address("bob")?, address("alice")?);
    let text = "Dear Alice,\r\n\r\nthis is the first mail in your new mailbox. It went from queued through deliverd\r\n\
        and stored to imapd, and each of them wrote its id into the log.\r\n\r\nAnswer me!\r\n\r\nBob\r\n";
    let mail = send::compose(
        Some(&from),
        std::slice::from_ref(&to),
        "Welcome to Posthouse",
        text,
    )?;
    send::submit(suite, Some(from), vec![to], mail).await?;
    Ok(())
}

/// 16 letters that are read and typed without doubt: 80 bits.
fn invent() -> String {
    use rand::Rng as _;
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    (0..16)
        .filter_map(|_| LETTERS.get(random.random_range(0..LETTERS.len())))
        .map(|&b| char::from(b))
        .collect()
}

fn write_private(path: &std::path::Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

async fn tell(suite: &Suite, place: &Place, passwords: &std::path::Path) -> Result<(), Failure> {
    let found = listeners(suite).await?;
    let at = |name: &str| {
        found
            .iter()
            .find(|(listener, _)| listener == name)
            .map_or("not listening", |(_, at)| at.as_str())
    };
    say("");
    for (name, address) in &found {
        say(&format!("  {name:12} {address}"));
    }
    let text = std::fs::read_to_string(passwords).unwrap_or_default();
    let mut people = text.lines().filter_map(|line| line.split_once(' '));
    let Some((alice, password)) = people.next() else {
        say(&format!(
            "The demo passwords are not in {}.",
            passwords.display()
        ));
        return Ok(());
    };
    say("");
    say(&format!("  {alice}  password {password}"));
    for (name, password) in people {
        say(&format!("  {name}  password {password}"));
    }
    let split = |address: &str| {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        (host.to_owned(), port.to_owned())
    };
    let (imap_host, imap_port) = split(at("imaps"));
    say("");
    say("Send her a mail from outside:");
    say(&format!(
        "  swaks --server {} --from you@example.net --to {alice}",
        at("mx")
    ));
    say("Send one as her, with a password and TLS:");
    say(&format!(
        "  swaks --server {} --tls --auth-user {alice} --auth-password {password} --from {alice} --to bob@{DOMAIN}",
        at("submission")
    ));
    say("Read the first mail:");
    say(&format!(
        "  curl --insecure --user {alice}:{password} 'imaps://{}/INBOX;MAILINDEX=1'",
        at("imaps")
    ));
    say("Synchronise her mailbox into a Maildir (~/.mbsyncrc):");
    say(&format!(
        "  IMAPAccount demo / Host {imap_host} / Port {imap_port} / User {alice} / Pass {password} / SSLType IMAPS / \
         CertificateFile {}",
        place.dir.join("demo-certificate.pem").display()
    ));
    fingerprints(suite, place).await?;
    say("Look at the queue:");
    say(&format!(
        "  posthouse --dir {} queue list",
        place.dir.display()
    ));
    say("");
    Ok(())
}

/// The self-signed certificate's fingerprint, and the certificate in a file for clients that want to trust it.
async fn fingerprints(suite: &Suite, place: &Place) -> Result<(), Failure> {
    use base64::Engine as _;
    use sha2::Digest as _;
    let certificates = suite
        .call(Role::Keyd, &ipc::api::keyd::ListCertificates)
        .await?;
    let Some(leaf) = certificates
        .first()
        .and_then(|certificate| certificate.chain.first())
    else {
        return Ok(());
    };
    let digest = sha2::Sha256::digest(leaf.as_slice());
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    say(&format!(
        "The certificate's SHA-256 fingerprint: {}",
        hex.join(":")
    ));
    let text = base64::engine::general_purpose::STANDARD.encode(leaf.as_slice());
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        let _ = writeln!(pem, "{line}");
        rest = more;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    write_private(&place.dir.join("demo-certificate.pem"), &pem)
}
