//! The placement of a workload's pods as one line of text:
//! `nodesize=od4vcpu16gb,base=1,weight=0:nodesize=spot4vcpu16gb,weight=1`.
//!
//! ```text
//! STRATEGY = ENTRY {":" ENTRY}
//! ENTRY    = LABEL {"," ("base=" NUMBER | "weight=" NUMBER)}     in any order, spaces around anything
//! LABEL    = KEY "=" VALUE                                       of the group's nodes
//! ```

use std::collections::BTreeMap;
use std::fmt;

use super::policy::{Group, MAX_GROUPS, MAX_NUMBER, Policy, Tie};
use podshaper_core::label;

/// An error within this number of characters is shown with the whole text before it.
const SHOWN: usize = 120;

/// A strategy that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Strategy {
    policy: Policy,
}

/// The error in a strategy, and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrategyError {
    /// The first character that is wrong, counted from 0.
    pub at: usize,
    /// The reason.
    pub problem: String,
}

impl Strategy {
    /// Parses a strategy.
    pub fn parse(text: &str) -> Result<Self, StrategyError> {
        let mut entries = Vec::new();
        for entry in pieces(Piece { text, at: 0 }, ':') {
            if entries.len() == MAX_GROUPS {
                return Err(entry.error(format!("more than {MAX_GROUPS} groups")));
            }
            let group = entry.group()?;
            let twice = |(_, other): &(Piece<'_>, Group)| other.name == group.name;
            if entries.iter().any(twice) {
                return Err(entry.error(format!("{} is the node label of an earlier group", group.name)));
            }
            let based = |group: &Group| group.base > 0;
            if based(&group) && entries.iter().any(|(_, other)| based(other)) {
                return Err(entry.error("a second group with a base; one can have it"));
            }
            entries.push((entry, group));
        }
        let whole = Piece { text, at: 0 };
        if entries.iter().all(|(_, group)| group.weight == 0 && group.base == 0) {
            return Err(whole.error("no group has a weight or a base, so no pod would be placed"));
        }
        let groups = entries.into_iter().map(|(_, group)| group).collect();
        // The original gives a slot to the last of the groups with an equal claim.
        let policy = Policy::new(groups, Tie::Last).map_err(|error| whole.error(error.to_string()))?;
        Ok(Self { policy })
    }

    /// The policy of the strategy. The name of each group is its label, `KEY=VALUE`.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// The strategy as text, without bases and weights of 0.
impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, group) in self.policy.groups().iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{}", group.name)?;
            for (field, number) in [("base", group.base), ("weight", group.weight)] {
                if number > 0 {
                    write!(f, ",{field}={number}")?;
                }
            }
        }
        Ok(())
    }
}

/// A part of the text, and where it begins.
#[derive(Clone, Copy)]
struct Piece<'t> {
    text: &'t str,
    /// In characters.
    at: usize,
}

fn pieces(whole: Piece<'_>, separator: char) -> impl Iterator<Item = Piece<'_>> {
    let mut at = whole.at;
    whole.text.split(separator).map(move |text| {
        let piece = Piece { text, at };
        at += text.chars().count() + 1;
        piece.trim()
    })
}

impl Piece<'_> {
    fn trim(self) -> Self {
        let text = self.text.trim_ascii_start();
        Self { text: text.trim_ascii_end(), at: self.at + self.text.len() - text.len() }
    }

    fn error(self, problem: impl Into<String>) -> StrategyError {
        StrategyError { at: self.at, problem: problem.into() }
    }

    fn excerpt(self) -> String {
        label::excerpt(self.text)
    }

    fn group(self) -> Result<Group, StrategyError> {
        let mut label = None;
        let mut base = None;
        let mut weight = None;
        for part in pieces(self, ',') {
            let Some((key, value)) = part.text.split_once('=') else {
                return Err(part.error(match part.text {
                    "" => "a node label, KEY=VALUE, is missing".to_owned(),
                    _ => format!("{:?} isn't KEY=VALUE", part.excerpt()),
                }));
            };
            let at = part.at + key.chars().count() + 1;
            let key = key.trim_ascii_end();
            let value = Piece { text: value, at }.trim();
            let (number, name) = match key {
                "base" => (&mut base, "base"),
                "weight" => (&mut weight, "weight"),
                _ if label.is_some() => {
                    return Err(
                        part.error(format!("{:?} is a second node label; a group has one", part.excerpt()))
                    );
                }
                _ => {
                    label::check(key, value.text).map_err(|problem| part.error(problem))?;
                    label = Some((key, value.text));
                    continue;
                }
            };
            if number.is_some() {
                return Err(part.error(format!("{name} is set twice in one group")));
            }
            *number = Some(value.number(name)?);
        }
        let (key, value) = label.ok_or_else(|| self.error("a node label, KEY=VALUE, is missing"))?;
        Ok(Group {
            name: format!("{key}={value}").into(),
            node_labels: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            base: base.unwrap_or(0),
            weight: weight.unwrap_or(0),
            ..Group::default()
        })
    }

    fn number(self, name: &str) -> Result<u32, StrategyError> {
        let digits = !self.text.is_empty() && self.text.bytes().all(|byte| byte.is_ascii_digit());
        let number = self.text.parse().ok().filter(|number| digits && *number <= MAX_NUMBER);
        number.ok_or_else(|| {
            self.error(format!(
                "{name} must be a whole number from 0 to {MAX_NUMBER}, not {:?}",
                self.excerpt()
            ))
        })
    }
}

impl StrategyError {
    /// The text, and a line with a mark below the character that is wrong. Of a long text that part is shown.
    pub fn pointing(&self, text: &str) -> [String; 2] {
        let begin = if self.at < SHOWN { 0 } else { self.at - SHOWN / 2 };
        let mut shown = text.chars().skip(begin).map(|c| if c.is_control() { ' ' } else { c });
        let mut line = if begin > 0 { "…".to_owned() } else { String::new() };
        let mark = self.at - begin + line.chars().count();
        line.extend(shown.by_ref().take(SHOWN + SHOWN / 2));
        line.extend(shown.next().map(|_| '…'));
        [line, format!("{:mark$}^", "")]
    }
}

impl fmt::Display for StrategyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at + 1, self.problem)
    }
}

impl std::error::Error for StrategyError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::allocator::SlotAllocator;

    fn desired(strategy: &str, pods: u32) -> Vec<u32> {
        SlotAllocator::new(Strategy::parse(strategy).unwrap().policy().clone()).desired(pods)
    }

    #[test]
    fn numbers_of_the_original() {
        let three = "nodesize=od4vcpu16gb,base=1,weight=0:nodesize=spot4vcpu16gb,weight=1:nodesize=spot8vcpu32gb,weight=1";
        assert_eq!(desired(three, 10), [1, 4, 5]);
        assert_eq!(desired(three, 5), [1, 2, 2]);
        assert_eq!(desired(three, 30), [1, 14, 15]);
        assert_eq!(desired("type=on-demand,base=2,weight=1:type=spot,weight=3", 10), [4, 6]);
    }

    #[test]
    fn valid_strategies_parse() {
        for (text, canonical) in [
            ("a=b,weight=1", "a=b,weight=1"),
            ("a=,base=1", "a=,base=1"),
            (
                " weight = 01 , a=b :\tnode.kubernetes.io/instance-type=m5.large ",
                "a=b,weight=1:node.kubernetes.io/instance-type=m5.large",
            ),
            ("a=b,base=0,weight=1:a=c,base=5,weight=0", "a=b,weight=1:a=c,base=5"),
            ("a=b,weight=1000000", "a=b,weight=1000000"),
        ] {
            assert_eq!(Strategy::parse(text).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn errors_point_at_their_position() {
        for wrong in MALFORMED.lines().map(str::trim_end).collect::<Vec<_>>().chunks(3) {
            let [text, mark, problem] = wrong else { panic!("three lines each: {wrong:?}") };
            let text = text.strip_prefix('|').unwrap();
            let error = Strategy::parse(text).expect_err(text);
            assert_eq!(error.pointing(text), [text, mark.strip_prefix('|').unwrap()]);
            assert!(error.problem.contains(problem.trim()), "{text}: {error}");
        }
        assert!(MALFORMED.lines().count() >= 3 * 40);
    }

    #[test]
    fn long_text_is_truncated() {
        let long =
            |count: usize| (0..count).map(|i| format!("a=v{i:03},weight=1:")).collect::<Vec<_>>().concat();
        for before in [1, 5, 6, 7, 8, 9, 20, 31] {
            let text = format!("{}a=x,weight=!{}", long(before), ":a=é,weight=1".repeat(40));
            let [line, mark] = Strategy::parse(&text).unwrap_err().pointing(&text);
            assert_eq!(line.chars().nth(mark.len() - 1), Some('!'), "{line}\n{mark}");
            assert!(line.chars().count() <= 2 + SHOWN + SHOWN / 2);
        }
    }

    #[test]
    fn control_characters_become_spaces() {
        let text = "a=\u{1b}[2Jb,\n\tweight=x";
        assert_eq!(Strategy::parse(text).unwrap_err().pointing(text), ["a= [2Jb,  weight=x", "^"]);
    }

    #[test]
    fn bounds() {
        let many =
            |count: usize| (0..count).map(|i| format!("a=v{i},weight=1")).collect::<Vec<_>>().join(":");
        assert!(Strategy::parse(&many(32)).is_ok());
        assert_eq!(Strategy::parse(&many(33)).unwrap_err().problem, "more than 32 groups");
        let long = format!("a=b,weight={}", "9".repeat(1_000_000));
        assert!(Strategy::parse(&long).unwrap_err().to_string().len() < 200);
        let odd = "\u{1d}".repeat(1_000_000);
        for text in [format!("{odd}=b,weight=1"), format!("a={odd},weight=1"), format!("a=b,{odd}")] {
            assert!(Strategy::parse(&text).unwrap_err().to_string().len() < 1000);
        }
    }

    proptest! {
        #[test]
        fn printed_strategy_parses_equal(groups in prop::collection::vec(("[a-z]([a-z.]{0,5}[a-z])?", 0..9u32, any::<bool>()), 1..9)) {
            let text = groups.iter().enumerate().map(|(index, (value, weight, base))| {
                let base = if *base && index == 0 { ",base=3" } else { "" };
                format!("k{index}={value}{base},weight={weight}")
            });
            let text = text.collect::<Vec<_>>().join(":");
            if let Ok(strategy) = Strategy::parse(&text) {
                let printed = strategy.to_string();
                let again = Strategy::parse(&printed).unwrap();
                prop_assert_eq!(again.to_string(), printed);
                prop_assert_eq!(again, strategy);
            } else {
                prop_assert!(groups.iter().all(|(_, weight, _)| *weight == 0) && !groups[0].2);
            }
        }

        #[test]
        fn anything_is_answered(text in "[a-c=,: 0-9é\u{0}/.-]{0,40}|\\PC{0,40}") {
            if let Err(error) = Strategy::parse(&text) {
                prop_assert!(error.at <= text.chars().count());
                let [line, mark] = error.pointing(&text);
                prop_assert!(mark.ends_with('^') && mark.len() <= line.chars().count() + 1);
            }
        }
    }

    /// A text, the position of the mistake, and a part of the message.
    const MALFORMED: &str = include_str!("malformed.txt");
}
