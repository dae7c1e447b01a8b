//! `kubectl podshaper ui`: the page of `distributor` on the user's machine, which applies with the user's rights.
//!
//! ```text
//! browser ──▶ gate ──▶ page, /state ──▶ list of PodDistributors
//!            host,     /apply ────────▶ server-side apply, in a dry run first
//!            origin,
//!            cookie
//! ```

mod apply;
mod gate;
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use podshaper_offline::block_on;
use podshaper_offline::console::Console;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::TcpListener;

use crate::kubeconfig::ClusterArgs;
use gate::Gate;
use server::UiServer;

/// Open a page that shows PodDistributors, composes new ones and applies them
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Ui {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Namespace to show (default: that of the context)
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Show all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print the URL and open no browser
    #[arg(long)]
    no_browser: bool,
    /// Port on 127.0.0.1; 0 selects a free port
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// End the command after this number of minutes without a request
    #[arg(long, value_name = "MINUTES", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1440))]
    idle_minutes: u16,
}

const HELP: &str = "\
The page listens on 127.0.0.1 and opens for the browser that has the token of the printed URL. The token works once. Reading and \
applying use the rights of your kubeconfig. The page writes PodDistributors only: each apply shows its change first, by a dry run on \
the API server, and uses server-side apply with the field manager kubectl-podshaper.

Exit status: 0 the page was idle, or interrupted; 1 it cannot be served.";

impl Ui {
    /// Serves the page until it is idle.
    pub(crate) fn run(self, console: &mut Console<'_>) -> u8 {
        let result = block_on(self.serve(console));
        console.exit_status(result)
    }

    async fn serve(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        let cluster = self.cluster.connect().await?;
        let namespace = self.namespace.unwrap_or(cluster.namespace);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
        let port = listener.local_addr()?.port();
        let gate = Gate::new(port, random()?, random()?);
        let url = gate.url();
        writeln!(console.stdout, "{url}")?;
        console.stdout.flush()?;
        if !self.no_browser {
            open(&url, console);
        }
        let namespace = (!self.all_namespaces).then_some(namespace);
        let idle = Duration::from_mins(u64::from(self.idle_minutes));
        UiServer::new(cluster.client, namespace, gate).run(listener, idle).await;
        console.message("the page was idle; ended");
        Ok(())
    }
}

/// 32 random bytes, as text for URLs.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system has no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Opens the user's browser. A machine without one still has the printed URL.
fn open(url: &str, console: &mut Console<'_>) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let started = std::process::Command::new(program).arg(url).stdout(std::process::Stdio::null()).spawn();
    if let Err(error) = started {
        console.message(format_args!("can't run {program}: {error}; open the URL in a browser"));
    }
}
