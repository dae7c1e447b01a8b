//! The commands of a binary.

use clap::{Args, CommandFactory, Parser, Subcommand};
use podshaper_core::admission::Webhook;
use podshaper_kube::client::set_user_agent;
use podshaper_offline::console::Console;
use podshaper_offline::mutate::Mutate;

use crate::completion::Completion;
use crate::selftest::Selftest;
use crate::serve::{Serve, ServeContext};

/// The program of one webhook, implemented by the enum of the commands that it adds.
pub trait Program: Subcommand + Sized + 'static {
    /// The name of the binary.
    const NAME: &'static str;
    /// The first line of `--help`.
    const ABOUT: &'static str;
    /// The paths that the API server posts reviews to.
    const PATHS: &'static [&'static str];
    /// Options of `serve`, for the webhook that decides by the state of the cluster.
    type Serve: ServeOptions;
    /// Options of `mutate`, for the webhook that decides by files.
    type Mutate: WebhookOptions;
    /// Options of `selftest`, for the webhook that decides about its pod. The installed webhook should decide the same.
    type Selftest: WebhookOptions;

    /// Runs one of the added commands.
    fn run(self, console: &mut Console<'_>) -> anyhow::Result<()>;
}

/// Options of the webhook in a cluster.
pub trait ServeOptions: Args {
    /// Builds the webhook. It may spawn tasks.
    fn webhook(self, context: ServeContext<'_>) -> anyhow::Result<impl Webhook + use<Self>>;
}

/// Options of a webhook that needs no cluster.
pub trait WebhookOptions: Args {
    /// Builds the webhook.
    fn webhook(self) -> anyhow::Result<impl Webhook>;

    /// Builds the webhook for files with objects that name no namespace and are meant for this one.
    fn webhook_in(self, _namespace: &str) -> anyhow::Result<impl Webhook + use<Self>> {
        self.webhook()
    }
}

#[derive(Parser)]
#[command(name = P::NAME, about = P::ABOUT, version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli<P: Program> {
    #[command(subcommand)]
    command: Option<Command<P>>,
    #[command(flatten)]
    serve: Serve<P::Serve>,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one value exists, while the program starts")]
enum Command<P: Program> {
    Serve(Serve<P::Serve>),
    #[command(flatten)]
    Offline(OfflineCommand<P>),
    Selftest(Selftest<P::Selftest>),
    Completion(Completion),
}

/// The commands that need no cluster.
#[derive(Parser)]
#[command(name = P::NAME, about = P::ABOUT, version, arg_required_else_help = true)]
pub(crate) struct OfflineCli<P: Program> {
    #[command(subcommand)]
    command: OfflineCommand<P>,
}

#[derive(Subcommand)]
enum OfflineCommand<P: Program> {
    Mutate(Mutate<P::Mutate>),
    #[command(flatten)]
    Own(P),
}

impl<P: Program> OfflineCommand<P> {
    fn run(self, console: &mut Console<'_>) -> u8 {
        match self {
            Self::Mutate(mutate) => mutate.run(console, WebhookOptions::webhook_in),
            Self::Own(command) => {
                let result = command.run(console);
                console.exit_status(result)
            }
        }
    }
}

impl<P: Program> OfflineCli<P> {
    /// Runs the command and returns its exit status.
    pub(crate) fn run(self, console: &mut Console<'_>) -> u8 {
        self.command.run(console)
    }
}

impl<P: Program> Cli<P> {
    /// Runs the command and returns its exit status.
    pub(crate) fn run(self, console: &mut Console<'_>) -> u8 {
        set_user_agent(P::NAME);
        let result = match self.command.unwrap_or(Command::Serve(self.serve)) {
            Command::Serve(serve) => serve.run(P::NAME, P::PATHS, ServeOptions::webhook),
            Command::Offline(command) => return command.run(console),
            Command::Selftest(selftest) => selftest.run(P::NAME, console, WebhookOptions::webhook),
            Command::Completion(completion) => completion.run(Self::command(), console),
        };
        console.exit_status(result)
    }
}
