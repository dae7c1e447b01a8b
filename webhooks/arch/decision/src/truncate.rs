//! Truncated lists in messages, because the author of a pod determines their length.

use std::fmt::Display;

/// Items that are shown.
const SHOWN: usize = 12;
/// Characters of an item: more than the name of an image may have, with tag and digest.
const MAX_ITEM_CHARS: usize = 512;

/// The items, or the first of them and how many more there are.
pub(crate) fn listed(separator: &str, items: impl IntoIterator<Item: Display>) -> String {
    let mut items = items.into_iter();
    let shown: Vec<_> = items.by_ref().take(SHOWN).map(|item| shortened(item.to_string())).collect();
    let shown = shown.join(separator);
    match items.count() {
        0 => shown,
        more => format!("{shown}{separator}and {more} more"),
    }
}

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_ITEM_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_list_is_truncated() {
        assert_eq!(listed(", ", ["a", "b"]), "a, b");
        assert_eq!(listed(", ", [""; 0]), "");
        assert_eq!(listed(",", 0..12), "0,1,2,3,4,5,6,7,8,9,10,11");
        assert_eq!(listed("; ", 0..15), "0; 1; 2; 3; 4; 5; 6; 7; 8; 9; 10; 11; and 3 more");
        let long = "ä".repeat(600);
        assert_eq!(listed(", ", [&long, "b"]), format!("{}…, b", "ä".repeat(512)));
    }
}
