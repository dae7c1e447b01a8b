//! Sharing out a whole number.

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

    proptest! {
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
