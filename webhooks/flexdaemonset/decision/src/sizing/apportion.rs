//! Sharing out a whole number.

use crate::range::Bounds;

/// Shares of `total` in proportion to `weights`, which sum exactly to it: floors, and then one more to those with the
/// largest remainders (Hamilton's method), the first of equals first. Equal shares if all weights are zero.
pub(super) fn apportion(total: i64, weights: &[u64]) -> Vec<i64> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if sum == 0 && !weights.is_empty() {
        return apportion(total, &vec![1; weights.len()]);
    }
    let total = u128::from(total.max(0).unsigned_abs());
    let mut shares: Vec<u128> = Vec::with_capacity(weights.len());
    let mut remainders: Vec<(u128, usize)> = Vec::with_capacity(weights.len());
    for (index, weight) in weights.iter().enumerate() {
        // 63 bits times 64 bits.
        let product = total * u128::from(*weight);
        shares.push(product / sum);
        remainders.push((product % sum, index));
    }
    let left = total - shares.iter().sum::<u128>();
    remainders.sort_by(|(a, i), (b, j)| b.cmp(a).then(i.cmp(j)));
    for (_, index) in remainders.into_iter().take(usize::try_from(left).unwrap_or(0)) {
        if let Some(share) = shares.get_mut(index) {
            *share += 1;
        }
    }
    // None is more than the total.
    shares.into_iter().map(|share| i64::try_from(share).unwrap_or(i64::MAX)).collect()
}

/// `amounts` within `bounds`, and of the same sum as far as that can be: what one may not have, the others get in
/// proportion to their amounts, and what one must have more, they give.
///
/// As flexible lengths are resolved (CSS Flexible Box Layout §9.7): in each round those settle that are out of bounds on
/// the side that weighs more, because what they give or take could bring the others back.
pub(super) fn settle(amounts: &[i64], bounds: Bounds) -> Vec<i64> {
    let mut settled: Vec<Option<i64>> = vec![None; amounts.len()];
    let mut left: i64 = amounts.iter().fold(0, |sum, amount| sum.saturating_add(*amount));
    loop {
        let open = settled.iter_mut().zip(amounts).filter(|(settled, _)| settled.is_none());
        let (open, weights): (Vec<_>, Vec<_>) =
            open.map(|(settled, amount)| (settled, amount.max(&0).unsigned_abs())).unzip();
        let shares = apportion(left, &weights);
        let off = |share: i64| i128::from(bounds.clamp(share)) - i128::from(share);
        let tips: i128 = shares.iter().map(|share| off(*share)).sum();
        for (settled, share) in open.into_iter().zip(shares) {
            if tips == 0 || off(share).signum() == tips.signum() {
                let amount = bounds.clamp(share);
                *settled = Some(amount);
                left = left.saturating_sub(amount);
            }
        }
        if tips == 0 {
            return settled.into_iter().flatten().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_remainder_first() {
        assert_eq!(apportion(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(apportion(10, &[1, 2, 4]), [1, 3, 6]);
        assert_eq!(apportion(2, &[0, 0, 0]), [1, 1, 0]);
        assert_eq!(apportion(7, &[0, 3]), [0, 7]);
        assert_eq!(apportion(7, &[]), [0_i64; 0]);
        assert_eq!(apportion(i64::MAX, &[u64::MAX, u64::MAX]), [i64::MAX / 2 + 1, i64::MAX / 2]);
    }

    #[test]
    fn what_one_may_not_have_the_others_get() {
        let bounds = |min, max| Bounds { min, max, default: None };
        for (amounts, bounds, settled) in [
            (vec![600, 100, 300], bounds(None, None), vec![600, 100, 300]),
            (vec![600, 100, 300], bounds(None, Some(400)), vec![400, 200, 400]),
            (vec![600, 100, 300], bounds(Some(160), Some(400)), vec![400, 200, 400]),
            (vec![600, 100, 300], bounds(Some(250), None), vec![500, 250, 250]),
            (vec![600, 100, 300], bounds(None, Some(200)), vec![200, 200, 200]),
            (vec![600, 100, 300], bounds(Some(500), None), vec![500, 500, 500]),
            (vec![10, 0, 0], bounds(None, Some(4)), vec![4, 3, 3]),
            (vec![], bounds(Some(1), None), vec![]),
        ] {
            assert_eq!(settle(&amounts, bounds), settled, "{amounts:?} {bounds:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_settled_sums_to_the_total_where_it_can(
            amounts in prop::collection::vec(prop_oneof![0..1_i64 << 56, 0..100_i64], 0..20),
            min in prop::option::of(prop_oneof![0..1_i64 << 58, 0..100_i64]),
            more in prop::option::of(prop_oneof![0..1_i64 << 58, 0..100_i64]),
        ) {
            let bounds = Bounds { min, max: more.map(|more| min.unwrap_or(0) + more), default: None };
            let settled = settle(&amounts, bounds);
            prop_assert_eq!(settled.len(), amounts.len());
            prop_assert!(settled.iter().all(|amount| bounds.clamp(*amount) == *amount));
            let count = i128::try_from(amounts.len()).unwrap();
            let sum = |amounts: &[i64]| amounts.iter().map(|amount| i128::from(*amount)).sum::<i128>();
            let least = i128::from(bounds.min.unwrap_or(0)) * count;
            let most = bounds.max.map_or(i128::MAX, |max| i128::from(max) * count);
            prop_assert_eq!(sum(&settled), sum(&amounts).max(least).min(most));
        }

        #[test]
        fn shares_sum_to_the_total_and_miss_their_quota_by_less_than_one(
            total in 0..=i64::MAX,
            weights in prop::collection::vec(prop_oneof![any::<u64>(), 0..10_u64], 1..20),
        ) {
            let shares = apportion(total, &weights);
            prop_assert_eq!(shares.iter().map(|s| i128::from(*s)).sum::<i128>(), i128::from(total));
            let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
            for (share, weight) in shares.iter().zip(&weights) {
                let quota = (u128::from(total.unsigned_abs()) * u128::from(*weight)).checked_div(sum);
                prop_assert!(quota.is_none_or(|quota| u128::from(share.unsigned_abs()).abs_diff(quota) <= 1));
            }
        }
    }
}
