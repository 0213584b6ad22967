//! The messages of the load: alike for every side and every run, about 2 KB each, with the headers that mail has.

use std::fmt::Write;

/// A word that stands in one message of a thousand.
pub const RARE: &str = "quagga";
/// A word that stands in most messages.
pub const COMMON: &str = "schedule";

/// The syllables of the word that hardly two messages share.
const SYLLABLES: [&str; 32] = [
    "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va",
    "we", "xi", "yo", "zu", "bra", "cle", "dri", "flo", "gru", "kla", "ple", "pri", "sko", "stu",
    "tra", "vle",
];

/// A made-up word of four syllables, one of a million, that stands in message `number` of every series.
pub fn own_word(number: usize) -> String {
    let mut dice = Dice::new(number as u64 ^ 0x0A11_CE00);
    let syllable = |at: usize| SYLLABLES.get(at).copied().unwrap_or("ba");
    (0..4)
        .map(|_| syllable(dice.below(SYLLABLES.len())))
        .collect()
}

const WORDS: [&str; 64] = [
    "invoice", "meeting", "tomorrow", "project", "attached", "please", "regards", "update",
    "customer", "delivery", "contract", "the", "and", "with", "for", "have", "been", "will",
    "would", "their", "about", "there", "which", "when", "server", "morning", "office", "number",
    "report", "budget", "travel", "hotel", "flight", "review", "draft", "final", "version",
    "change", "request", "answer", "question", "problem", "solution", "deadline", "monday",
    "friday", "team", "manager", "design", "figure", "table", "result", "measure", "network",
    "storage", "mailbox", "letter", "station", "horse", "rider", "route", "relay", "post", COMMON,
];

/// A small generator of numbers (SplitMix64): the same sequence in every run.
pub struct Dice(u64);

impl Dice {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66_D1CE_4E5B)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        usize::try_from(z % (bound.max(1) as u64)).unwrap_or(0)
    }

    fn word(&mut self) -> &'static str {
        let at = self.below(WORDS.len());
        WORDS.get(at).copied().unwrap_or(COMMON)
    }
}

/// Message `number` of the series `series`, CRLF line ends, no line that starts with a dot.
pub fn message(series: &str, number: usize) -> Vec<u8> {
    let mut dice = Dice::new(number as u64);
    let mut text = String::with_capacity(2600);
    let subject: Vec<&str> = (0..4 + dice.below(4)).map(|_| dice.word()).collect();
    let (day, hour, minute) = (1 + number % 28, number % 24, number % 60);
    let _ = write!(
        text,
        "Received: from mail.example.net (mail.example.net [192.0.2.{}])\r\n\tby mx.example.org with ESMTPS id {number:08x}\r\n\
         \tfor <list@example.org>; Mon, {day} Jun 2026 {hour:02}:{minute:02}:07 +0000\r\n\
         Message-ID: <{series}.{number}@example.net>\r\n\
         Date: Mon, {day} Jun 2026 {hour:02}:{minute:02}:00 +0000\r\n\
         From: {} Example <sender{}@example.net>\r\n\
         To: Posthouse List <list@example.org>, Bob <bob@example.org>\r\n\
         Cc: archive@example.org\r\n\
         Subject: {}{}\r\n",
        number % 250,
        dice.word(),
        number % 97,
        if number.is_multiple_of(3) { "Re: " } else { "" },
        subject.join(" "),
    );
    if number.is_multiple_of(3) {
        let parent = number / 3;
        let _ = write!(
            text,
            "In-Reply-To: <{series}.{parent}@example.net>\r\nReferences: <{series}.{parent}@example.net>\r\n"
        );
    }
    text.push_str("MIME-Version: 1.0\r\nUser-Agent: perf/1\r\nList-Id: <list.example.org>\r\n");
    if number.is_multiple_of(5) {
        text.push_str("Content-Type: multipart/alternative; boundary=\"b0undary\"\r\n\r\n--b0undary\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n");
        paragraph(&mut text, &mut dice, number, 700);
        text.push_str(
            "--b0undary\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>\r\n",
        );
        paragraph(&mut text, &mut dice, number, 700);
        text.push_str("</p></body></html>\r\n--b0undary--\r\n");
    } else {
        text.push_str(
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n",
        );
        paragraph(&mut text, &mut dice, number, 1400);
    }
    text.into_bytes()
}

fn paragraph(text: &mut String, dice: &mut Dice, number: usize, octets: usize) {
    let end = text.len() + octets;
    if number % 1000 == 500 {
        text.push_str(RARE);
        text.push_str("\r\n");
    }
    text.push_str(&own_word(number));
    text.push_str("\r\n");
    while text.len() < end {
        for _ in 0..11 {
            text.push_str(dice.word());
            text.push(' ');
        }
        text.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_are_alike_in_every_run_and_about_two_kilobytes() {
        for number in 0..1000 {
            let one = message("s", number);
            assert_eq!(one, message("s", number));
            assert!((1600..2900).contains(&one.len()), "{} octets", one.len());
            let text = String::from_utf8(one).unwrap();
            assert!(text.lines().all(|line| !line.starts_with('.')));
            assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
            assert_eq!(text.contains(RARE), number % 1000 == 500);
        }
    }
}
