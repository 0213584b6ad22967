//! Writing commands. Text has no NUL inside: it would end there, so it is cut.

use crate::terms::offer;
use std::net::SocketAddr;

/// Octets of a message's body in one packet.
pub const CHUNK: usize = 65_535;

/// How a client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// From an address.
    Ip(SocketAddr),
    /// By a local socket, or nobody knows.
    Unknown,
}

fn packet(out: &mut Vec<u8>, letter: u8, parts: &[&[u8]]) {
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(letter);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Up to the first NUL.
fn text(octets: &[u8]) -> &[u8] {
    octets.split(|octet| *octet == 0).next().unwrap_or_default()
}

/// OPTNEG: an offer of that version.
pub fn negotiate(out: &mut Vec<u8>, version: u32) {
    packet(out, b'O', &[&offer(version)]);
}

/// MACRO: names and values for the command that follows, whose letter is `of`.
pub fn macros(out: &mut Vec<u8>, of: u8, values: &[(&str, String)]) {
    let mut data = vec![of];
    for (name, value) in values {
        for part in [name.as_bytes(), value.as_bytes()] {
            data.extend_from_slice(text(part));
            data.push(0);
        }
    }
    packet(out, b'D', &[&data]);
}

/// CONNECT.
pub fn connect(out: &mut Vec<u8>, name: &str, family: Family) {
    let mut data = text(name.as_bytes()).to_vec();
    data.push(0);
    match family {
        Family::Ip(address) => {
            data.push(if address.is_ipv4() { b'4' } else { b'6' });
            data.extend_from_slice(&address.port().to_be_bytes());
            data.extend_from_slice(address.ip().to_string().as_bytes());
            data.push(0);
        }
        Family::Unknown => data.push(b'U'),
    }
    packet(out, b'C', &[&data]);
}

/// HELO and EHLO.
pub fn hello(out: &mut Vec<u8>, name: &str) {
    packet(out, b'H', &[text(name.as_bytes()), b"\0"]);
}

fn path(out: &mut Vec<u8>, letter: u8, address: &str, parameters: &[String]) {
    let mut data = text(address.as_bytes()).to_vec();
    data.push(0);
    for parameter in parameters {
        data.extend_from_slice(text(parameter.as_bytes()));
        data.push(0);
    }
    packet(out, letter, &[&data]);
}

/// MAIL: the address in angle brackets, and the parameters.
pub fn mail(out: &mut Vec<u8>, address: &str, parameters: &[String]) {
    path(out, b'M', address, parameters);
}

/// RCPT: the address in angle brackets, and the parameters.
pub fn rcpt(out: &mut Vec<u8>, address: &str, parameters: &[String]) {
    path(out, b'R', address, parameters);
}

/// DATA; from version 4 on.
pub fn data(out: &mut Vec<u8>) {
    packet(out, b'T', &[]);
}

/// HEADER: a field's name and its value, in which lines end in LF.
pub fn header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    packet(out, b'L', &[text(name), b"\0", text(value), b"\0"]);
}

/// EOH: the end of the header.
pub fn end_of_header(out: &mut Vec<u8>) {
    packet(out, b'N', &[]);
}

/// BODY: at most [`CHUNK`] octets.
pub fn body(out: &mut Vec<u8>, octets: &[u8]) {
    packet(out, b'B', &[octets]);
}

/// EOM: the end of the message.
pub fn end(out: &mut Vec<u8>) {
    packet(out, b'E', &[]);
}

/// ABORT: the message is over; the session goes on.
pub fn abort(out: &mut Vec<u8>) {
    packet(out, b'A', &[]);
}

/// QUIT: all is over.
pub fn quit(out: &mut Vec<u8>) {
    packet(out, b'Q', &[]);
}

/// QUIT_NC: the session is over, and another one follows on the same connection; from version 6 on.
pub fn quit_new_connection(out: &mut Vec<u8>) {
    packet(out, b'K', &[]);
}

/// UNKNOWN: a command that is none; from version 3 on.
pub fn unknown(out: &mut Vec<u8>, line: &str) {
    packet(out, b'U', &[text(line.as_bytes()), b"\0"]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn as_filters_expect_them() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            out
        };
        assert_eq!(
            written(&|out| connect(
                out,
                "[192.0.2.1]",
                Family::Ip("192.0.2.1:25".parse().unwrap())
            )),
            b"\0\0\0\x1aC[192.0.2.1]\x004\0\x19192.0.2.1\0"
        );
        assert_eq!(
            written(&|out| connect(out, "localhost", Family::Unknown)),
            b"\0\0\0\x0cClocalhost\0U"
        );
        assert_eq!(
            written(&|out| connect(out, "x", Family::Ip("[::1]:9".parse().unwrap()))),
            b"\0\0\0\x0aCx\x006\0\x09::1\0"
        );
        assert_eq!(written(&|out| hello(out, "a\0b")), b"\0\0\0\x03Ha\0");
        assert_eq!(
            written(&|out| mail(out, "<a@b>", &["SIZE=1".to_owned()])),
            b"\0\0\0\x0eM<a@b>\0SIZE=1\0"
        );
        assert_eq!(
            written(&|out| macros(out, b'C', &[("j", "h".to_owned())])),
            b"\0\0\0\x06DCj\0h\0"
        );
        assert_eq!(
            written(&|out| header(out, b"Subject", b" x\n y")),
            b"\0\0\0\x0fLSubject\0 x\n y\0"
        );
        for (write, letter) in [
            (data as fn(&mut Vec<u8>), b'T'),
            (end_of_header, b'N'),
            (end, b'E'),
            (abort, b'A'),
            (quit, b'Q'),
            (quit_new_connection, b'K'),
        ] {
            assert_eq!(written(&write), [0, 0, 0, 1, letter]);
        }
    }
}
