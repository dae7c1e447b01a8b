//! What operators see: logs and metrics.

mod logs;
mod metrics;
mod page;

pub use logs::{LogArgs, LogFormat};
pub use metrics::{AdmissionMetrics, Metrics, Refusal};
pub use page::MetricsPage;
