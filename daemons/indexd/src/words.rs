//! What a word is: the same for mail and for what is looked for.
//!
//! Letters and digits in a row are a word, in lower case and without accents. Scripts that do not separate words (Chinese,
//! Japanese, Korean, Thai, Lao, Khmer, Burmese) are cut into overlapping pairs of characters.

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use whatlang::Lang;

/// Changes whenever the same text gives other words: indexes of another version are made anew.
pub(crate) const VERSION: u32 = 1;
/// What is looked at to tell a language.
const SAMPLE: usize = 4096;
/// All languages that are stemmed.
const ALGORITHMS: [Algorithm; 18] = [
    Algorithm::Arabic,
    Algorithm::Danish,
    Algorithm::Dutch,
    Algorithm::English,
    Algorithm::Finnish,
    Algorithm::French,
    Algorithm::German,
    Algorithm::Greek,
    Algorithm::Hungarian,
    Algorithm::Italian,
    Algorithm::Norwegian,
    Algorithm::Portuguese,
    Algorithm::Romanian,
    Algorithm::Russian,
    Algorithm::Spanish,
    Algorithm::Swedish,
    Algorithm::Tamil,
    Algorithm::Turkish,
];

/// A word of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Folded.
    pub text: String,
    /// In lower case with its accents: what stemmers know.
    pub lower: String,
    /// Whether it is a pair, or a single character, of a script without spaces.
    pub paired: bool,
}

/// Calls `each` with the words in their order until it returns false. `index`: the last character of a run of pairs is
/// given alone, too, so that it can be found.
pub(crate) fn each(text: &str, length: usize, index: bool, mut each: impl FnMut(Word) -> bool) {
    let mut word = String::new();
    let mut run: Vec<char> = Vec::new();
    for c in text.chars().chain(std::iter::once(' ')) {
        let paired = is_paired(c);
        if !paired && !run.is_empty() {
            if !pairs(&run, index, &mut each) {
                return;
            }
            run.clear();
        }
        // A mark belongs to the letter before it.
        let within = c.is_alphanumeric() || (is_combining_mark(c) && !word.is_empty());
        if (paired || !within) && !word.is_empty() {
            if !whole(&word, length, &mut each) {
                return;
            }
            word.clear();
        }
        if paired {
            run.push(c);
            // A text of a million characters without a space is still read in pieces.
            if run.len() >= 4096 {
                if !pairs(&run, index, &mut each) {
                    return;
                }
                run.clear();
            }
        } else if within && word.len() < length.saturating_mul(8) {
            word.push(c);
        }
    }
}

fn whole(word: &str, length: usize, each: &mut impl FnMut(Word) -> bool) -> bool {
    let lower: String = word
        .nfc()
        .flat_map(char::to_lowercase)
        .take(length)
        .collect();
    let text: String = fold(&lower).chars().take(length).collect();
    text.is_empty()
        || each(Word {
            text,
            lower,
            paired: false,
        })
}

fn pairs(run: &[char], index: bool, each: &mut impl FnMut(Word) -> bool) -> bool {
    let mut give = |part: &[char]| {
        let text = fold(&part.iter().collect::<String>());
        each(Word {
            lower: text.clone(),
            text,
            paired: true,
        })
    };
    run.windows(2).all(&mut give)
        && match run.last() {
            Some(last) if index || run.len() == 1 => give(&[*last]),
            _ => true,
        }
}

/// Without accents; letters that are no accented ones but look so, too.
fn fold(lower: &str) -> String {
    let plain = lower.nfkd().filter(|c| !is_accent(*c)).nfc();
    let mut text = String::with_capacity(lower.len());
    for c in plain.flat_map(char::to_lowercase) {
        match c {
            'ß' => text.push_str("ss"),
            'æ' => text.push_str("ae"),
            'œ' => text.push_str("oe"),
            'ø' => text.push('o'),
            'ł' => text.push('l'),
            'đ' | 'ð' => text.push('d'),
            'ı' => text.push('i'),
            'ς' => text.push('σ'),
            c if is_accent(c) => {}
            c => text.push(c),
        }
    }
    text
}

/// Latin, Greek and Cyrillic accents, Hebrew and Arabic points. Not the vowels of Indian scripts: they make other words.
fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{65f}' | '\u{670}')
}

/// Scripts without spaces between words.
fn is_paired(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{e4e}' | '\u{e80}'..='\u{edf}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}'
        | '\u{1780}'..='\u{17d3}' | '\u{3005}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{30fc}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9f}' | '\u{20000}'..='\u{323af}')
}

/// How a text's words are stemmed, if its language is known.
pub(crate) fn stemmer_of(text: &str) -> Option<Stemmer> {
    let end = text.floor_char_boundary(SAMPLE);
    let lang = whatlang::detect_lang(text.get(..end)?)?;
    Some(Stemmer::create(match lang {
        Lang::Ara => Algorithm::Arabic,
        Lang::Dan => Algorithm::Danish,
        Lang::Nld => Algorithm::Dutch,
        Lang::Eng => Algorithm::English,
        Lang::Fin => Algorithm::Finnish,
        Lang::Fra => Algorithm::French,
        Lang::Deu => Algorithm::German,
        Lang::Ell => Algorithm::Greek,
        Lang::Hun => Algorithm::Hungarian,
        Lang::Ita => Algorithm::Italian,
        Lang::Nob => Algorithm::Norwegian,
        Lang::Por => Algorithm::Portuguese,
        Lang::Ron => Algorithm::Romanian,
        Lang::Rus => Algorithm::Russian,
        Lang::Spa => Algorithm::Spanish,
        Lang::Swe => Algorithm::Swedish,
        Lang::Tam => Algorithm::Tamil,
        Lang::Tur => Algorithm::Turkish,
        _ => return None,
    }))
}

/// The stem of a word of a text with this stemmer.
pub(crate) fn stem(stemmer: Option<&Stemmer>, word: &Word) -> String {
    match stemmer {
        Some(stemmer) if !word.paired => fold(&stemmer.stem(&word.lower)),
        _ => word.text.clone(),
    }
}

/// All stems that a word may have in the mail: what is looked for is too short to tell its language.
pub(crate) fn stems(word: &Word) -> Vec<String> {
    let mut all = vec![word.text.clone()];
    if !word.paired {
        all.extend(ALGORITHMS.map(|algorithm| fold(&Stemmer::create(algorithm).stem(&word.lower))));
    }
    all.retain(|stem| !stem.is_empty());
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(text: &str, index: bool) -> Vec<String> {
        let mut all = Vec::new();
        each(text, 64, index, |word| {
            all.push(word.text);
            true
        });
        all
    }

    #[test]
    fn words_are_folded() {
        assert_eq!(words("Große ÉTÉ, Łódź!", true), ["grosse", "ete", "lodz"]);
        assert_eq!(words("e\u{301}te\u{301}", true), ["ete"]);
        assert_eq!(words("you@example.org", true), ["you", "example", "org"]);
        assert_eq!(words("हिन्दी", true).len(), 1);
    }

    #[test]
    fn scripts_without_spaces_are_pairs() {
        assert_eq!(words("東京都", true), ["東京", "京都", "都"]);
        assert_eq!(words("東京都", false), ["東京", "京都"]);
        assert_eq!(words("都", false), ["都"]);
        assert_eq!(words("re東京x", false), ["re", "東京", "x"]);
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(words(&"a".repeat(1000), true), ["a".repeat(64)]);
    }

    #[test]
    fn languages_are_stemmed() {
        for (text, form, other) in [
            (
                "The meetings were held while everybody was waiting for the decisions of the board",
                "meetings",
                "meeting",
            ),
            (
                "Die Rechnungen wurden gestern verschickt, aber wir haben noch keine Antwort von Ihnen erhalten",
                "rechnungen",
                "rechnung",
            ),
            (
                "Les factures ont été envoyées hier mais nous n'avons pas encore reçu votre réponse",
                "factures",
                "facture",
            ),
            (
                "Мы отправили вам письма вчера, но ещё не получили ответа от вашего отдела",
                "письма",
                "письмо",
            ),
        ] {
            let stemmer = stemmer_of(text).unwrap();
            let word = |text: &str| Word {
                text: fold(text),
                lower: text.to_owned(),
                paired: false,
            };
            let stored = stem(Some(&stemmer), &word(form));
            assert!(
                stems(&word(other)).contains(&stored),
                "{form} {other} {stored}"
            );
        }
    }
}
