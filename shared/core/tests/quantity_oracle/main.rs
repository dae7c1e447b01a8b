//! Compares quantities with those of Kubernetes over generated texts: errors, amounts, notations, comparisons, sums.
//!
//! `PODSHAPER_QUANTITY_ORACLE` is the path of the binary of `ci/go/quantity-oracle`, `PODSHAPER_ORACLE_STRINGS` the number of texts, and
//! `PODSHAPER_SEED` the seed of the generator.
#![allow(
    clippy::cast_possible_wrap,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used
)]
#![cfg(test)]

mod texts;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Command, Stdio};
use std::thread;

use podshaper_core::quantity::{Format, Quantity, QuantityError};
use serde::Deserialize;

use texts::Texts;

/// The results of Go for two texts.
#[derive(Debug, Deserialize)]
struct Pair {
    a: Answer,
    b: Answer,
    cmp: Option<i32>,
    sum: Option<Answer>,
    difference: Option<Answer>,
}

/// The result of Go for one text: an error, or everything else.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: Option<String>,
    stored: String,
    canonical: String,
    format: String,
    /// `UNSCALEDeEXPONENT`
    exact: String,
    value: Option<i64>,
    milli: Option<i64>,
}

#[test]
fn quantity_agrees_with_go() {
    let oracle = env::var_os("PODSHAPER_QUANTITY_ORACLE")
        .expect("PODSHAPER_QUANTITY_ORACLE must name the binary of ci/go/quantity-oracle");
    let count = number_from_env("PODSHAPER_ORACLE_STRINGS", 100_000);
    let seed = number_from_env("PODSHAPER_SEED", 1);
    println!("{count} texts, PODSHAPER_SEED={seed}");

    let mut oracle = Command::new(oracle).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut questions = BufWriter::new(oracle.stdin.take().unwrap());
    let answers = BufReader::new(oracle.stdout.take().unwrap());
    let pairs = move || Texts::new(seed).pairs().take(count.div_ceil(2));
    let writer = thread::spawn(move || {
        for pair in pairs() {
            writeln!(questions, "{}", serde_json::to_string(&pair).unwrap()).unwrap();
        }
    });
    let mut outcomes = BTreeMap::<String, usize>::new();
    let mut lines = answers.lines();
    for (a, b) in pairs() {
        let go: Pair =
            serde_json::from_str(&lines.next().expect("an answer for each question").unwrap()).unwrap();
        for outcome in check_pair(&a, &b, &go).unwrap_or_else(|e| panic!("{a:?}, {b:?}: {e}; Go: {go:#?}")) {
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    writer.join().unwrap();
    assert!(oracle.wait().unwrap().success());
    println!("{outcomes:#?}");
}

fn number_from_env(name: &str, default: usize) -> usize {
    env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Compares all results for two texts, and returns the kind of each text.
fn check_pair(a: &str, b: &str, go: &Pair) -> Result<[String; 2], String> {
    let outcomes = [check(a, &go.a)?, check(b, &go.b)?];
    let (Ok(a), Ok(b)) = (Quantity::parse(a), Quantity::parse(b)) else { return Ok(outcomes) };
    if let Some(cmp) = go.cmp {
        same("cmp", a.cmp(&b), cmp.cmp(&0))?;
        same("cmp reversed", b.cmp(&a), 0.cmp(&cmp))?;
        same("eq", a == b, cmp == 0)?;
    }
    for (name, ours, theirs) in
        [("sum", a.checked_add(&b), &go.sum), ("difference", a.checked_sub(&b), &go.difference)]
    {
        match (ours, theirs) {
            (_, None) => {}
            (Some(ours), Some(theirs)) => {
                check_quantity(&ours, theirs).map_err(|e| format!("{name}: {e}"))?;
            }
            (None, Some(theirs)) if digits_to_add(&go.a, &go.b) > 38 || theirs.mantissa().len() > 38 => {}
            (None, Some(_)) => return Err(format!("{name}: overflow")),
        }
    }
    Ok(outcomes)
}

fn check(text: &str, go: &Answer) -> Result<String, String> {
    match (Quantity::parse(text), &go.error) {
        (Ok(quantity), None) => {
            check_quantity(&quantity, go)?;
            let stored = Quantity::stored(text).unwrap();
            if go.prints_exactly() {
                same("stored", &*stored, &go.stored)?;
            }
            same("sign", text.starts_with('-') && !quantity.is_zero(), quantity.sign() < 0)?;
            Ok(go.format.clone())
        }
        (Err(QuantityError::OutOfRange), None) if go.significant_digits() > 38 => Ok("out of range".into()),
        (Err(error), Some(expected)) => {
            let name = match error {
                QuantityError::Format => "format",
                QuantityError::Suffix => "suffix",
                QuantityError::Numeric => "numeric",
                QuantityError::OutOfRange => "out of range",
            };
            same("error", name, expected)?;
            Ok(format!("{name} error"))
        }
        (ours, _) => Err(format!("{ours:?}")),
    }
}

fn check_quantity(ours: &Quantity, go: &Answer) -> Result<(), String> {
    let format = match ours.format() {
        Format::BinarySi => "BinarySI",
        Format::DecimalSi => "DecimalSI",
        Format::DecimalExponent => "DecimalExponent",
    };
    same("format", format, &go.format)?;
    let exact = Quantity::parse(&go.exact).map_err(|e| e.to_string())?;
    same("exact amount", ours.cmp(&exact), Ordering::Equal)?;

    let printed = ours.to_string();
    if go.prints_exactly() {
        same("printed", &printed, &go.canonical)?;
    }
    let again = Quantity::parse(&printed).map_err(|e| e.to_string())?;
    let capped = ours.format() == Format::BinarySi && ours.value().and_then(i64::checked_abs).is_none();
    if !capped {
        same("printed and read again", again.cmp(ours), Ordering::Equal)?;
    }
    // The Go program prints those of the magnitude.
    let magnitude = |value: Option<i64>| value?.checked_mul(ours.sign().into());
    same("value", magnitude(ours.value()), go.value)?;
    same("milli value", magnitude(ours.milli_value()), go.milli)
}

fn same<T: std::fmt::Debug + PartialEq<U>, U: std::fmt::Debug>(
    name: &str,
    ours: T,
    go: U,
) -> Result<(), String> {
    if ours == go { Ok(()) } else { Err(format!("{name} is {ours:?}, not {go:?}")) }
}

impl Answer {
    fn mantissa(&self) -> &str {
        self.exact.split_once('e').unwrap().0.trim_start_matches('-')
    }

    fn exponent(&self) -> i64 {
        self.exact.split_once('e').unwrap().1.parse().unwrap()
    }

    fn significant_digits(&self) -> usize {
        self.mantissa().trim_end_matches('0').len()
    }

    /// Whether Go prints the amount that it holds. Beyond E and Ei it has no suffix, and prints none.
    fn prints_exactly(&self) -> bool {
        Quantity::parse(&self.canonical) == Quantity::parse(&self.exact)
    }
}

/// The digits of both amounts once they have the same exponent.
fn digits_to_add(a: &Answer, b: &Answer) -> i64 {
    let exponent = a.exponent().min(b.exponent());
    [a, b].map(|x| x.mantissa().len() as i64 + x.exponent() - exponent).into_iter().max().unwrap()
}
