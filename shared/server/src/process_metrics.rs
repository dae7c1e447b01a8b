//! Metrics of the process, by the names that Prometheus' client libraries share. They are read from procfs at each scrape.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// Ticks in a second (`USER_HZ`), which Linux fixes for procfs.
const TICKS_PER_SECOND: f64 = 100.0;

/// A registry without the prefix of the webhooks, because the names are a convention.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessCollector));
    registry
}

#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stat = Stat::read();
        if let Some(seconds) = stat.as_ref().and_then(Stat::cpu_seconds) {
            let help = "User and system CPU time of the process.";
            let metric =
                encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        let gauges = [
            ("process_resident_memory", "Resident memory.", Some(Unit::Bytes), status_bytes("VmRSS:")),
            ("process_virtual_memory", "Virtual memory.", Some(Unit::Bytes), status_bytes("VmSize:")),
            ("process_open_fds", "Open file descriptors.", None, open_files()),
            ("process_max_fds", "The most file descriptors that may be open.", None, max_open_files()),
            (
                "process_start_time",
                "Start of the process, in Unix seconds.",
                Some(Unit::Seconds),
                stat.as_ref().and_then(Stat::start_time),
            ),
        ];
        for (name, help, unit, value) in gauges {
            if let Some(value) = value {
                let metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
                ConstGauge::new(value).encode(metric)?;
            }
        }
        Ok(())
    }
}

/// The fields of `/proc/self/stat` after the name of the program, which may contain spaces.
struct Stat(String);

impl Stat {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        Some(Self(stat.rsplit_once(')')?.1.to_owned()))
    }

    /// The field with this number in `proc_pid_stat(5)`. The first one here has the number 3.
    fn field(&self, number: usize) -> Option<f64> {
        self.0.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
    }

    fn cpu_seconds(&self) -> Option<f64> {
        Some((self.field(14)? + self.field(15)?) / TICKS_PER_SECOND)
    }

    fn start_time(&self) -> Option<f64> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(boot + self.field(22)? / TICKS_PER_SECOND)
    }
}

/// A line of `/proc/self/status` in kB.
fn status_bytes(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn open_files() -> Option<f64> {
    let files = fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(files).ok().map(f64::from)
}

fn max_open_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_value() {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry()).unwrap();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("{name}\n{text}"));
            let value: f64 = value.trim().parse().unwrap();
            assert!(value > 0.0 || name == "process_cpu_seconds_total", "{name} {value}");
        }
        let start = Stat::read().unwrap().start_time().unwrap();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!((now - 3600.0..now + 60.0).contains(&start), "{start} {now}");
    }
}
