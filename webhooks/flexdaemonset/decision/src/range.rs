//! What the LimitRanges of a namespace demand of its pods.

use podshaper_core::object::{FromObject, Object};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::resource::{PerResource, SizedResource};

/// The bounds of a namespace's LimitRanges (`v1.LimitRange`), taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Items of type `Container`.
    pub container: PerResource<Bounds>,
    /// Items of type `Pod`.
    pub pod: PerResource<Bounds>,
}

/// Bounds of one resource, in millicores or bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The least that must be requested.
    pub min: Option<i64>,
    /// The most that the limit, and so the request, may be.
    pub max: Option<i64>,
    /// The limit that is filled in where there is none (the API server lets it default to `max`).
    pub default: Option<i64>,
}

impl Range {
    /// Reads the `spec` of a LimitRange; what can't be read bounds nothing.
    pub fn from_spec(spec: &Value) -> Self {
        let mut range = Self::default();
        for item in spec.get("limits").and_then(Value::as_array).into_iter().flatten() {
            let bounds = match item.get("type").and_then(Value::as_str) {
                Some("Container") => &mut range.container,
                Some("Pod") => &mut range.pod,
                _ => continue,
            };
            let read = |field: &str, resource: SizedResource| {
                resource.parse_json(item.get(field)?.get(resource.name())?).ok()
            };
            for resource in SizedResource::ALL {
                let [min, max, default] = ["min", "max", "default"].map(|field| read(field, resource));
                bounds.get_mut(resource).meet(Bounds { min, max, default: default.or(max) });
            }
        }
        range
    }

    /// Both together: the tighter bound counts.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for resource in SizedResource::ALL {
            self.container.get_mut(resource).meet(*other.container.get(resource));
            self.pod.get_mut(resource).meet(*other.pod.get(resource));
        }
        self
    }
}

impl FromObject for Range {
    type Spec = Value;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "limitranges";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<Value, IgnoredAny>) -> Option<Self> {
        Some(Self::from_spec(&object.spec.unwrap_or_default()))
    }
}

impl Bounds {
    fn meet(&mut self, other: Self) {
        let smaller = |a: Option<i64>, b: Option<i64>| a.into_iter().chain(b).min();
        *self = Self {
            min: self.min.max(other.min),
            max: smaller(self.max, other.max),
            default: smaller(self.default, other.default),
        };
    }

    /// `amount` within the bounds; a `max` below `min` wins, because no pod can satisfy both.
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
    fn the_tighter_bound_counts() {
        let range = |max: &str, min: &str| {
            Range::from_spec(&json!({"limits": [
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
