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

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
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
        Literal::scan(text)?.quantity()
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
    /// It is the canonical form, which [`Display`](fmt::Display) prints, or `text` itself if that passes Go's quick check for
    /// canonical texts. The check also accepts `+1`, `01Ki` and `1.500`.
    pub fn stored(text: &str) -> Result<Cow<'_, str>, QuantityError> {
        let literal = Literal::scan(text)?;
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

// From text to quantity: the grammar, the rounding and the cap of `resource.ParseQuantity`.

/// The most digits that Go parses straight into 64 bits (`maxInt64Factors`). Only which texts are zero, and the printed text, depend on it;
/// the amount is the same.
const FAST_DIGITS: usize = 18;
/// If the last digit counts less than this power of ten, that many digits are within range.
const MAX_FAST_POWER: i32 = i32::MAX - 18;

/// The finest amount is 10^this.
const NANO: i32 = -9;
const NANO_DIGITS: usize = 9;
const NANOS_PER_UNIT: i128 = 1_000_000_000;

/// The largest amount in binary notation (`maxAllowed`).
const MAX_BINARY: i128 = i64::MAX as i128;
/// Digits that fit in 64 bits, which is no fewer than `MAX_BINARY` has.
const MAX_BINARY_DIGITS: usize = 19;

/// The parts of a quantity's text.
struct Literal<'a> {
    negative: bool,
    /// The digits before the point, without leading zeros.
    integer: &'a [u8],
    /// The digits after the point.
    fraction: &'a [u8],
    /// Whether there is any digit, leading zeros included.
    has_digits: bool,
    suffix: Suffix,
}

/// The factor of the number.
#[derive(Clone, Copy)]
enum Suffix {
    /// A letter, or nothing: 10^this.
    Decimal(i32),
    /// `e` or `E` and a number: 10^this.
    Exponent(i32),
    /// `Ki` and above: 2^this.
    Binary(u32),
}

impl<'a> Literal<'a> {
    /// Splits `text` into its parts (`parseQuantityString`).
    #[inline]
    fn scan(text: &'a str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes() {
            [] => return Err(QuantityError::Format),
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            all => (false, all),
        };
        let (zeros, rest) = split_while(unsigned, |byte| byte == b'0');
        let (integer, rest) = split_while(rest, |byte| byte.is_ascii_digit());
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => split_while(rest, |byte| byte.is_ascii_digit()),
            _ => (&[][..], rest),
        };
        let has_digits = !(zeros.is_empty() && integer.is_empty() && fraction.is_empty());
        Ok(Self { negative, integer, fraction, has_digits, suffix: Suffix::parse(rest)? })
    }

    /// The amount.
    #[inline]
    fn quantity(&self) -> Result<Quantity, QuantityError> {
        if !self.has_digits && !self.is_fast() {
            return Err(QuantityError::Numeric);
        }
        let magnitude = match self.suffix {
            Suffix::Decimal(exponent) => self.decimal(exponent, Format::DecimalSi)?,
            Suffix::Exponent(exponent) => self.decimal(exponent, Format::DecimalExponent)?,
            Suffix::Binary(shift) => self.binary(shift),
        };
        let mantissa = if self.negative { -magnitude.mantissa } else { magnitude.mantissa };
        Ok(Quantity { mantissa, ..magnitude })
    }

    /// Whether Go keeps the text, and prints it again.
    fn looks_canonical(&self) -> bool {
        self.is_fast()
            && match self.suffix {
                Suffix::Binary(_) => number(self.integer.iter()) % 8 != 0,
                Suffix::Decimal(exponent) | Suffix::Exponent(exponent) => {
                    self.lowest_power(exponent) % 3 == 0
                        && !self.integer.is_empty()
                        && self.digits().rev().take_while(|&&digit| digit == b'0').count() < 3
                }
            }
    }

    /// Whether Go parses the number straight into 64 bits.
    fn is_fast(&self) -> bool {
        let integer = self.integer.len().max(1);
        match self.suffix {
            Suffix::Decimal(exponent) | Suffix::Exponent(exponent) => {
                integer + self.fraction.len() <= FAST_DIGITS && self.lowest_power(exponent) >= NANO.into()
            }
            // Go reserves three digits for each factor of 1024.
            Suffix::Binary(shift) => self.fraction.is_empty() && integer + shift as usize / 10 * 3 <= 14,
        }
    }

    /// All digits.
    fn digits(&self) -> impl DoubleEndedIterator<Item = &u8> {
        self.integer.iter().chain(self.fraction)
    }

    /// The power of ten of the last digit.
    fn lowest_power(&self, exponent: i32) -> i64 {
        i64::from(exponent) - places(self.fraction)
    }

    /// The magnitude of a number with a power of ten.
    #[inline]
    fn decimal(&self, exponent: i32, format: Format) -> Result<Quantity, QuantityError> {
        match i32::try_from(self.lowest_power(exponent)) {
            Ok(lowest) if lowest < MAX_FAST_POWER && self.is_fast() => {
                let mantissa = number(self.digits());
                let exponent = if mantissa == 0 { 0 } else { lowest };
                Ok(Quantity { mantissa, exponent, format })
            }
            _ => self.long_decimal(exponent, format),
        }
    }

    /// [`decimal`](Self::decimal) for any number of digits, and for amounts finer than 10^-9.
    #[cold]
    fn long_decimal(&self, exponent: i32, format: Format) -> Result<Quantity, QuantityError> {
        if self.digits().all(|&digit| digit == b'0') {
            return Ok(Quantity { mantissa: 0, exponent: 0, format });
        }
        let lowest = self.lowest_power(exponent);
        let highest = i64::from(exponent) + places(self.integer);
        if lowest < -i64::from(i32::MAX) || highest > i64::from(i32::MAX) {
            return Err(QuantityError::OutOfRange);
        }
        let length = self.integer.len() + self.fraction.len();
        let too_fine = usize::try_from(i64::from(NANO) - lowest).unwrap_or(0).min(length);
        let rounded_up = self.digits().rev().take(too_fine).any(|&digit| digit != b'0');
        // Rounding up turns nines at the end into zeros, and adds one to the digit before them.
        let nines =
            self.digits().rev().skip(too_fine).take_while(|&&digit| rounded_up && digit == b'9').count();

        let mut mantissa = 0;
        let mut zeros = 0;
        for &digit in self.digits().take(length - too_fine - nines) {
            zeros += 1;
            if digit != b'0' {
                mantissa = append(mantissa, zeros, digit - b'0')?;
                zeros = 0;
            }
        }
        if rounded_up {
            mantissa = append(mantissa, zeros, 1)?;
            zeros = i64::try_from(nines).unwrap_or(i64::MAX);
        }
        let power = lowest.max(NANO.into()) + zeros;
        let exponent = i32::try_from(power).map_err(|_| QuantityError::OutOfRange)?;
        Ok(Quantity { mantissa, exponent, format })
    }

    /// The magnitude of a number with a power of 1024.
    #[inline]
    fn binary(&self, shift: u32) -> Quantity {
        if self.integer.len() > MAX_BINARY_DIGITS {
            return Quantity::new(i64::MAX, Format::BinarySi);
        }
        let whole = number(self.integer.iter());
        if self.fraction.is_empty() || whole << shift > MAX_BINARY {
            let mantissa = (whole << shift).min(MAX_BINARY);
            return Quantity { mantissa, exponent: 0, format: Format::BinarySi };
        }
        let nanos = self.binary_nanos(whole, shift).min(MAX_BINARY * NANOS_PER_UNIT);
        if nanos % NANOS_PER_UNIT == 0 {
            Quantity { mantissa: nanos / NANOS_PER_UNIT, exponent: 0, format: Format::BinarySi }
        } else {
            let format = if nanos < NANOS_PER_UNIT { Format::DecimalSi } else { Format::BinarySi };
            Quantity { mantissa: nanos, exponent: NANO, format }
        }
    }

    /// (`whole` + fraction) × 2^`shift` in units of 10^-9, rounded up.
    fn binary_nanos(&self, whole: i128, shift: u32) -> i128 {
        /// The digits of one limb of the long multiplication: limb × 2^60 stays well within 128 bits.
        const LIMB_DIGITS: usize = 18;
        const LIMB: i128 = 1_000_000_000_000_000_000;

        let (nanos, finer) = self.fraction.split_at(self.fraction.len().min(NANO_DIGITS));
        let (carry, inexact) = finer.chunks(LIMB_DIGITS).rev().fold((0, false), |(carry, inexact), limb| {
            let product = (left_aligned(limb, LIMB_DIGITS) << shift) + carry;
            (product / LIMB, inexact || product % LIMB != 0)
        });
        let exact = (whole * NANOS_PER_UNIT + left_aligned(nanos, NANO_DIGITS)) << shift;
        exact + carry + i128::from(inexact)
    }
}

impl Suffix {
    /// Parses the text after the number (`quantitySuffixer.interpret`).
    #[inline]
    fn parse(text: &[u8]) -> Result<Self, QuantityError> {
        let decimal = |power| Ok(Self::Decimal(power));
        let binary = |shift| Ok(Self::Binary(shift));
        match text {
            [] => decimal(0),
            [b'n'] => decimal(-9),
            [b'u'] => decimal(-6),
            [b'm'] => decimal(-3),
            [b'k'] => decimal(3),
            [b'M'] => decimal(6),
            [b'G'] => decimal(9),
            [b'T'] => decimal(12),
            [b'P'] => decimal(15),
            [b'E'] => decimal(18),
            [b'K', b'i'] => binary(10),
            [b'M', b'i'] => binary(20),
            [b'G', b'i'] => binary(30),
            [b'T', b'i'] => binary(40),
            [b'P', b'i'] => binary(50),
            [b'E', b'i'] => binary(60),
            _ => exponent(text).map(Self::Exponent),
        }
    }
}

/// Parses `e` or `E` and a number. The error is the one that Go reports.
#[cold]
fn exponent(text: &[u8]) -> Result<i32, QuantityError> {
    let (_, rest) = split_while(text, |byte| b"eEinumkKMGTP".contains(&byte));
    let digits = rest.strip_prefix(b"+").or_else(|| rest.strip_prefix(b"-")).unwrap_or(rest);
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(QuantityError::Format);
    }
    let [b'e' | b'E', number @ ..] = text else { return Err(QuantityError::Suffix) };
    let exponent: i64 =
        str::from_utf8(number).ok().and_then(|number| number.parse().ok()).ok_or(QuantityError::Suffix)?;
    #[expect(clippy::cast_possible_truncation, reason = "as Go does: 1e4294967296 is 1")]
    Ok(exponent as i32)
}

/// `mantissa` with `zeros` - 1 zeros and `digit` appended.
fn append(mantissa: i128, zeros: i64, digit: u8) -> Result<i128, QuantityError> {
    shift_left(mantissa, zeros)
        .and_then(|shifted| shifted.checked_add(digit.into()))
        .ok_or(QuantityError::OutOfRange)
}

/// The value of at most 19 digits.
#[inline]
fn number<'a>(digits: impl Iterator<Item = &'a u8>) -> i128 {
    digits.fold(0_u64, |value, &digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))).into()
}

/// The value of `digits` followed by zeros up to `width` places, at most 18.
fn left_aligned(digits: &[u8], width: usize) -> i128 {
    number(digits.iter().chain(std::iter::repeat_n(&b'0', width - digits.len())))
}

fn places(digits: &[u8]) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

/// The leading bytes that match, and the rest.
#[inline]
fn split_while(bytes: &[u8], matches: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|&byte| !matches(byte)).unwrap_or(bytes.len()))
}

// From quantity to text: `Quantity.CanonicalizeBytes`.

/// The suffixes of 1024^0 and up.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The suffixes of 1000^-3 and up.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// The power of ten of the largest decimal suffix.
const EXA: i64 = 18;

/// The canonical form: no fraction, and the largest suffix or exponent that allows for it.
///
/// An amount in binary notation prints in decimal if it is below 1024, or would need a fraction.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let whole = if self.format == Format::BinarySi { self.whole() } else { None };
        match whole.filter(|whole| whole.unsigned_abs() >= 1024) {
            Some(whole) => write_binary(f, whole),
            None => self.write_decimal(f),
        }
    }
}

impl Quantity {
    /// The amount, if it is a whole number; the exponent isn't positive.
    fn whole(&self) -> Option<i128> {
        let unit = power_of_ten(-i64::from(self.exponent))?;
        (self.mantissa % unit == 0).then(|| self.mantissa / unit)
    }

    fn write_decimal(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mantissa = self.mantissa;
        let mut power = i64::from(self.exponent);
        while mantissa % 10 == 0 {
            mantissa /= 10;
            power += 1;
        }
        let thousands = power.div_euclid(3) * 3;
        let shown = if self.format == Format::DecimalExponent { thousands } else { thousands.min(EXA) };
        write!(f, "{mantissa}")?;
        for _ in shown..power {
            f.write_str("0")?;
        }
        match usize::try_from(shown / 3 + 3).ok().and_then(|index| DECIMAL.get(index)) {
            _ if shown == 0 => Ok(()),
            Some(suffix) if self.format != Format::DecimalExponent => f.write_str(suffix),
            _ => write!(f, "e{shown}"),
        }
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, whole: i128) -> fmt::Result {
    let power = (whole.trailing_zeros() / 10).min(6);
    write!(f, "{}{}", whole >> (10 * power), BINARY.get(power as usize).unwrap_or(&""))
}
