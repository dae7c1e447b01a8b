//! The limit that goes with a request.

use crate::range::Bounds;
use crate::template::LimitPolicy;

use super::member::Ask;

/// The limit beside `request`, by `policy` and by what the author asked for; never below the request.
///
/// Where a LimitRange fills limits in, there is always one: what it would fill in could be below the request.
pub(super) fn limit(policy: LimitPolicy, request: i64, own: Ask, bounds: Bounds) -> Option<i64> {
    let limit = match policy {
        // A limit of zero would mean none.
        LimitPolicy::Equal => Some(request).filter(|request| *request > 0),
        LimitPolicy::None => None,
        LimitPolicy::Keep => own.limit,
        LimitPolicy::Ratio => {
            own.limit.map(|limit| in_proportion(request, own.request.unwrap_or(limit), limit))
        }
    };
    let limit = limit.or(bounds.default)?;
    Some(bounds.max.map_or(limit, |max| limit.min(max)).max(request))
}

/// request × limit / `per`, rounded up; the limit itself where the author's request was nothing.
fn in_proportion(request: i64, per: i64, limit: i64) -> i64 {
    if per <= 0 {
        return limit;
    }
    let product = i128::from(request) * i128::from(limit);
    let per = i128::from(per);
    i64::try_from(product / per + i128::from(product % per != 0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let own = Ask { request: Some(200), limit: Some(300) };
        let none = Ask::default();
        let free = Bounds::default();
        let default = Bounds { default: Some(50), max: Some(400), ..free };
        for (policy, request, own, bounds, expected) in [
            (LimitPolicy::Equal, 100, own, free, Some(100)),
            (LimitPolicy::Equal, 0, own, free, None),
            (LimitPolicy::None, 100, own, free, None),
            (LimitPolicy::None, 100, own, default, Some(100)),
            (LimitPolicy::None, 10, own, default, Some(50)),
            (LimitPolicy::Keep, 100, own, free, Some(300)),
            (LimitPolicy::Keep, 500, own, free, Some(500)),
            (LimitPolicy::Keep, 500, none, free, None),
            (LimitPolicy::Ratio, 101, own, free, Some(152)),
            (LimitPolicy::Ratio, 300, own, default, Some(400)),
            (LimitPolicy::Ratio, 100, none, free, None),
            (LimitPolicy::Ratio, 100, Ask { request: Some(0), limit: Some(7) }, free, Some(100)),
            (LimitPolicy::Ratio, i64::MAX, own, free, Some(i64::MAX)),
        ] {
            assert_eq!(
                limit(policy, request, own, bounds),
                expected,
                "{policy:?} {request} {own:?} {bounds:?}"
            );
        }
    }
}
