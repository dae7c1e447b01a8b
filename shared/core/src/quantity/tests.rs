//! Properties and fixed cases; `tests/quantity_oracle` compares with Go itself.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Format, Quantity, QuantityError};

fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn quantity_prints_canonical_form() {
    for (text, canonical) in [
        ("100m", "100m"),
        ("0.1", "100m"),
        ("1.5", "1500m"),
        ("1000", "1k"),
        ("12e6", "12e6"),
        ("1.2e7", "12e6"),
        ("1.5Gi", "1536Mi"),
        ("1024Ki", "1Mi"),
        ("1023", "1023"),
        ("0.5Ki", "512"),
        ("1.0001Ki", "1024102400u"),
        ("-1.5", "-1500m"),
        ("-0", "0"),
        ("1000E", "1000E"),
        ("1e21", "1e21"),
    ] {
        assert_eq!(quantity(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn stored_keeps_text_that_looks_canonical() {
    for (text, stored) in [
        ("+1", "+1"),
        ("01Ki", "01Ki"),
        ("1.500", "1.500"),
        ("1E3", "1E3"),
        ("1000m", "1"),
        ("+8Ki", "8Ki"),
        ("00", "0"),
    ] {
        assert_eq!(Quantity::stored(text).unwrap(), stored, "{text}");
    }
}

#[test]
fn json_value_parses_as_in_go() {
    for (raw, canonical) in
        [("1.5", "1500m"), ("\"100m\"", "100m"), ("\" 1 \"", "1"), ("null", "0"), ("1e3", "1e3")]
    {
        assert_eq!(Quantity::from_json(raw).unwrap().to_string(), canonical, "{raw}");
    }
    for raw in ["\"\"", "\"1\\u0030\"", "true", "{}", "\""] {
        Quantity::from_json(raw).unwrap_err();
    }
}

#[test]
fn invalid_text_has_the_error_of_go() {
    for (text, error) in [
        ("", QuantityError::Format),
        (" 1", QuantityError::Format),
        ("1.2.3", QuantityError::Format),
        ("0x10", QuantityError::Format),
        ("1e5.0", QuantityError::Format),
        ("1K", QuantityError::Suffix),
        ("1e", QuantityError::Suffix),
        ("1.1i", QuantityError::Suffix),
        ("1-5", QuantityError::Suffix),
        ("1e9223372036854775808", QuantityError::Suffix),
        ("Ei", QuantityError::Numeric),
        ("e-10", QuantityError::Numeric),
        ("1e2147483647", QuantityError::OutOfRange),
        ("1.5e-2147483648", QuantityError::OutOfRange),
    ] {
        assert_eq!(Quantity::parse(text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn text_without_digits_is_zero_as_in_go() {
    for text in ["-", "+", ".", "Ki", "Ti", "m", "E", "e5", "e-9", "-.Mi"] {
        assert!(quantity(text).is_zero(), "{text}");
    }
}

#[test]
fn value_rounds_away_from_zero_or_is_none() {
    assert_eq!(quantity("1500m").value(), Some(2));
    assert_eq!(quantity("-1500m").value(), Some(-2));
    assert_eq!(quantity("1n").milli_value(), Some(1));
    assert_eq!(quantity("1n").scaled_value(i32::MAX), Some(1));
    assert_eq!(quantity("1e19").value(), None);
    assert_eq!(quantity("8Ei").value(), Some(i64::MAX));
    assert_eq!(quantity("8Ei").milli_value(), None);

    let mib = 1 << 20;
    assert_eq!(quantity("4Gi").round_up_to(mib), Some(4096));
    assert_eq!(quantity("100M").round_up_to(mib), Some(96));
    assert_eq!(quantity("1m").round_up_to(mib), Some(1));
    assert_eq!(quantity("-1m").round_up_to(mib), Some(-1));
    assert_eq!(quantity("0").round_up_to(mib), Some(0));
    assert_eq!(quantity("1e30").round_up_to(mib), None);
    assert_eq!(quantity("1n").round_up_to(u64::MAX), Some(1));
    assert_eq!(quantity("1").round_up_to(0), None);
}

#[test]
fn sum_has_notation_of_nonzero_operand() {
    let sum = |a: &str, b: &str| quantity(a).checked_add(&quantity(b)).map(|sum| sum.to_string());
    assert_eq!(sum("0", "1Gi").as_deref(), Some("1Gi"));
    assert_eq!(sum("1G", "1Gi").as_deref(), Some("2073741824"));
    assert_eq!(sum("8Ei", "8Ei").as_deref(), Some("18446744073709551614"));
    assert_eq!(sum("1", "-1000m").as_deref(), Some("0"));
    assert_eq!(sum("1e2000000000", "1"), None);
}

#[test]
fn constructor_sets_notation() {
    assert_eq!(Quantity::from_bytes(5 << 30).to_string(), "5Gi");
    assert_eq!(Quantity::from_millicores(2500).to_string(), "2500m");
    assert_eq!(Quantity::from_millicores(0).to_string(), "0");
    assert_eq!(Quantity::new(i64::MIN, Format::BinarySi).to_string(), "-8Ei");
}

#[test]
fn hostile_text_parses_in_linear_time() {
    let million = 1_000_000;
    let started = Instant::now();
    for (text, expected) in [
        ("1e999999999".to_owned(), Ok("1e999999999")),
        ("1e-999999999".to_owned(), Ok("1e-9")),
        ("1234567890123456789e1999999999".to_owned(), Ok("12345678901234567890e1999999998")),
        ("9".repeat(million), Err(QuantityError::OutOfRange)),
        (format!("{}1", "0".repeat(million)), Ok("1")),
        (format!("0.{}1", "0".repeat(million)), Ok("1n")),
        (format!("0.{}Ei", "9".repeat(million)), Ok("1Ei")),
        (format!("{}Ki", "9".repeat(million)), Ok("9223372036854775807")),
        (format!("1e{}1", "0".repeat(million)), Ok("10")),
        (format!("1e{}", "9".repeat(million)), Err(QuantityError::Suffix)),
        (format!("1{}", "E".repeat(million)), Err(QuantityError::Suffix)),
    ] {
        let parsed = Quantity::parse(&text).map(|quantity| quantity.to_string());
        assert_eq!(parsed.as_deref().map_err(|error| *error), expected, "{}", &text[..20.min(text.len())]);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Amounts in every notation, small enough to add their nanos in 128 bits.
fn amount() -> impl Strategy<Value = String> {
    let suffix = prop::sample::select(
        [
            "n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "e-9", "e3",
            "E+6", "e-1",
        ]
        .as_slice(),
    );
    (any::<i16>(), prop::option::of(any::<u16>()), suffix).prop_map(|(integer, fraction, suffix)| {
        match fraction {
            Some(fraction) => format!("{integer}.{fraction}{suffix}"),
            None => format!("{integer}{suffix}"),
        }
    })
}

/// The amount in units of 10^-9.
fn nanos(quantity: &Quantity) -> i128 {
    quantity.mantissa * 10_i128.pow(u32::try_from(quantity.exponent + 9).unwrap())
}

proptest! {
    #[test]
    fn printed_quantity_parses_as_equal(text in amount()) {
        let quantity = quantity(&text);
        let printed = quantity.to_string();
        let again = Quantity::parse(&printed).unwrap();
        prop_assert_eq!(quantity, again);
        prop_assert_eq!(printed, again.to_string());
    }

    #[test]
    fn stored_text_parses_as_equal(text in amount()) {
        prop_assert_eq!(quantity(&text), quantity(&Quantity::stored(&text).unwrap()));
    }

    #[test]
    fn order_and_sum_are_exact(a in amount(), b in amount()) {
        let a = quantity(&a);
        let b = quantity(&b);
        prop_assert_eq!(a.cmp(&b), nanos(&a).cmp(&nanos(&b)));
        let sum = a.checked_add(&b).unwrap();
        prop_assert_eq!(nanos(&sum), nanos(&a) + nanos(&b));
        prop_assert_eq!(sum, b.checked_add(&a).unwrap());
        prop_assert_eq!(sum.checked_sub(&b).unwrap(), a);
    }

    #[test]
    fn round_up_to_is_the_least_that_holds(text in amount(), unit in 1..=u64::from(u32::MAX)) {
        let quantity = quantity(&text);
        let unit_nanos = i128::from(unit) * 1_000_000_000;
        let magnitude = nanos(&quantity).abs();
        if let Some(units) = quantity.round_up_to(unit) {
            let units = i128::from(units).abs();
            prop_assert!(units * unit_nanos >= magnitude);
            prop_assert!(units == 0 || (units - 1) * unit_nanos < magnitude);
        } else {
            prop_assert!(magnitude > i128::from(i64::MAX) * unit_nanos);
        }
    }

    #[test]
    fn any_text_is_handled(text in any::<String>()) {
        let _ = Quantity::parse(&text);
        let _ = Quantity::from_json(&text);
    }
}
