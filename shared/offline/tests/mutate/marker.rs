//! A webhook that marks pods, and the command run with it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use podshaper_core::admission::{Decision, Request, Webhook};
use podshaper_core::pod::{Pod, PodPatch};
use podshaper_offline::console::Console;
use podshaper_offline::manifests::FactFiles;
use podshaper_offline::mutate::Mutate;

/// Marks every pod with its namespace, or does what the annotation `do` says.
pub(crate) struct Marker {
    pub(crate) mark: String,
}

#[derive(Debug, clap::Args)]
struct MarkerArgs {
    /// The value that pods are marked with, before their namespace
    #[arg(long, default_value = "marked")]
    mark: String,
    #[command(flatten)]
    facts: FactFiles,
}

impl Webhook for Marker {
    type Object<'a> = Pod<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Pod<'a>>, _: Instant) -> Decision {
        let Some(pod) = request.object.as_ref().filter(|_| request.creates_pod()) else {
            return Decision::unchanged();
        };
        let mut patch = PodPatch::new(pod);
        match pod.annotation("do") {
            Some("deny") => {
                return Decision::denied("do something\nelse").with_warnings(["also this".to_owned()]);
            }
            Some("doubt") => return Decision::undecided("who knows").with_warnings(["and this".to_owned()]),
            Some("nothing") => return Decision::unchanged(),
            Some("warn") => {
                return Decision::unchanged().with_warnings(["look out".to_owned()]);
            }
            Some("break") => {
                let mut patch = podshaper_core::patch::Patch::default();
                patch.remove(&podshaper_core::patch::Pointer::root().key("no such"));
                return Decision::patched(patch);
            }
            _ => {}
        }
        let namespace = request.namespace.as_deref().unwrap_or("?");
        patch.set_annotation("mark", &format!("{}-{namespace}", self.mark));
        patch.finish().into()
    }
}

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    mutate: Mutate<MarkerArgs>,
}

pub(crate) struct Ran {
    pub(crate) status: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run_on(args: &[&str], stdin: &[u8], stdout: &mut dyn Write, interactive: bool) -> (u8, String) {
    let command = Command::parse_from(std::iter::once(&"marker").chain(args));
    let mut stderr = Vec::new();
    let mut console = Console {
        stdin: Box::new(stdin),
        interactive,
        stdout,
        color: args.contains(&"diff"),
        stderr: &mut stderr,
        progress: None,
    };
    let status = command.mutate.run(&mut console, |options, _| {
        anyhow::ensure!(options.mark != "bad", "--mark can't be bad");
        let facts = options.facts.read()?;
        Ok(Marker { mark: facts.first().map_or(options.mark, |fact| fact["kind"].to_string()) })
    });
    drop(console);
    (status, String::from_utf8(stderr).unwrap())
}

pub(crate) fn run(args: &[&str], stdin: &str) -> Ran {
    let mut stdout = Vec::new();
    let (status, err) = run_on(args, stdin.as_bytes(), &mut stdout, false);
    Ran { status, out: String::from_utf8(stdout).unwrap(), err }
}

/// The output of a run without problems.
pub(crate) fn fine(args: &[&str], stdin: &str) -> String {
    let ran = run(args, stdin);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{args:?} {stdin}");
    ran.out
}

pub(crate) fn file(name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

pub(crate) fn pod(name: &str, order: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  annotations:\n    do: {order}\nspec: {{}}\n"
    )
}

/// A workload with comments, flow style and a number of base 16.
pub(crate) const DEPLOYMENT: &str = "\
# Source: chart/templates/web.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web # the name
  namespace: shop
spec:
  template:
    spec:
      containers: [{name: a, args: ['yes', \"1\"], future: {deep: 0x10}}]
# end
";
