//! Entry points for fuzzers: each takes any octets, and panics only if the codec breaks a promise.

use crate::protocol::{Assembly, Limits, Step, Word, parse, put, response};

/// A ManageSieve client's octets; and any octets as strings, which are read as they were written.
pub fn managesieve(data: &[u8]) {
    let limits = Limits {
        octets: 300,
        skip: 500,
    };
    let mut assembly = Assembly::new(limits);
    let mut rest = data;
    let mut passed = 0;
    while let Some(at) = rest.iter().position(|octet| *octet == b'\n') {
        let (line, left) = rest.split_at_checked(at).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        rest = left.get(1..).unwrap_or_default();
        match assembly.line(line) {
            Step::Hopeless => break,
            Step::Done(words) => {
                passed = 0;
                if let Ok(words) = words {
                    let _ = response(words.clone());
                    let _ = parse(words);
                }
            }
            step @ (Step::Literal(size) | Step::Skip(size)) => {
                passed += size;
                assert!(passed <= limits.octets + limits.skip);
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let Some((literal, left)) = rest.split_at_checked(size) else {
                    break;
                };
                if matches!(step, Step::Literal(_)) {
                    assembly.literal(literal.to_vec());
                }
                rest = left;
            }
        }
    }
    written(data);
}

/// Strings are read back as they were written.
fn written(data: &[u8]) {
    let text: Vec<u8> = data.iter().copied().filter(|octet| *octet != 0).collect();
    let mut line = b"CHECKSCRIPT ".to_vec();
    put::string(&mut line, &text);
    let mut assembly = Assembly::new(Limits {
        octets: u64::MAX,
        skip: 0,
    });
    let head = line.split(|octet| *octet == b'\r').next();
    let head = if line.ends_with(b"\"") && line.get(12) == Some(&b'"') {
        line.as_slice()
    } else {
        head.unwrap_or_default()
    };
    let mut step = assembly.line(head);
    if let Step::Literal(size) = step {
        assert!(size == text.len() as u64);
        assembly.literal(text.clone());
        step = assembly.line(b"");
    }
    assert!(matches!(step, Step::Done(Ok(words)) if words.last() == Some(&Word::Text(text))));
}
