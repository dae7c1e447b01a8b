//! The servers of a webhook: HTTPS for admission reviews, and HTTP for probes and metrics.
//!
//! ```text
//! webhook_server ─▶ connection (TLS, HTTP/1.1 or h2, timeouts) ─▶ endpoint (limits, deadline) ─▶ admission::answer
//! ```
#![forbid(unsafe_code)]

pub mod admin;
mod connection;
mod connection_pool;
mod drain;
mod endpoint;
mod limits;
mod listen;
mod logs;
mod memory;
mod metrics;
mod metrics_page;
mod open_files;
mod process_metrics;
mod response;
mod webhook_server;

pub use connection_pool::ConnectionPool;
pub use limits::Limits;
pub use listen::{ListenAddress, ListenAddressError};
pub use logs::{LogArgs, LogFormat};
pub use metrics::ServerMetrics;
pub use metrics_page::MetricsPage;
pub use webhook_server::WebhookServer;
