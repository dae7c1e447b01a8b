//! Patterns with `*`.

/// Matches `pattern` in linear time: `*` matches any bytes, `?` one. Only the last star has to be tried with more bytes, so
/// no pattern takes long.
pub fn glob(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // The pattern after the last star, and the position from which it may match.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, text) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                star = Some((rest, text));
                pattern = rest;
            }
            ([own, rest @ ..], [first, tail @ ..]) if *own == b'?' || own == first => {
                (pattern, text) = (rest, tail);
            }
            _ => {
                let Some((rest, [_, tail @ ..])) = star else { return false };
                star = Some((rest, tail));
                (pattern, text) = (rest, tail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_matches_any_text() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "b", false),
            ("a?c", "abc", true),
            ("?", "", false),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("*ab", "aab", true),
            ("**a", "ba", true),
            ("quay.io/*-bundle*", "quay.io/a/b-bundle:1", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        // A backtracking matcher would not finish with this input.
        assert!(!glob(format!("{}b", "*a".repeat(40)).as_bytes(), "a".repeat(60).as_bytes()));
    }
}
