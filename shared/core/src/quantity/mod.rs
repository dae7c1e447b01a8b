//! Kubernetes quantities, exact: `100m`, `1.5Gi`, `12e6`.
//!
//! They parse, compute and print as those of Go's `k8s.io/apimachinery/pkg/api/resource`; the tests compare both over generated strings.
//! There is no other exact implementation in Rust. Three differences, each on the safe side:
//!
//! - A number of 10^29 or more with more than 38 significant digits, or with a power of ten beyond 32 bits, is
//!   [`OutOfRange`](QuantityError::OutOfRange). Go computes with it for as long as it takes (`1e-2000000000` keeps it
//!   busy for hours) or wraps around.
//! - A result that doesn't fit is `None`. Go's `Value()` returns 0 or the low 64 bits.
//! - 1000E and above print as `1000E`. Go drops the suffix that it has no letter for, and prints `1`.
//!
//! No operation allocates, and each takes time linear in the length of its text.

mod parse;
mod print;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::str::FromStr;

/// An exact amount of a resource, and its notation.
///
/// Only the amounts compare: `1Ki` equals `1024`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// The value is `mantissa` × 10^`exponent`; both are 0 for zero. The mantissa is never `i128::MIN`, the exponent of
    /// [`Format::BinarySi`] never positive.
    mantissa: i128,
    exponent: i32,
    format: Format,
}

/// The notation that a quantity prints in (`resource.Format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Powers of ten as exponents: `12e6`.
    DecimalExponent,
    /// Powers of 1024 as suffixes: `12Mi`. The notation of memory.
    BinarySi,
    /// Powers of ten as suffixes: `12M`, `100m`. The notation of CPUs, and of plain numbers.
    DecimalSi,
}

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text isn't a number followed by a suffix (`resource.ErrFormatWrong`).
    #[error("a quantity is a number and a suffix, like 100m, 1.5Gi or 12e6")]
    Format,
    /// There is no such suffix (`resource.ErrSuffix`).
    #[error("a quantity's suffix is one of n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent like e6")]
    Suffix,
    /// There are no digits (`resource.ErrNumeric`).
    #[error("a quantity needs at least one digit")]
    Numeric,
    /// The number has too many digits, or too large a power of ten. Go has no such error.
    #[error("the quantity is out of range: it has more than 38 digits, or an exponent beyond 32 bits")]
    OutOfRange,
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Quantity {
    /// Zero, in the notation of a plain `0`.
    pub const ZERO: Self = Self::new(0, Format::DecimalSi);

    /// `value` whole units, printed as `format` (`resource.NewQuantity`).
    pub const fn new(value: i64, format: Format) -> Self {
        Self { mantissa: value as i128, exponent: 0, format }
    }

    /// Memory: `bytes`, printed with binary suffixes.
    pub const fn from_bytes(bytes: i64) -> Self {
        Self::new(bytes, Format::BinarySi)
    }

    /// CPUs: thousandths of one, printed with decimal suffixes (`resource.NewMilliQuantity`).
    pub const fn from_millicores(millicores: i64) -> Self {
        let exponent = if millicores == 0 { 0 } else { -3 };
        Self { mantissa: millicores as i128, exponent, format: Format::DecimalSi }
    }

    /// Parses a quantity as the API server does (`resource.ParseQuantity`).
    ///
    /// Amounts finer than 10^-9 are rounded up (away from zero) to it; amounts in binary notation are capped at 2^63-1.
    /// A text without digits, such as `-`, `.` or `Ki`, is zero if it is zero to Go.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse::Literal::scan(text)?.quantity()
    }

    /// Parses a JSON value as the API server does (`Quantity.UnmarshalJSON`): a number, a string, in which escapes are not decoded, or
    /// `null` for zero. White space around the amount is allowed.
    pub fn from_json(raw: &str) -> Result<Self, QuantityError> {
        if raw == "null" {
            return Ok(Self::ZERO);
        }
        let quoted = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        Self::parse(quoted.unwrap_or(raw).trim())
    }

    /// The text that the API server stores for `text` (`Quantity.String` after `resource.ParseQuantity`).
    ///
    /// It is the canonical form, which [`Display`](std::fmt::Display) prints, or `text` itself if that passes Go's quick check for
    /// canonical texts. The check also accepts `+1`, `01Ki` and `1.500`.
    pub fn stored(text: &str) -> Result<Cow<'_, str>, QuantityError> {
        let literal = parse::Literal::scan(text)?;
        let quantity = literal.quantity()?;
        Ok(if literal.looks_canonical() { text.into() } else { quantity.to_string().into() })
    }

    /// The notation in which the quantity prints.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whether the amount is zero.
    pub const fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1: the sign of the amount.
    pub const fn sign(&self) -> i32 {
        match self.mantissa {
            ..0 => -1,
            0 => 0,
            1.. => 1,
        }
    }

    /// Whole units, rounded away from zero (`Quantity.Value`); `None` beyond 64 bits.
    pub fn value(&self) -> Option<i64> {
        self.scaled_value(0)
    }

    /// Thousandths, rounded away from zero (`Quantity.MilliValue`): of CPUs, millicores. `None` beyond 64 bits.
    pub fn milli_value(&self) -> Option<i64> {
        self.scaled_value(-3)
    }

    /// Units of 10^`exponent`, rounded away from zero (`Quantity.ScaledValue`); `None` beyond 64 bits.
    pub fn scaled_value(&self, exponent: i32) -> Option<i64> {
        let shift = i64::from(self.exponent) - i64::from(exponent);
        i64::try_from(if shift < 0 {
            divide_away_from_zero(self.mantissa, power_of_ten(-shift).unwrap_or(i128::MAX))
        } else {
            shift_left(self.mantissa, shift)?
        })
        .ok()
    }

    /// The number of `unit`s that hold the amount, rounded away from zero: `round_up_to(1 << 20)` of memory is in MiB. `None` beyond 64
    /// bits, or for a `unit` of 0.
    pub fn round_up_to(&self, unit: u64) -> Option<i64> {
        let unit = i128::from(unit);
        let (amount, unit) = if self.exponent < 0 {
            let Some(unit) = shift_left(unit, -i64::from(self.exponent)) else {
                return Some(self.sign().into());
            };
            (self.mantissa, unit)
        } else {
            (shift_left(self.mantissa, self.exponent.into())?, unit)
        };
        if unit == 0 { None } else { i64::try_from(divide_away_from_zero(amount, unit)).ok() }
    }

    /// The exact sum, in the notation of `self`, or of `other` if `self` is zero (`Quantity.Add`); `None` if the sum
    /// needs more than 38 digits.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        if self.is_zero() {
            return Some(*other);
        }
        if other.is_zero() {
            return Some(*self);
        }
        let exponent = self.exponent.min(other.exponent);
        let align = |q: &Self| shift_left(q.mantissa, i64::from(q.exponent) - i64::from(exponent));
        let mantissa = align(self)?.checked_add(align(other)?).filter(|&sum| sum != i128::MIN)?;
        let exponent = if mantissa == 0 { 0 } else { exponent };
        Some(Self { mantissa, exponent, format: self.format })
    }

    /// The exact difference, in the notation of `self`, or of `other` if `self` is zero (`Quantity.Sub`); `None` if it
    /// needs more than 38 digits.
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.checked_add(&Self { mantissa: -other.mantissa, ..*other })
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let shift = i64::from(self.exponent) - i64::from(other.exponent);
        if shift < 0 {
            return other.cmp(self).reverse();
        }
        // A mantissa that doesn't fit once aligned is beyond any other.
        shift_left(self.mantissa, shift).map_or(self.sign().cmp(&0), |aligned| aligned.cmp(&other.mantissa))
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Quantity {}

/// The powers of ten that fit.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a panic is an error")]
const POWERS_OF_TEN: [i128; 39] = {
    let mut powers = [1; 39];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = 10 * powers[exponent - 1];
        exponent += 1;
    }
    powers
};

/// 10^`exponent`, if it fits.
fn power_of_ten(exponent: i64) -> Option<i128> {
    POWERS_OF_TEN.get(usize::try_from(exponent).ok()?).copied()
}

/// `number` × 10^`places`, if it fits; `places` isn't negative.
fn shift_left(number: i128, places: i64) -> Option<i128> {
    if places == 0 || number == 0 { Some(number) } else { number.checked_mul(power_of_ten(places)?) }
}

/// `number` ÷ `divisor`, rounded away from zero; `divisor` is positive.
fn divide_away_from_zero(number: i128, divisor: i128) -> i128 {
    let quotient = number / divisor;
    if number % divisor == 0 { quotient } else { quotient + number.signum() }
}
