//! The limit that goes with a request.

use crate::limit_range::Bounds;
use crate::resource::RequestAndLimit;
use crate::template::LimitPolicy;

/// The limit for `request`, never below it. `None` for no limit.
///
/// LimitRanger fills in a missing limit with its default, which may be below the request. So the default is set here, raised
/// to the request.
pub(super) fn limit(
    policy: LimitPolicy,
    request: i64,
    original: RequestAndLimit,
    bounds: Bounds,
) -> Option<i64> {
    let limit = match policy {
        // To the kubelet a limit of zero is no limit.
        LimitPolicy::Equal => Some(request).filter(|request| *request > 0),
        LimitPolicy::None => None,
        LimitPolicy::Keep => original.limit,
        LimitPolicy::Ratio => {
            original.limit.map(|limit| in_ratio(request, limit, original.request.unwrap_or(limit)))
        }
    };
    let limit = limit.or(bounds.default)?;
    Some(bounds.max.map_or(limit, |max| limit.min(max)).max(request))
}

/// `request` × `limit` / `original_request`, rounded up; `limit` if the original request was zero.
fn in_ratio(request: i64, limit: i64, original_request: i64) -> i64 {
    if original_request <= 0 {
        return limit;
    }
    let product = i128::from(request) * i128::from(limit);
    let divisor = i128::from(original_request);
    i64::try_from(product / divisor + i128::from(product % divisor != 0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_follows_policy_and_bounds() {
        let original = RequestAndLimit { request: Some(200), limit: Some(300) };
        let empty = RequestAndLimit::default();
        let unbounded = Bounds::default();
        let default = Bounds { default: Some(50), max: Some(400), ..unbounded };
        for (policy, request, original, bounds, expected) in [
            (LimitPolicy::Equal, 100, original, unbounded, Some(100)),
            (LimitPolicy::Equal, 0, original, unbounded, None),
            (LimitPolicy::None, 100, original, unbounded, None),
            (LimitPolicy::None, 100, original, default, Some(100)),
            (LimitPolicy::None, 10, original, default, Some(50)),
            (LimitPolicy::Keep, 100, original, unbounded, Some(300)),
            (LimitPolicy::Keep, 500, original, unbounded, Some(500)),
            (LimitPolicy::Keep, 500, empty, unbounded, None),
            (LimitPolicy::Ratio, 101, original, unbounded, Some(152)),
            (LimitPolicy::Ratio, 300, original, default, Some(400)),
            (LimitPolicy::Ratio, 100, empty, unbounded, None),
            (
                LimitPolicy::Ratio,
                100,
                RequestAndLimit { request: Some(0), limit: Some(7) },
                unbounded,
                Some(100),
            ),
            (LimitPolicy::Ratio, i64::MAX, original, unbounded, Some(i64::MAX)),
        ] {
            assert_eq!(
                limit(policy, request, original, bounds),
                expected,
                "{policy:?} {request} {original:?} {bounds:?}"
            );
        }
    }
}
