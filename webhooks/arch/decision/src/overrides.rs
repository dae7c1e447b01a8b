//! Annotations of a pod or its namespace for this webhook. The annotation of the pod precedes that of the namespace.

use std::fmt::Debug;

use podshaper_core::pod::Pod;

use crate::platform::Architecture;

/// The annotation, with the value `true`, of pods and namespaces that the webhook does not change.
pub const SKIP: &str = "podshaper.dev/arch-skip";
/// The annotation with architectures that the scheduler is to prefer, best first: `arm64,amd64`. It replaces `preferred`.
pub const PREFERRED: &str = "podshaper.dev/arch-preferred";

/// The largest number of preferred architectures.
const MAX_PREFERRED: usize = 16;

/// The annotations of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Whether the webhook leaves pods unchanged.
    pub skip: Option<bool>,
    /// Architectures that the scheduler is to prefer, best first.
    pub preferred: Option<Vec<Architecture>>,
    /// The keys of annotations with values that have no meaning.
    pub invalid: Vec<&'static str>,
}

/// A source of the annotations of namespaces.
pub trait Namespaces: Debug + Send + Sync + 'static {
    /// Those of this namespace, as far as they are known.
    fn overrides(&self, namespace: &str) -> Option<Overrides>;

    /// Whether all namespaces are known.
    fn has_synced(&self) -> bool;
}

impl Overrides {
    /// Reads annotations.
    pub fn new<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Self {
        let mut overrides = Self::default();
        match annotation(SKIP) {
            None => {}
            Some("true") => overrides.skip = Some(true),
            Some("false") => overrides.skip = Some(false),
            Some(_) => overrides.invalid.push(SKIP),
        }
        if let Some(text) = annotation(PREFERRED) {
            let names: Vec<_> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
            let known: Option<Vec<Architecture>> = names.iter().map(|name| name.parse().ok()).collect();
            match known {
                Some(known) if names.len() <= MAX_PREFERRED => overrides.preferred = Some(known),
                _ => overrides.invalid.push(PREFERRED),
            }
        }
        overrides
    }

    /// Those of a pod.
    pub fn of(pod: &Pod<'_>) -> Self {
        Self::new(|key| pod.annotation(key))
    }

    /// These, and where they state nothing, the ones of the namespace.
    #[must_use]
    pub fn or(mut self, namespace: Option<Self>) -> Self {
        let Some(namespace) = namespace else { return self };
        self.skip = self.skip.or(namespace.skip);
        self.preferred = self.preferred.or(namespace.preferred);
        self.invalid.extend(namespace.invalid);
        self
    }

    /// A warning for each annotation without a meaning.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        self.invalid.iter().map(|key| match *key {
            SKIP => format!("arch: the annotation {key} has no effect: its value is \"true\" or \"false\""),
            _ => format!(
                "arch: the annotation {key} has no effect: its value is a list of up to {MAX_PREFERRED} architectures, such as arm64,amd64"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(skip: &str, preferred: &str) -> Overrides {
        Overrides::new(|key| Some(if key == SKIP { skip } else { preferred }).filter(|value| *value != "-"))
    }

    #[test]
    fn pod_precedes_namespace() {
        let arm: Architecture = "arm64".parse().unwrap();
        let namespace = read("true", "arm64, s390x");
        assert_eq!(namespace.preferred.as_ref().unwrap().len(), 2);
        let both = read("false", "arm64").or(Some(namespace.clone()));
        assert_eq!((both.skip, both.preferred), (Some(false), Some(vec![arm])));
        assert_eq!(read("-", "-").or(Some(namespace.clone())), namespace);
        assert_eq!(read("-", "").preferred, Some(Vec::new()), "none is preferred");
    }

    #[test]
    fn value_without_meaning_is_a_warning() {
        let odd = read("yes", "arm64,ARM");
        assert_eq!((odd.skip, &odd.preferred, odd.invalid.len()), (None, &None, 2));
        assert_eq!(odd.warnings().count(), 2);
        assert_eq!(read("-", &["arm64"; 17].join(",")).invalid, [PREFERRED]);
    }
}
