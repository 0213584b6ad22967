//! Entry points for fuzzers: each takes any octets, and panics only if the codec breaks a promise.

use crate::{Command, Stuffing, Top, parse};

/// Lines of a client: a command that is taken is taken again when it is written in the plainest way, and is the same.
pub fn commands(octets: &[u8]) {
    for line in octets.split(|octet| *octet == b'\n') {
        let Ok(command) = parse(line) else {
            continue;
        };
        let plain = plain(&command);
        assert!(!plain.contains(['\r', '\n', '\0']), "one line");
        assert_eq!(parse(plain.as_bytes()), Ok(command), "{plain:?}");
    }
}

fn plain(command: &Command) -> String {
    let one = |name: &str, number: &Option<u32>| match number {
        Some(number) => format!("{name} {number}"),
        None => name.to_owned(),
    };
    match command {
        Command::User(name) => format!("USER {name}"),
        Command::Pass(password) => format!("PASS {password}"),
        Command::Auth { mechanism, initial } => {
            let words = ["AUTH"].into_iter().map(str::to_owned);
            let words: Vec<String> = words
                .chain(mechanism.clone())
                .chain(initial.clone())
                .collect();
            words.join(" ")
        }
        Command::Apop => "APOP".to_owned(),
        Command::Capa => "CAPA".to_owned(),
        Command::Stls => "STLS".to_owned(),
        Command::Utf8 => "UTF8".to_owned(),
        Command::Lang(None) => "LANG".to_owned(),
        Command::Lang(Some(range)) => format!("LANG {range}"),
        Command::Stat => "STAT".to_owned(),
        Command::List(number) => one("LIST", number),
        Command::Uidl(number) => one("UIDL", number),
        Command::Retr(number) => format!("RETR {number}"),
        Command::Top(number, lines) => format!("TOP {number} {lines}"),
        Command::Dele(number) => format!("DELE {number}"),
        Command::Noop => "NOOP".to_owned(),
        Command::Rset => "RSET".to_owned(),
        Command::Quit => "QUIT".to_owned(),
    }
}

/// A message as a multi-line response: what a client makes of it is the message, in whatever pieces it was written; no line of
/// it ends it early. TOP shows a beginning of it.
pub fn response(octets: &[u8]) {
    let written = write(octets, octets.len().max(1));
    let step = usize::from(octets.first().copied().unwrap_or_default()) % 7 + 1;
    assert_eq!(written, write(octets, step), "pieces make no difference");
    let read = read(&written);
    let rest = read.strip_prefix(octets);
    // The last line may lack its end, or half of it.
    assert!(
        matches!(rest, Some(b"" | b"\n" | b"\r\n")),
        "{read:?} of {octets:?}"
    );
    let lines = u32::try_from(step).unwrap_or_default();
    let mut top = Top::new(lines);
    let shown = top.take(octets);
    assert!(shown <= octets.len() && (top.is_done() || shown == octets.len()));
    let mut top = Top::new(lines);
    let pieces: usize = octets.chunks(step).map(|piece| top.take(piece)).sum();
    assert_eq!(shown, pieces, "pieces make no difference");
}

fn write(octets: &[u8], step: usize) -> Vec<u8> {
    let mut written = Vec::new();
    let mut stuffing = Stuffing::default();
    for piece in octets.chunks(step) {
        stuffing.write(&mut written, piece);
    }
    stuffing.end(&mut written);
    written
}

/// As a client reads it (RFC 1939 3): up to the line with a dot alone, and each line without its first dot.
fn read(written: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let mut left = written.len();
    for line in written.split_inclusive(|octet| *octet == b'\n') {
        left -= line.len();
        if line == b".\r\n" {
            assert_eq!(left, 0, "the response ends early");
            return message;
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    unreachable!("the response does not end")
}
