//! The bounds that the LimitRanges of a namespace set.

use podshaper_core::object::{FromObject, Object};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::resource::{PerResource, SizedResource};

/// `v1.LimitRange`, or all of a namespace as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitRange {
    /// Items of type `Container`.
    pub container: PerResource<Bounds>,
    /// Items of type `Pod`.
    pub pod: PerResource<Bounds>,
}

/// Bounds of one resource, in millicores or bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The minimum of the request.
    pub min: Option<i64>,
    /// The maximum of the limit, and so of the request.
    pub max: Option<i64>,
    /// The limit that LimitRanger sets if there is none. The API server defaults it to `max`.
    pub default: Option<i64>,
}

impl LimitRange {
    fn from_spec(spec: &Value) -> Self {
        let mut range = Self::default();
        for item in spec.get("limits").and_then(Value::as_array).into_iter().flatten() {
            let bounds = match item.get("type").and_then(Value::as_str) {
                Some("Container") => &mut range.container,
                Some("Pod") => &mut range.pod,
                _ => continue,
            };
            for resource in SizedResource::ALL {
                let parse = |field: &str| resource.parse_json(item.get(field)?.get(resource.name())?).ok();
                let max = parse("max");
                let default = parse("default").or(max);
                bounds.get_mut(resource).tighten(Bounds { min: parse("min"), max, default });
            }
        }
        range
    }

    /// Both as one: the tighter bounds apply.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for resource in SizedResource::ALL {
            self.container.get_mut(resource).tighten(*other.container.get(resource));
            self.pod.get_mut(resource).tighten(*other.pod.get(resource));
        }
        self
    }
}

impl FromObject for LimitRange {
    type Spec = Value;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "limitranges";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<Value, IgnoredAny>) -> Option<Self> {
        Some(Self::from_spec(&object.spec.unwrap_or_default()))
    }
}

impl Bounds {
    fn tighten(&mut self, other: Self) {
        let smaller = |a: Option<i64>, b: Option<i64>| a.into_iter().chain(b).min();
        *self = Self {
            min: self.min.max(other.min),
            max: smaller(self.max, other.max),
            default: smaller(self.default, other.default),
        };
    }

    /// `amount` within the bounds. Of a `max` below `min`, which no pod satisfies, `max` applies.
    pub fn clamp(self, amount: i64) -> i64 {
        let raised = self.min.map_or(amount, |min| amount.max(min));
        self.max.map_or(raised, |max| raised.min(max))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tighter_bound_applies() {
        let range = |max: &str, min: &str| {
            LimitRange::from_spec(&json!({"limits": [
                {"type": "Container", "max": {"cpu": max}, "min": {"cpu": min}, "default": {"memory": 1024}},
                {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
            ]}))
        };
        let both = range("2", "10m").and(&range("1", "5m"));
        assert_eq!(
            *both.container.get(SizedResource::Cpu),
            Bounds { min: Some(10), max: Some(1000), default: Some(1000) }
        );
        assert_eq!(both.container.get(SizedResource::Memory).default, Some(1024));
        assert_eq!(both.pod, PerResource::default());
        assert_eq!(
            [5, 500, 5000].map(|amount| both.container.get(SizedResource::Cpu).clamp(amount)),
            [10, 500, 1000]
        );
    }
}
