//! From quantity to text: `Quantity.CanonicalizeBytes`.

use std::fmt;

use super::{Format, Quantity, power_of_ten};

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
        let (mut mantissa, mut power) = (self.mantissa, i64::from(self.exponent));
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
