//! The values of plain scalars, as go-yaml v2 resolves them (`resolve.go`).

use serde_json::{Number, Value};

/// The value of a plain scalar, or `None` for an infinity or NaN, which JSON cannot represent.
pub(super) fn resolve(text: &str) -> Option<Value> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf"
        | "-.Inf" | "-.INF" => return None,
        _ => match text.as_bytes().first() {
            Some(b'.') => number(float(text), text),
            Some(b'0'..=b'9' | b'+' | b'-') => {
                let digits = text.replace('_', "");
                number(integer(&digits).or_else(|| float(&digits)), text)
            }
            _ => Value::from(text),
        },
    })
}

fn number(number: Option<Number>, text: &str) -> Value {
    number.map_or_else(|| Value::from(text), Value::Number)
}

/// `strconv.ParseInt` and then `ParseUint`, of base 0.
fn integer(text: &str) -> Option<Number> {
    let (sign, digits) = match text.as_bytes() {
        [sign @ (b'+' | b'-'), ..] => (Some(*sign), text.get(1..)?),
        _ => (None, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None; // Rust takes a second sign
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    match sign {
        Some(b'-') => 0i64.checked_sub_unsigned(magnitude).map(Number::from),
        Some(_) => i64::try_from(magnitude).ok().map(Number::from),
        None => Some(Number::from(magnitude)),
    }
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`, unless it overflows.
fn float(text: &str) -> Option<Number> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mantissa = match unsigned.split_once(['e', 'E']) {
        Some((_, exponent)) if !digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)) => return None,
        Some((mantissa, _)) => mantissa,
        None => unsigned,
    };
    let mantissa_is_number = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    // An infinity is no number here, so `528e645`, as a commit may be called, stays text.
    if mantissa_is_number { Number::from_f64(text.parse().ok()?) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each checked against sigs.k8s.io/yaml 1.6.
    #[test]
    fn as_go_yaml_resolves() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("nULL", json!("nULL")),
            ("y", json!(true)),
            ("Off", json!(false)),
            ("yES", json!("yES")),
            ("0", json!(0)),
            ("-0", json!(0)),
            ("+12", json!(12)),
            ("010", json!(8)),
            ("-010", json!(-8)),
            ("08", json!(8.0)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("-0b11", json!(-3)),
            ("0x", json!("0x")),
            ("1_000", json!(1000)),
            ("1_", json!(1)),
            ("_1", json!("_1")),
            ("++1", json!("++1")),
            ("9223372036854775807", json!(i64::MAX)),
            ("18446744073709551615", json!(u64::MAX)),
            ("+18446744073709551615", json!(18_446_744_073_709_551_615.0)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("-9223372036854775809", json!(-9_223_372_036_854_775_809.0)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            (".", json!(".")),
            ("1e3", json!(1000.0)),
            ("1e", json!("1e")),
            ("528e645", json!("528e645")),
            ("1:30", json!("1:30")),
            ("2001-01-01", json!("2001-01-01")),
            ("inf", json!("inf")),
            ("500m", json!("500m")),
        ] {
            assert_eq!(resolve(text), Some(value), "{text}");
        }
        for text in [".inf", "-.INF", "+.Inf", ".NaN"] {
            assert_eq!(resolve(text), None);
        }
    }
}
