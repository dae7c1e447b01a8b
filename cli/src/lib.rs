//! `kubectl podshaper`: the commands of the webhooks by one name, with the rights of the user's kubeconfig.
//!
//! The commands are those of the webhooks' binaries. `--live` only replaces files: it lists the objects that a command reads and
//! gives them to the command as a file.
#![forbid(unsafe_code)]

mod check;
mod command;
mod kubeconfig;
mod live;
mod ui;

pub use command::run;
