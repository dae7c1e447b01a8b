//! The limits of the webhook server.

use std::time::Duration;

use clap::Args;
use podshaper_core::duration;

/// The limits of one server. The defaults fit a pod with 128 MiB of memory.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Maximum number of requests in flight; further requests get 429 with Retry-After: 1, and the API server retries
    #[arg(long, env = "PODSHAPER_MAX_IN_FLIGHT", value_name = "N", default_value_t = 1024)]
    pub max_in_flight: usize,
    /// Maximum number of open connections; a further one replaces the oldest idle one that has never carried a review
    #[arg(long, env = "PODSHAPER_MAX_CONNECTIONS", value_name = "N", default_value_t = 2048)]
    pub max_connections: usize,
    /// Maximum size of a request; a pod near the API server's limit of 3 MiB can take 18 MiB as JSON
    #[arg(long, env = "PODSHAPER_MAX_BODY_BYTES", value_name = "BYTES", default_value_t = 20 << 20)]
    pub max_body_bytes: usize,
    /// Maximum size of all requests and answers in memory; further requests get 429 with Retry-After: 1
    #[arg(long, env = "PODSHAPER_MAX_BUFFERED_BYTES", value_name = "BYTES", default_value_t = 32 << 20)]
    pub max_buffered_bytes: usize,
    /// Time after SIGTERM in which the server still answers new requests, until every API server knows that it ends
    #[arg(long, env = "PODSHAPER_DRAIN_TIME", value_name = "DURATION", default_value = "15s", value_parser = duration::parse)]
    pub drain_time: Duration,
}
