//! Changes inputs blindly.

/// No input grows beyond this.
const LONGEST: usize = 64 * 1024;
/// How many inputs are kept to start from.
const POOL: usize = 512;

/// Octets that parsers stumble over.
const SHARP: &[u8] = b"\0\x01\r\n\t \"\\(){}[]<>@:;,.*%+-=~?/&|'\x7f\x80\xbf\xc0\xe2\xff0189AZaz";

/// A source of mutations.
pub struct Mutator {
    state: u64,
    words: &'static [&'static [u8]],
}

impl Mutator {
    /// The same seed gives the same inputs.
    pub fn new(seed: u64, words: &'static [&'static [u8]]) -> Self {
        Self { state: seed, words }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random() % bound.max(1) as u64).unwrap_or(0)
    }

    fn pick<'a>(&mut self, pool: &'a [Vec<u8>]) -> &'a [u8] {
        let at = self.below(pool.len());
        pool.get(at).map_or(&[], Vec::as_slice)
    }

    /// A new input made from one or two of the pool.
    pub fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.pick(pool).to_vec();
        for _ in 0..=self.below(6) {
            self.change(&mut input, pool);
        }
        input.truncate(LONGEST);
        input
    }

    /// Keeps one input of some, in the place of a random one when the pool is full.
    pub fn keep(&mut self, pool: &mut Vec<Vec<u8>>, input: Vec<u8>) {
        if self.below(20) != 0 {
            return;
        }
        if pool.len() < POOL {
            pool.push(input);
        } else {
            let at = self.below(pool.len());
            if let Some(place) = pool.get_mut(at) {
                *place = input;
            }
        }
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(32)).min(input.len());
        match self.below(11) {
            0 => {
                let bit = self.below(8);
                if let Some(octet) = input.get_mut(at) {
                    *octet ^= 1 << bit;
                }
            }
            1 => {
                let sharp = self.sharp();
                if let Some(octet) = input.get_mut(at) {
                    *octet = sharp;
                }
            }
            2 => {
                let sharp = self.sharp();
                input.insert(at, sharp);
            }
            3 => drop(input.drain(at.min(end)..end)),
            4 => input.truncate(at),
            5 => {
                let again: Vec<u8> = input.get(at.min(end)..end).unwrap_or_default().to_vec();
                for _ in 0..1 + self.below(64) {
                    input.splice(at..at, again.iter().copied());
                }
            }
            6 | 7 => {
                let which = self.below(self.words.len());
                let word = self.words.get(which).copied().unwrap_or(b"\r\n");
                input.splice(at..at, word.iter().copied());
            }
            8 => {
                let other = self.pick(pool).to_vec();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(other.get(from..).unwrap_or_default());
            }
            9 => {
                let number = match self.below(6) {
                    0 => "4294967295".to_owned(),
                    1 => "4294967296".to_owned(),
                    2 => "18446744073709551616".to_owned(),
                    3 => "0".to_owned(),
                    4 => "99999999999999999999999999".to_owned(),
                    _ => self.below(100_000).to_string(),
                };
                input.splice(at..at, number.into_bytes());
            }
            _ => {
                let value = self.random().to_le_bytes();
                for (place, octet) in input.iter_mut().skip(at).zip(value) {
                    *place = octet;
                }
            }
        }
    }

    fn sharp(&mut self) -> u8 {
        let at = self.below(SHARP.len());
        SHARP.get(at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_again_and_others_differ() {
        let pool = vec![b"MAIL FROM:<a@b>\r\n".to_vec(), b"NOOP\r\n".to_vec()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, &[b"AUTH"]);
            (0..200).map(|_| mutator.next(&pool)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        assert!(
            inputs(3)
                .iter()
                .filter(|input| !pool.contains(input))
                .count()
                > 100
        );
    }
}
