//! Exact shares, computed in another way than by the sequence.

use crate::policy::{Group, Policy};

/// The exact share of each group when `pods` pods are placed: bases first, then each vessel filled until it is full.
pub(crate) fn exact_shares(policy: &Policy, pods: u32) -> Vec<f64> {
    let groups = policy.groups();
    let mut left = f64::from(pods);
    let base = |group: &Group| {
        let share = left.min(f64::from(group.base));
        left -= share;
        share
    };
    let mut shares: Vec<f64> = groups.iter().map(base).collect();
    let mut open: Vec<usize> = (0..groups.len()).filter(|i| groups[*i].weight > 0).collect();
    while left > 1e-9 && !open.is_empty() {
        let width: f64 = open.iter().map(|i| f64::from(groups[*i].weight)).sum();
        let room = |i: &usize| groups[*i].max.map_or(f64::INFINITY, f64::from) - shares[*i];
        let rise = open.iter().map(|i| room(i) / f64::from(groups[*i].weight)).fold(left / width, f64::min);
        left -= rise * width;
        for i in &open {
            shares[*i] += rise * f64::from(groups[*i].weight);
        }
        let shares = &shares;
        open.retain(|i| groups[*i].max.is_none_or(|max| f64::from(max) - shares[*i] > 1e-6));
    }
    shares
}
