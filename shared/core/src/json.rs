//! JSON as decisions read it: strings and maps borrowed from the document.
//!
//! Absent and `null` mean the same to Kubernetes, so the fields of views are `Option`s.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// The most entries of a map. The 256 KiB of annotations that Kubernetes allows hold fewer.
const MAX_ENTRIES: usize = 65_536;

thread_local! {
    /// The bytes that views parsed on this thread may still take.
    static ROOM: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Calls `parse`, and returns its result and the bytes that its views take: those of all lists, maps and unescaped strings together, however they
/// are nested. A view that would take more than `max` bytes is an error of the parser.
///
/// An item can take many times the bytes of its JSON: an empty value of a node selector 24 for 3.
pub fn within<T>(max: usize, parse: impl FnOnce() -> T) -> (T, usize) {
    /// Restores the room of an outer call, even if the parser panics.
    struct Outer(usize);
    impl Drop for Outer {
        fn drop(&mut self) {
            ROOM.set(self.0);
        }
    }
    let outer = Outer(ROOM.replace(max));
    let parsed = parse();
    let taken = max - ROOM.get();
    drop(outer);
    (parsed, taken)
}

/// Takes `bytes` of the room.
fn take<E: Error>(bytes: usize) -> Result<(), E> {
    match ROOM.get().checked_sub(bytes) {
        Some(room) => {
            ROOM.set(room);
            Ok(())
        }
        None => Err(E::custom("its lists and maps have more than this webhook reads")),
    }
}

/// A JSON string, borrowed from the document unless it has an escape. As in Go, null is the empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(v)))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Self::Value, E> {
                take(v.len())?;
                Ok(Text(Cow::Owned(v.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A string or a number, as manifests spell a quantity: `cpu: 2`, `cpu: "500m"`. The API server always sends strings.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Scalar<'a>(pub Cow<'a, str>);

impl Deref for Scalar<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a number")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Borrowed(v)))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Self::Value, E> {
                take(v.len())?;
                Ok(Scalar(Cow::Owned(v.to_owned())))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Owned(v.to_string())))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Owned(v.to_string())))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Owned(v.to_string())))
            }
            // resource.Quantity.UnmarshalJSON: null is zero.
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Borrowed("0")))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// The entries of a JSON object, in the order of the document. Of two entries with one key the last counts, as in Go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries<'a, V>(pub Vec<(Text<'a>, V)>);

/// Labels and annotations.
pub type TextMap<'a> = Entries<'a, Text<'a>>;

impl<V> Default for Entries<'_, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Entries<'_, V> {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.0.iter().rev().find(|(k, _)| &**k == key).map(|(_, v)| v)
    }

    /// Entries in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.0.iter().map(|(k, v)| (&**k, v))
    }

    /// Whether the object is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<V: Serialize> Serialize for Entries<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de: 'a, 'a, V: Deserialize<'de>> Deserialize<'de> for Entries<'a, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<'a, V>(PhantomData<(&'a (), V)>);
        impl<'de: 'a, 'a, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<'a, V> {
            type Value = Entries<'a, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() == MAX_ENTRIES {
                        return Err(A::Error::custom(format_args!(
                            "more than {MAX_ENTRIES} entries in a map"
                        )));
                    }
                    take(size_of::<(Text<'_>, V)>())?;
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

/// Deserializes an array of at most `MAX` items, for `#[serde(deserialize_with)]`.
///
/// An item takes much more memory than the `{}` that it can be parsed from, so the sender must not repeat it without bound.
pub fn bounded_list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Items<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
        type Value = Option<Vec<T>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == MAX {
                    return Err(A::Error::custom(format_args!("more than {MAX} items in a list")));
                }
                take(size_of::<T>())?;
                items.push(item);
            }
            Ok(Some(items))
        }
    }
    deserializer.deserialize_any(Items::<T, MAX>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_borrowed_unless_escaped() {
        let map: TextMap = serde_json::from_str(r#"{"a/b":"plain","c":"tab\t","d":null}"#).unwrap();
        assert!(matches!(map.get("a/b").unwrap().0, Cow::Borrowed("plain")));
        assert_eq!(&**map.get("c").unwrap(), "tab\t");
        assert_eq!(&**map.get("d").unwrap(), "", "as `kubectl apply` has it from `d:`");
        assert!(serde_json::from_str::<Text>("1").is_err());
    }

    #[test]
    fn nested_lists_and_maps_share_one_room() {
        #[derive(serde::Deserialize)]
        struct Outer<'a> {
            #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, 10>")]
            items: Option<Vec<TextMap<'a>>>,
        }
        let text = r#"{"items":[{"a":"","b":"\u0001\u0001"},{"c":""},{}]}"#;
        let parse = || serde_json::from_str::<Outer<'_>>(text).map(|outer| outer.items.unwrap().len());
        let bytes = 3 * size_of::<TextMap<'_>>() + 3 * size_of::<(Text<'_>, Text<'_>)>() + 2;
        let (parsed, taken) = within(bytes, parse);
        assert_eq!((parsed.unwrap(), taken), (3, bytes));
        let (parsed, _) = within(bytes, || within(bytes - 1, parse).0);
        assert!(parsed.unwrap_err().to_string().contains("lists and maps"));
        assert_eq!(parse().unwrap(), 3, "no limit outside");
    }

    #[test]
    fn last_duplicate_key_counts() {
        let map: TextMap = serde_json::from_str(r#"{"a":"1","a":"2"}"#).unwrap();
        assert_eq!(&**map.get("a").unwrap(), "2");
    }

    #[test]
    fn scalar_accepts_numbers() {
        for (json, text) in [("2", "2"), ("0.5", "0.5"), ("-1", "-1"), ("\"1Gi\"", "1Gi"), ("null", "0")] {
            assert_eq!(&*serde_json::from_str::<Scalar>(json).unwrap(), text);
        }
        assert!(serde_json::from_str::<Scalar>("{}").is_err());
    }
}
