//! The bounds of the webhook server.

use std::time::Duration;

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

/// How long to wait where no connection can be accepted for want of file descriptors.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a client may take to finish its TLS handshake.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long the headers of a request may take from their first byte.
pub(super) const HEADERS: Duration = Duration::from_secs(5);
/// How long a connection may stay idle. The API server closes its own after 90 s; to be faster than it would lose the calls
/// that it is just sending. That goes for one that never served, too: where another is free first, Go keeps what it has
/// dialled for later (`dialConnFor` of net/http).
pub(super) const IDLE: Duration = Duration::from_mins(2);
/// How long the body of a refused request is still read, so that its sender sees the answer and not a reset.
pub(super) const DISCARD: Duration = Duration::from_secs(2);
/// Bytes of all headers of a request.
pub(super) const HEADER_BYTES: usize = 32 << 10;
/// Bytes that are read from a connection at a time: a TLS record, and so most requests, with one system call. rustls would
/// ask for four times as many pieces.
pub(super) const RECORD: usize = 16 << 10;
/// Streams of one HTTP/2 connection.
pub(super) const STREAMS: u32 = 250;
