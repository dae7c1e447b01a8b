//! When to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves on SIGTERM (the kubelet) or SIGINT (a person).
///
/// # Errors
/// The signal handlers can't be installed.
pub fn shutdown_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {},
            _ = interrupt.recv() => {},
        }
    })
}
