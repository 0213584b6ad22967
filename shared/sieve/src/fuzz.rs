//! Entry points for fuzzers: each takes any octets, and panics only if the codec breaks a promise.

use crate::engine::{Event, Input, Script};
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

/// A script as users send it: it is refused with a place that is there, or runs to its end within the limits, whatever it does.
pub fn script(data: &[u8]) {
    let limits = crate::Limits {
        script_bytes: 8192,
        variable_bytes: 1024,
        steps: 2000,
        ..crate::Limits::default()
    };
    let compiled = match crate::compile(data, &limits) {
        Ok(compiled) => compiled,
        Err(problem) => {
            let lines = data.split(|octet| *octet == b'\n').count();
            assert!(
                (1..=lines).contains(&problem.line) && problem.column >= 1,
                "{problem}"
            );
            return;
        }
    };
    let runtime = crate::runtime(&limits, "mail.example");
    let message = b"From: a@a.example\r\nTo: b@b.example\r\nSubject: one two\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
        --b\r\n\r\ntext\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>x\r\n--b--\r\n";
    let mut context = runtime.filter(message);
    let mut input = Input::script(Script::Personal(String::new()), compiled);
    let mut sent = 0;
    while let Some(Ok(event)) = context.run(input) {
        sent += usize::from(matches!(event, Event::SendMessage { .. }));
        input = match event {
            Event::IncludeScript { .. } | Event::DuplicateId { .. } => Input::False,
            _ => Input::True,
        };
    }
    assert!(sent <= limits.messages);
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
