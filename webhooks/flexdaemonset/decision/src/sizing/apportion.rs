//! Sharing out a whole number.

use crate::limit_range::Bounds;

/// Shares of `total` in proportion to `weights`, with exactly that sum. Hamilton's method: quotas are rounded down, and
/// those with the largest remainders get one more; of equal remainders the first. If all weights are zero, they are
/// equal.
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
    // No share exceeds the total.
    shares.into_iter().map(|share| i64::try_from(share).unwrap_or(i64::MAX)).collect()
}

/// Each of `amounts` within its `bounds`, with the same sum if the bounds allow it. The others get the excess over the maximum in
/// proportion to their amounts, and give the deficit below the minimum.
///
/// The algorithm resolves flexible lengths in CSS (Flexible Box Layout §9.7). Each round fixes the amounts that violate
/// the bound with the larger total violation: they change what is left for the others, which may end other violations.
pub(super) fn clamp_keeping_sum(amounts: &[i64], bounds: &[Bounds]) -> Vec<i64> {
    let mut fixed: Vec<Option<i64>> = vec![None; amounts.len()];
    let mut left: i64 = amounts.iter().fold(0, |sum, amount| sum.saturating_add(*amount));
    loop {
        let open = fixed.iter_mut().zip(amounts).zip(bounds).filter(|((fixed, _), _)| fixed.is_none());
        let (open, weights): (Vec<_>, Vec<_>) =
            open.map(|((fixed, amount), bounds)| ((fixed, bounds), amount.max(&0).unsigned_abs())).unzip();
        let shares = apportion(left, &weights);
        let violation = |bounds: &Bounds, share: i64| i128::from(bounds.clamp(share)) - i128::from(share);
        let total_violation: i128 =
            open.iter().zip(&shares).map(|((_, bounds), share)| violation(bounds, *share)).sum();
        for ((fixed, bounds), share) in open.into_iter().zip(shares) {
            if total_violation == 0 || violation(bounds, share).signum() == total_violation.signum() {
                let amount = bounds.clamp(share);
                *fixed = Some(amount);
                left = left.saturating_sub(amount);
            }
        }
        if total_violation == 0 {
            return fixed.into_iter().flatten().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn apportion_rounds_up_largest_remainders() {
        assert_eq!(apportion(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(apportion(10, &[1, 2, 4]), [1, 3, 6]);
        assert_eq!(apportion(2, &[0, 0, 0]), [1, 1, 0]);
        assert_eq!(apportion(7, &[0, 3]), [0, 7]);
        assert_eq!(apportion(7, &[]), [0_i64; 0]);
        assert_eq!(apportion(i64::MAX, &[u64::MAX, u64::MAX]), [i64::MAX / 2 + 1, i64::MAX / 2]);
    }

    #[test]
    fn clamp_keeping_sum_moves_excess_to_others() {
        let bounds = |min, max| Bounds { min, max, ..Bounds::default() };
        for (amounts, bounds, expected) in [
            (vec![600, 100, 300], bounds(None, None), vec![600, 100, 300]),
            (vec![600, 100, 300], bounds(None, Some(400)), vec![400, 200, 400]),
            (vec![600, 100, 300], bounds(Some(160), Some(400)), vec![400, 200, 400]),
            (vec![600, 100, 300], bounds(Some(250), None), vec![500, 250, 250]),
            (vec![600, 100, 300], bounds(None, Some(200)), vec![200, 200, 200]),
            (vec![600, 100, 300], bounds(Some(500), None), vec![500, 500, 500]),
            (vec![10, 0, 0], bounds(None, Some(4)), vec![4, 3, 3]),
            (vec![], bounds(Some(1), None), vec![]),
        ] {
            let all = vec![bounds; amounts.len()];
            assert_eq!(clamp_keeping_sum(&amounts, &all), expected, "{amounts:?} {bounds:?}");
        }
        let floors = [0, 250, 0].map(|min| bounds(Some(min), None));
        assert_eq!(clamp_keeping_sum(&[600, 100, 300], &floors), [500, 250, 250]);
    }

    proptest! {
        #[test]
        fn clamp_keeping_sum_keeps_sum_within_bounds(
            amounts in prop::collection::vec(prop_oneof![0..1_i64 << 56, 0..100_i64], 0..20),
            min in prop::option::of(prop_oneof![0..1_i64 << 58, 0..100_i64]),
            more in prop::option::of(prop_oneof![0..1_i64 << 58, 0..100_i64]),
        ) {
            let max = more.map(|more| min.unwrap_or(0) + more);
            let bounds = Bounds { min, max, ..Bounds::default() };
            let clamped = clamp_keeping_sum(&amounts, &vec![bounds; amounts.len()]);
            prop_assert_eq!(clamped.len(), amounts.len());
            prop_assert!(clamped.iter().all(|amount| bounds.clamp(*amount) == *amount));
            let count = i128::try_from(amounts.len()).unwrap();
            let sum = |amounts: &[i64]| amounts.iter().map(|amount| i128::from(*amount)).sum::<i128>();
            let least = i128::from(bounds.min.unwrap_or(0)) * count;
            let most = bounds.max.map_or(i128::MAX, |max| i128::from(max) * count);
            prop_assert_eq!(sum(&clamped), sum(&amounts).max(least).min(most));
        }

        #[test]
        fn apportion_sums_to_total_within_one_of_quota(
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
