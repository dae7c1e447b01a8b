//! The bounds that the LimitRanges of a namespace set (the admission plugin `LimitRanger` of
//! k8s.io/kubernetes/plugin/pkg/admission/limitranger).

use podshaper_core::object::{FromObject, Object};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::resource::{PerResource, RequestAndLimit, SizedResource};

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
    /// The maximum of the limit divided by the request, in thousandths.
    pub max_ratio: Option<i64>,
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
                let ratio = item.get("maxLimitRequestRatio").and_then(|ratios| ratios.get(resource.name()));
                // A ratio counts in thousandths, as cpu does.
                let max_ratio = ratio.and_then(|ratio| SizedResource::Cpu.parse_json(ratio).ok());
                bounds.get_mut(resource).tighten(Bounds { min: parse("min"), max, max_ratio, default });
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
            max_ratio: smaller(self.max_ratio, other.max_ratio),
            default: smaller(self.default, other.default),
        };
    }

    /// `amount` within the bounds of a request. Of a `max` below `min`, which no pod satisfies, `max` applies.
    pub fn clamp(self, amount: i64) -> i64 {
        // A ratio needs a request other than zero.
        let min = self.min.max(self.max_ratio.map(|_| 1));
        let raised = min.map_or(amount, |min| amount.max(min));
        self.max.map_or(raised, |max| raised.min(max))
    }

    /// Whether a container or pod without a limit violates the bounds.
    pub fn requires_limit(self) -> bool {
        self.max.is_some() || self.max_ratio.is_some()
    }

    /// The largest limit for `request`; `None` if there is no largest one.
    pub fn largest_limit(self, request: i64) -> Option<i64> {
        let in_ratio = self.max_ratio.map(|ratio| largest_in_ratio(request, ratio));
        self.max.into_iter().chain(in_ratio).min()
    }

    /// Whether LimitRanger admits these amounts of a container, or of a pod in total (`minConstraint`, `maxConstraint` and
    /// `limitRequestRatioConstraint`).
    pub fn admits(self, RequestAndLimit { request, limit }: RequestAndLimit) -> bool {
        let above_min = |min| request.is_some_and(|it| it >= min) && limit.is_none_or(|it| it >= min);
        let below_max = |max| limit.is_some_and(|it| it <= max) && request.is_none_or(|it| it <= max);
        let in_ratio =
            |ratio| request.zip(limit).is_some_and(|(request, limit)| is_in_ratio(request, limit, ratio));
        self.min.is_none_or(above_min)
            && self.max.is_none_or(below_max)
            && self.max_ratio.is_none_or(in_ratio)
    }
}

/// Whether `limit` is at most `request` × `ratio` / 1000. LimitRanger divides floating-point numbers, of the amounts or of a thousand
/// times the amounts. The exact comparison and both divisions must agree.
#[expect(clippy::cast_precision_loss, reason = "LimitRanger rounds in the same way")]
fn is_in_ratio(request: i64, limit: i64, ratio: i64) -> bool {
    let divided = |factor: i64| {
        let request = request.saturating_mul(factor);
        let limit = limit.saturating_mul(factor);
        limit as f64 / request as f64 * 1000.0 <= ratio as f64
    };
    let exact = i128::from(limit) * 1000 <= i128::from(request) * i128::from(ratio);
    request > 0 && limit > 0 && exact && divided(1) && divided(1000)
}

fn largest_in_ratio(request: i64, ratio: i64) -> i64 {
    let product = i128::from(request.max(0)) * i128::from(ratio.max(0)) / 1000;
    let exact = i64::try_from(product).unwrap_or(i64::MAX);
    // The rounding of a division is less than one part in 2^50.
    let lower = [exact, exact - 1, exact - (exact >> 50) - 1];
    lower.into_iter().find(|limit| is_in_ratio(request, *limit, ratio)).unwrap_or(exact)
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
            Bounds { min: Some(10), max: Some(1000), max_ratio: None, default: Some(1000) }
        );
        assert_eq!(both.container.get(SizedResource::Memory).default, Some(1024));
        assert_eq!(both.pod, PerResource::default());
        assert_eq!(
            [5, 500, 5000].map(|amount| both.container.get(SizedResource::Cpu).clamp(amount)),
            [10, 500, 1000]
        );
    }

    #[test]
    fn ratio_is_of_limit_to_request() {
        let item = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "1.1", "memory": 4}});
        let range = LimitRange::from_spec(&json!({"limits": [item]}));
        let cpu = *range.container.get(SizedResource::Cpu);
        let amounts = |request, limit| RequestAndLimit { request, limit };
        assert!(cpu.admits(amounts(Some(100), Some(110))));
        for refused in [(Some(100), Some(111)), (Some(100), None), (None, Some(1)), (Some(0), Some(0))] {
            assert!(!cpu.admits(amounts(refused.0, refused.1)), "{refused:?}");
        }
        assert_eq!(cpu.clamp(0), 1);
        assert_eq!(range.container.get(SizedResource::Memory).largest_limit(1 << 30), Some(4 << 30));
        assert_eq!(Bounds { max: Some(7), ..cpu }.largest_limit(100), Some(7));
        for request in [1, 7, 96, 1 << 30, (1 << 53) + 1, i64::MAX / 3] {
            let limit = cpu.largest_limit(request).unwrap();
            assert!(cpu.admits(amounts(Some(request), Some(limit))), "{request}");
            assert!(!cpu.admits(amounts(Some(request), Some(limit + limit / 1000 + 1))), "{request}");
        }
    }
}
