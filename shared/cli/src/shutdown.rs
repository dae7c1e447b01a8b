//! The signals that end a process.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves on SIGTERM from the kubelet or SIGINT from a terminal.
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
