//! Entry points for fuzzers: each takes any octets, and panics only if the codec breaks a promise.

use crate::{
    AppendParser, Command, Event, Limits, MailboxFilter, Names, Notify, Reader, Sort, SortBy,
    Threading, parse, put, utf7,
};

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
    let mut append: Option<AppendParser> = None;
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
                    match &mut append {
                        None => {
                            let begun = AppendParser::begin(head, Names::Utf8);
                            seen.push(format!("{:?}", begun.as_ref().map(|(_, head)| head)));
                            append = begun.ok().map(|(parser, _)| parser);
                        }
                        // The reader offers only what the parser takes.
                        Some(parser) => assert!(parser.go_on(head, false).is_ok()),
                    }
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
                Some(Event::MessageEnd(text)) => {
                    let parsed = append.take().map(|mut parser| parser.go_on(text, true));
                    seen.push(format!("{parsed:?} {message}"));
                    false
                }
                Some(event) => {
                    if matches!(event, Event::Overrun { .. }) {
                        append = None;
                    }
                    seen.push(format!("{event:?} {message}"));
                    false
                }
            };
            if offered {
                if message % 3 == 0 {
                    reader.accept();
                } else {
                    reader.refuse();
                    append = None;
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

/// One command: what it says is said again by a plain writing of it; limits of the RFCs hold for what is taken.
pub fn command(data: &[u8]) {
    let Ok(tagged) = parse(data, Names::Utf8) else {
        return;
    };
    if data.is_ascii() && !data.contains(&b'&') {
        let other = parse(data, Names::ModifiedUtf7);
        assert!(other.is_ok_and(|other| other.command == tagged.command));
    }
    match &tagged.command {
        Command::Sort(sort) => sorts(sort),
        Command::Thread(thread) => {
            let uid = if thread.uid { "UID " } else { "" };
            let how = match thread.algorithm {
                Threading::OrderedSubject => "ORDEREDSUBJECT",
                Threading::References => "REFERENCES",
            };
            let again = parse(
                format!("a {uid}THREAD {how} UTF-8 ALL").as_bytes(),
                Names::Utf8,
            );
            let Ok(Command::Thread(again)) = again.map(|tagged| tagged.command) else {
                unreachable!("{thread:?}")
            };
            assert!((again.uid, again.algorithm) == (thread.uid, thread.algorithm));
        }
        Command::Notify(notify) => notified(notify),
        Command::GetMetadata(get) => get.entries.iter().for_each(|name| entry(name)),
        Command::SetMetadata(set) => set.entries.iter().for_each(|(name, _)| entry(name)),
        Command::MultiSearch(search) => {
            assert!(search.only_selected() || !search.returns.save);
            assert!(!search.sources.is_empty());
        }
        Command::SetAcl {
            mailbox,
            identifier,
            rights,
        } => said_again("SETACL", &[mailbox, identifier, rights], &tagged.command),
        Command::DeleteAcl {
            mailbox,
            identifier,
        } => said_again("DELETEACL", &[mailbox, identifier], &tagged.command),
        Command::ListRights {
            mailbox,
            identifier,
        } => said_again("LISTRIGHTS", &[mailbox, identifier], &tagged.command),
        Command::GetAcl { mailbox } => said_again("GETACL", &[mailbox], &tagged.command),
        Command::MyRights { mailbox } => said_again("MYRIGHTS", &[mailbox], &tagged.command),
        _ => {}
    }
}

fn said_again(name: &str, arguments: &[&String], command: &Command) {
    let mut line = format!("a {name}").into_bytes();
    for argument in arguments {
        line.push(b' ');
        put::string(&mut line, argument.as_bytes());
    }
    let again = parse(&line, Names::Utf8).map(|tagged| tagged.command);
    assert!(again.is_ok_and(|again| again == *command));
}

/// RFC 5256 3, RFC 5957 3
fn sorts(sort: &Sort) {
    assert!(!sort.by.is_empty() && sort.by.len() <= 20);
    let mut words = Vec::new();
    for key in &sort.by {
        if key.reverse {
            words.push("REVERSE");
        }
        words.push(match key.by {
            SortBy::Arrival => "arrival",
            SortBy::Cc => "CC",
            SortBy::Date => "date",
            SortBy::From => "FROM",
            SortBy::Size => "size",
            SortBy::Subject => "SUBJECT",
            SortBy::To => "to",
            SortBy::DisplayFrom => "DISPLAYFROM",
            SortBy::DisplayTo => "displayto",
            SortBy::Relevancy => "RELEVANCY",
        });
    }
    let uid = if sort.uid { "UID " } else { "" };
    let line = format!("a {uid}SORT ({}) UTF-8 FUZZY ALL", words.join(" "));
    let again = parse(line.as_bytes(), Names::Utf8).map(|tagged| tagged.command);
    assert!(
        matches!(again, Ok(Command::Sort(again)) if again.by == sort.by && again.uid == sort.uid)
    );
}

/// RFC 5464 3.2
fn entry(name: &str) {
    assert!(name.starts_with("/private") || name.starts_with("/shared"));
    assert!(!name.contains("//") && !name.ends_with('/') && !name.contains(['*', '%']));
    assert!(
        !name
            .bytes()
            .any(|octet| octet.is_ascii_uppercase() || !octet.is_ascii_graphic())
    );
}

/// RFC 5465 5 and 6.1
fn notified(notify: &Notify) {
    let selected = |filter: &MailboxFilter| {
        matches!(
            filter,
            MailboxFilter::Selected | MailboxFilter::SelectedDelayed
        )
    };
    let all = notify.groups.iter();
    assert!(all.filter(|group| selected(&group.filter)).count() <= 1);
    for group in &notify.groups {
        let events = &group.events;
        assert!(events.message_new.is_some() == events.message_expunge);
        assert!(events.message_expunge || !events.flag_change);
        if selected(&group.filter) {
            assert!(!events.mailbox_name && !events.subscription_change);
            assert!(!events.mailbox_metadata && !events.server_metadata);
        } else {
            assert!(events.message_new.as_ref().is_none_or(Vec::is_empty));
        }
    }
}
