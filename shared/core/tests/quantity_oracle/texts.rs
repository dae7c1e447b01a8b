//! Generated texts: quantities, near quantities, and arbitrary text.
#![expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "any random bits do")]

const SUFFIXES: [&str; 16] =
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

const ALPHABET: [char; 42] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '0', '9', '+', '-', '.', '.', 'e', 'E', 'i', 'n', 'u',
    'm', 'k', 'K', 'M', 'G', 'T', 'P', 'i', ' ', '_', 'x', 'X', 'a', ',', '\t', '\n', '"', '\0', 'é', '٣',
    '😀',
];

/// Numbers next to carries, caps and the limits of 64 bits.
const EDGES: [&str; 13] = [
    "9223372036854775807",
    "9223372036854775808",
    "9223372036854775806",
    "18446744073709551616",
    "8589934592",
    "1024",
    "1023",
    "1048576",
    "7",
    "8",
    "1000",
    "999999999999999999",
    "170141183460469231731687303715884105727",
];

/// An endless stream of texts from a seed (`SplitMix64`).
pub(crate) struct Texts(u64);

impl Texts {
    pub(crate) fn new(seed: usize) -> Self {
        Self(seed as u64)
    }

    /// Pairs of texts. The second is often similar to the first.
    pub(crate) fn pairs(mut self) -> impl Iterator<Item = (String, String)> {
        std::iter::repeat_with(move || {
            let a = self.text();
            let b = if self.one_in(3) { self.similar(&a) } else { self.text() };
            (a, b)
        })
    }

    fn text(&mut self) -> String {
        loop {
            let text = match self.below(10) {
                0 => (0..self.below(12)).map(|_| self.pick(&ALPHABET)).collect(),
                1 | 2 => {
                    let quantity = self.quantity();
                    self.mutated(&quantity)
                }
                3 | 4 => format!("{}{}", self.below(5000), self.pick(&SUFFIXES)),
                _ => self.quantity(),
            };
            if is_tractable(&text) {
                return text;
            }
        }
    }

    fn similar(&mut self, text: &str) -> String {
        let similar = match self.below(3) {
            0 => text.to_owned(),
            1 => {
                let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                format!("{number}{}", self.pick(&SUFFIXES))
            }
            _ => self.mutated(text),
        };
        if is_tractable(&similar) { similar } else { text.to_owned() }
    }

    fn quantity(&mut self) -> String {
        let sign = self.pick(&["", "", "", "-", "+"]);
        let zeros = if self.one_in(8) { self.below(25) } else { 0 };
        let integer = self.digits();
        let fraction = if self.one_in(2) { format!(".{}", self.digits()) } else { String::new() };
        let suffix = if self.one_in(4) { self.exponent() } else { self.pick(&SUFFIXES).to_owned() };
        format!("{sign}{}{integer}{fraction}{suffix}", "0".repeat(zeros))
    }

    fn digits(&mut self) -> String {
        let length = match self.below(8) {
            0 => self.below(45),
            1 => 16 + self.below(6),
            2 => 37 + self.below(3),
            _ => self.below(8),
        };
        match self.below(8) {
            0 => self.pick(&EDGES).to_owned(),
            1 => "9".repeat(length),
            2 => format!("{}{}", self.below(100), "0".repeat(length)),
            3 => format!("{}{}", "0".repeat(length), self.below(100)),
            4 => (1_u128 << self.below(127)).to_string(),
            _ => (0..length).map(|_| char::from(b'0' + self.below(10) as u8)).collect(),
        }
    }

    fn exponent(&mut self) -> String {
        let exponent = match self.below(10) {
            0 => self.next() as i64 % 500,
            1 => self.next() as i64 % 2_000_000_000,
            2 => i64::from(self.next() as i32 % 100) + (1 << 32),
            3 => self.next() as i64,
            _ => self.next() as i64 % 25,
        };
        let plus = if exponent >= 0 && self.one_in(4) { "+" } else { "" };
        format!("{}{plus}{exponent}", self.pick(&["e", "E"]))
    }

    /// `text` with up to three characters removed, inserted or replaced.
    fn mutated(&mut self, text: &str) -> String {
        let mut text: Vec<char> = text.chars().collect();
        for _ in 0..=self.below(3) {
            let at = self.below(text.len() + 1);
            let removed = self.below(2).min(text.len() - at);
            let inserted = if removed == 0 || self.one_in(2) { vec![self.pick(&ALPHABET)] } else { vec![] };
            text.splice(at..at + removed, inserted);
        }
        text.into_iter().collect()
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Whether Go answers in reasonable time, and without overflow. With a large exponent it does only if it keeps the number in 64 bits.
fn is_tractable(text: &str) -> bool {
    let Some((number, exponent)) = text.split_once(['e', 'E']) else { return true };
    let Ok(exponent) = exponent.parse::<i64>() else { return true };
    let exponent = exponent as i32;
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    exponent.unsigned_abs() <= 1000 || (digits < 18 && (0..2_147_483_000).contains(&exponent))
}
