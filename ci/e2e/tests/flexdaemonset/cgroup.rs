//! The cgroup of a pod, and quantities as the kernel counts them.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A quantity in thousandths.
pub(super) fn amount(quantity: &Value) -> i64 {
    let quantity: podshaper_core::quantity::Quantity =
        quantity.as_str().expect("a quantity").parse().unwrap();
    quantity.milli_value().unwrap()
}

/// The first of these files in the cgroup of the pod's first container, in any hierarchy.
pub(super) fn cgroup_file(pod: &Value, names: &[&str]) -> Option<String> {
    let uid = pod["metadata"]["uid"].as_str()?;
    let container = pod["status"]["containerStatuses"][0]["containerID"].as_str()?.rsplit('/').next()?;
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).ok()?.flatten() {
            let path = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let text = path.to_string_lossy();
            let of_pod = text.contains(uid) || text.contains(&uid.replace('-', "_"));
            if of_pod
                && text.contains(container)
                && let Some(found) =
                    names.iter().find_map(|name| std::fs::read_to_string(path.join(name)).ok())
            {
                return Some(found.trim().to_owned());
            }
            if path.parent() != Some(Path::new("/sys/fs/cgroup")) || !text.ends_with("cpuset") {
                folders.push(path);
            }
        }
    }
    None
}

/// Microseconds of CPU time per 100 ms (`cpu.cfs_quota_us`, or the first word of `cpu.max`).
pub(super) fn cpu_quota(pod: &Value) -> Option<i64> {
    cgroup_file(pod, &["cpu.max", "cpu.cfs_quota_us"])?.split_whitespace().next()?.parse().ok()
}

pub(super) fn memory_limit(pod: &Value) -> Option<i64> {
    cgroup_file(pod, &["memory.max", "memory.limit_in_bytes"])?.parse().ok()
}
