//! The limits of the webhook server.

use clap::Args;

/// What one server takes on at a time. The defaults suit a pod with 128 MiB.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Requests worked on at a time; further ones are told to come back (429 with Retry-After: 1)
    #[arg(long, env = "PODSHAPER_MAX_IN_FLIGHT", value_name = "N", default_value_t = 1024)]
    pub max_in_flight: usize,
    /// Connections held at a time; further ones wait to be accepted
    #[arg(long, env = "PODSHAPER_MAX_CONNECTIONS", value_name = "N", default_value_t = 2048)]
    pub max_connections: usize,
    /// Bytes of one request; a pod near the API server's own limit of 3 MiB can take 18 MiB as JSON
    #[arg(long, env = "PODSHAPER_MAX_BODY_BYTES", value_name = "BYTES", default_value_t = 20 << 20)]
    pub max_body_bytes: usize,
    /// Bytes of all requests being read; beyond it they are told to come back
    #[arg(long, env = "PODSHAPER_MAX_BUFFERED_BYTES", value_name = "BYTES", default_value_t = 32 << 20)]
    pub max_buffered_bytes: usize,
}
