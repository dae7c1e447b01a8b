//! From text to quantity: the grammar, the rounding and the cap of `resource.ParseQuantity`.

use super::{Format, Quantity, QuantityError, shift_left};

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
pub(super) struct Literal<'a> {
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
    pub(super) fn scan(text: &'a str) -> Result<Self, QuantityError> {
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
    pub(super) fn quantity(&self) -> Result<Quantity, QuantityError> {
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
    pub(super) fn looks_canonical(&self) -> bool {
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

        let (mut mantissa, mut zeros) = (0, 0);
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
