//! Entry points for fuzzers: each takes any octets, and panics only if the codec breaks a promise.

use crate::{Append, Event, Limits, Names, Reader, parse, put, utf7};

/// A connection: its octets arrive whole, and in pieces whose length the first octet chooses; both are read alike.
pub fn fuzz(data: &[u8]) {
    let step = usize::from(data.first().copied().unwrap_or(1)) % 17 + 1;
    let limits = Limits {
        line: 200,
        literals: 100,
        non_synchronising: u64::MAX,
        skip: 500,
    };
    let whole = read(limits, data, data.len().max(1));
    let pieces = read(limits, data, step);
    assert!(whole == pieces);
    names(data);
}

fn read(limits: Limits, data: &[u8], step: usize) -> Vec<String> {
    let mut reader = Reader::new(limits);
    let mut seen: Vec<String> = Vec::new();
    let mut message = 0;
    for piece in data.chunks(step) {
        let mut input = piece;
        loop {
            let offered = match reader.next(&mut input) {
                None => break,
                Some(Event::Hopeless) => {
                    seen.push("hopeless".into());
                    return seen;
                }
                Some(Event::Data(data)) => {
                    message += data.len();
                    false
                }
                Some(Event::Message { head, literal }) => {
                    seen.push(format!("{:?}", Append::parse(head, Names::Utf8)));
                    seen.push(format!("{literal:?}"));
                    true
                }
                Some(Event::Command(line)) => {
                    let utf7 = parse(line, Names::ModifiedUtf7);
                    seen.push(format!("{:?} {utf7:?}", parse(line, Names::Utf8)));
                    // IDLE and AUTHENTICATE wait for a line that is no command.
                    if line.len() % 5 == 0 {
                        reader.expect_response();
                    }
                    false
                }
                Some(event) => {
                    seen.push(format!("{event:?} {message}"));
                    false
                }
            };
            if offered {
                match message % 3 {
                    0 => reader.accept(),
                    _ => reader.refuse(),
                }
            }
        }
        assert!(input.is_empty());
    }
    seen
}

/// Names: what is decoded is encoded to what decodes alike; strings are read back as they were written.
fn names(data: &[u8]) {
    if let Ok(name) = utf7::decode(data) {
        let mut encoded = Vec::new();
        utf7::encode_into(&name, &mut encoded);
        assert!(utf7::decode(&encoded).as_deref() == Ok(&name));
    }
    let mut command = b"a LOGIN ".to_vec();
    put::string(&mut command, data);
    command.push(b' ');
    put::quoted_or_literal(&mut command, data, true);
    let read = parse(&command, Names::Utf8).map(|tagged| tagged.command);
    let octets = types::Octets::from(data);
    assert!(
        matches!(read, Ok(crate::Command::Login { name, password }) if name == octets && password == octets)
    );
}
