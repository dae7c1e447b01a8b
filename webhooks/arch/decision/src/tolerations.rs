//! Taints, and who tolerates them.

use podshaper_core::json::{Text, bounded_list};
use podshaper_core::pod::Pod;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::table::Taint;

/// More than any pod has: each takes much more memory than the `{}` that it may be read from.
const MAX_TOLERATIONS: usize = 1024;

/// `v1.Toleration`.
#[derive(Debug, Default, Deserialize)]
struct Toleration<'a> {
    #[serde(borrow, default)]
    key: Text<'a>,
    #[serde(borrow, default)]
    operator: Text<'a>,
    #[serde(borrow, default)]
    value: Text<'a>,
    #[serde(borrow, default)]
    effect: Text<'a>,
}

impl Toleration<'_> {
    /// `ToleratesTaint` of k8s.io/api, without the operators that compare numbers: those never say the name of an architecture.
    fn tolerates(&self, taint: &Taint) -> bool {
        let effect = self.effect.is_empty() || *self.effect == *taint.effect;
        let key = self.key.is_empty() || *self.key == *taint.key;
        let value = match &*self.operator {
            "" | "Equal" => *self.value == *taint.value,
            operator => operator == "Exists",
        };
        effect && key && value
    }
}

/// `spec.tolerations`.
#[derive(Deserialize)]
struct List<'a>(
    #[serde(borrow, deserialize_with = "bounded_list::<_, _, MAX_TOLERATIONS>")] Option<Vec<Toleration<'a>>>,
);

/// The tolerations of a pod.
#[derive(Debug, Default)]
pub(crate) struct Tolerations<'a>(Vec<Toleration<'a>>);

impl<'a> Tolerations<'a> {
    /// Those of `pod`; what can't be read tolerates nothing: the API server refuses it, or no pod has so many.
    pub(crate) fn of(pod: &Pod<'a>) -> Self {
        let raw = pod.spec.as_ref().and_then(|spec| spec.tolerations);
        let own: Option<List<'_>> = raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
        Self(own.and_then(|List(own)| own).unwrap_or_default())
    }

    /// Whether the pod may run where this taint is.
    pub(crate) fn tolerate(&self, taint: &Taint) -> bool {
        self.0.iter().any(|own| own.tolerates(taint))
    }
}

/// The `v1.Toleration` of exactly this taint, as the API server writes it.
pub(crate) fn toleration(taint: &Taint) -> Value {
    let mut toleration = Map::new();
    let mut set = |member: &str, text: &str| {
        if !text.is_empty() {
            toleration.insert(member.to_owned(), text.into());
        }
    };
    set("key", &taint.key);
    set("operator", "Equal");
    set("value", &taint.value);
    set("effect", &taint.effect);
    Value::Object(toleration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_match_taints() {
        let taint = Taint { key: "arch".into(), value: "arm64".into(), effect: "NoSchedule".into() };
        for (tolerations, tolerates) in [
            ("null", false),
            (r#"[{"key":"arch","value":"arm64"}]"#, true),
            (r#"[{"key":"arch","operator":"Exists","effect":"NoSchedule"}]"#, true),
            (r#"[{"operator":"Exists"}]"#, true),
            (r#"[{"key":"arch","operator":"Equal","value":"s390x"}]"#, false),
            (r#"[{"key":"arch","operator":"Exists","effect":"NoExecute"}]"#, false),
            (r#"[{"key":"arch","operator":"Gt","value":"1"}]"#, false),
            (r#"{"key":"arch"}"#, false),
        ] {
            let pod = format!(r#"{{"spec":{{"tolerations":{tolerations}}}}}"#);
            let pod: Pod = serde_json::from_str(&pod).unwrap();
            assert_eq!(Tolerations::of(&pod).tolerate(&taint), tolerates, "{tolerations}");
        }
        let many = |count| {
            let own = vec![r#"{"operator":"Exists"}"#; count].join(",");
            let pod = format!(r#"{{"spec":{{"tolerations":[{own}]}}}}"#);
            Tolerations::of(&serde_json::from_str(&pod).unwrap()).tolerate(&taint)
        };
        assert!(many(MAX_TOLERATIONS) && !many(MAX_TOLERATIONS + 1));
        let mut bare = taint.clone();
        bare.value.clear();
        assert_eq!(
            toleration(&bare).to_string(),
            r#"{"key":"arch","operator":"Equal","effect":"NoSchedule"}"#
        );
    }
}
