//! Base subjects (RFC 5256 2.1): what is left of a subject when replies and forwards are taken off. The key for SORT and
//! THREAD.

/// Characters of a subject that count. Bounds the work that a hostile one can make.
const SUBJECT_MAX: usize = 1000;

/// The base subject in upper case (as i;unicode-casemap compares), and whether anything said "reply" or "forward".
pub(crate) fn base_subject(subject: &str) -> (String, bool) {
    let head: String = subject.chars().take(SUBJECT_MAX).collect();
    let mut text = collapse_space(&head);
    let mut is_reply = false;
    loop {
        // Steps 2 to 5, then 6, until nothing changes.
        while let Some(shorter) = strip_trailer(&text) {
            is_reply = true;
            text.truncate(shorter);
        }
        let (start, reply) = strip_leaders(&text);
        is_reply |= reply;
        let core = text.get(start..).unwrap_or_default();
        match strip_forward_brackets(core) {
            Some(inner) => {
                is_reply = true;
                text = inner.trim().to_owned();
            }
            None => {
                let core = core.trim_end();
                return (core.to_uppercase(), is_reply);
            }
        }
    }
}

fn collapse_space(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// `subj-trailer = "(fwd)" / WSP`: the length without it. White space alone does not make a forward.
fn strip_trailer(text: &str) -> Option<usize> {
    let trimmed = text.trim_end();
    let cut = trimmed.len().checked_sub(5)?;
    let tail = trimmed.get(cut..)?;
    tail.eq_ignore_ascii_case("(fwd)")
        .then(|| trimmed.get(..cut).unwrap_or_default().trim_end().len())
}

/// Steps 3 to 5: `subj-leader` and `subj-blob`, as long as something is left behind a blob.
fn strip_leaders(text: &str) -> (usize, bool) {
    let mut start = 0;
    let mut is_reply = false;
    loop {
        let rest = text.get(start..).unwrap_or_default();
        let trimmed = rest.trim_start();
        let pos = start + rest.len() - trimmed.len();
        if let Some(len) = leader(trimmed) {
            start = pos + len;
            is_reply = true;
            continue;
        }
        match blob(trimmed) {
            Some(len) if !trimmed.get(len..).unwrap_or_default().trim().is_empty() => {
                start = pos + len;
            }
            _ => return (pos, is_reply),
        }
    }
}

/// `*subj-blob subj-refwd`: its length.
fn leader(text: &str) -> Option<usize> {
    let mut pos = 0;
    while let Some(len) = blob(text.get(pos..)?) {
        pos += len;
    }
    let rest = text.get(pos..)?;
    // subj-refwd = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":"
    let word = ["fwd", "fw", "re"].iter().find(|word| {
        rest.get(..word.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(word))
    })?;
    pos += word.len();
    let rest = text.get(pos..)?;
    pos += rest.len() - rest.trim_start().len();
    if let Some(len) = blob(text.get(pos..)?) {
        pos += len;
    }
    text.get(pos..)?.starts_with(':').then_some(pos + 1)
}

/// `subj-blob = "[" *BLOBCHAR "]" *WSP`: its length.
fn blob(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('[')?;
    let end = inner.find(['[', ']'])?;
    let behind = inner.get(end..)?.strip_prefix(']')?;
    Some(text.len() - behind.trim_start().len())
}

/// Step 6: `[fwd: ... ]`.
fn strip_forward_brackets(text: &str) -> Option<&str> {
    let text = text.trim_end();
    let head = text.get(..5)?;
    if head.eq_ignore_ascii_case("[fwd:") {
        text.get(5..)?.strip_suffix(']')
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::base_subject;

    #[test]
    fn replies_and_forwards_are_taken_off() {
        for (subject, base, reply) in [
            ("Hello  world", "HELLO WORLD", false),
            ("Re: hello", "HELLO", true),
            ("RE : Fwd: [list] re[2]: hello (fwd) (FWD)", "HELLO", true),
            ("[list] hello", "HELLO", false),
            ("[list]", "[LIST]", false),
            ("[fwd: Re: hello]", "HELLO", true),
            ("Re: [list] Re: grüße", "GRÜSSE", true),
            ("Regarding: this", "REGARDING: THIS", false),
            ("re", "RE", false),
            ("", "", false),
            ("Re:", "", true),
            ("[a [b] c", "[A [B] C", false),
            ("Re[x]: y", "Y", true),
        ] {
            assert_eq!(
                base_subject(subject),
                (base.to_owned(), reply),
                "{subject:?}"
            );
        }
    }

    #[test]
    fn long_chains_stay_linear() {
        let subject = "Re: ".repeat(200) + "x";
        assert_eq!(base_subject(&subject).0, "X");
        let subject = "[fwd: ".repeat(3_000) + &"]".repeat(3_000);
        base_subject(&subject);
        base_subject(&"[".repeat(20_000));
        base_subject(&"[a]".repeat(20_000));
    }
}
