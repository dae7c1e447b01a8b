//! `arch explain`: the architectures of images and of a cluster, and the source of each answer.

use anyhow::ensure;
use clap::Args;
use podshaper_cli::LogArgs;
use podshaper_offline::block_on;
use podshaper_offline::console::Console;
use podshaper_offline::manifests::FactFiles;
use podshaper_offline::table::{ReportFormat, Table};
use serde_json::{Value, json};

use crate::image_resolver::Explained;
use crate::options::{ImageOptions, learned};
use arch_decision::config::Settings;
use arch_decision::images::LookupError;
use arch_decision::learned::LearnedArchitectures;
use arch_decision::platform::Platforms;

/// Show the architectures and the digest of images, and the registry or mirror that answered; with --facts, the architectures of a
/// cluster and their sources
#[derive(Debug, Args)]
pub struct Explain {
    /// Names of images, as in a pod
    #[arg(required_unless_present = "facts", value_name = "IMAGE")]
    images: Vec<String>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = ReportFormat::Table)]
    output: ReportFormat,
    #[command(flatten)]
    options: ImageOptions,
    #[command(flatten)]
    facts: FactFiles,
    #[command(flatten)]
    logs: LogArgs,
}

/// An architecture of the nodes.
struct ExplainedArchitecture {
    name: String,
    taints: Vec<String>,
    /// The sources of the entry.
    from: String,
}

/// An image, and the answer for it.
type Answer<'a> = (&'a str, Result<Explained, LookupError>);

impl Explain {
    /// Runs the command. It fails if an image can't be explained, after all others were.
    pub fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        self.logs.start();
        let (settings, images) = self.options.offline()?;
        let learned = learned(&settings, &self.facts)?;
        let architectures = learned.map(|learned| architectures(&settings, &learned)).unwrap_or_default();
        let answers = block_on(async {
            let mut answers: Vec<Answer<'_>> = Vec::new();
            for name in &self.images {
                answers.push((name, images.explain(name).await));
            }
            Ok(answers)
        })?;
        match self.output {
            ReportFormat::Table => print(console, &answers, &architectures)?,
            ReportFormat::Json => print_json(console, &answers, &architectures)?,
        }
        let failed = answers.iter().filter(|(_, answer)| answer.is_err()).count();
        ensure!(
            failed == 0,
            "{failed} of {} images can't be explained; --log-level=debug logs why",
            self.images.len()
        );
        Ok(())
    }
}

/// The architectures that pods are decided by: the configured ones, and the others of the cluster.
fn architectures(settings: &Settings, learned: &LearnedArchitectures) -> Vec<ExplainedArchitecture> {
    let sources = |name: &str| learned.iter().find(|(own, _)| *own == name).map(|(_, own)| own.to_string());
    let table = settings.with_learned(learned).table;
    let explained = table.listed().map(|nodes| ExplainedArchitecture {
        name: nodes.architecture.to_string(),
        taints: nodes.taints.iter().map(ToString::to_string).collect(),
        from: match sources(&nodes.architecture.name) {
            Some(sources) if !settings.table.configured().contains(nodes) => sources,
            Some(sources) => format!("architectures; {sources}"),
            None => "architectures".to_owned(),
        },
    });
    explained.collect()
}

fn print(
    console: &mut Console<'_>,
    answers: &[Answer<'_>],
    architectures: &[ExplainedArchitecture],
) -> anyhow::Result<()> {
    if !answers.is_empty() {
        let mut table = Table::new(["IMAGE", "RUNS ON", "DIGEST", "FROM"]);
        for (name, answer) in answers {
            table.row(match answer {
                Ok(image) => [image.name.clone(), names(image), image.digest.clone(), image.from.clone()],
                Err(why) => [(*name).to_owned(), format!("? {why}"), String::new(), String::new()],
            });
        }
        table.print(console.stdout)?;
    }
    if !architectures.is_empty() {
        let mut table = Table::new(["ARCHITECTURE", "TOLERATED TAINTS", "FROM"]);
        for ExplainedArchitecture { name, taints, from } in architectures {
            table.row([name.clone(), taints.join(","), from.clone()]);
        }
        if !answers.is_empty() {
            writeln!(console.stdout)?;
        }
        table.print(console.stdout)?;
    }
    Ok(())
}

fn print_json(
    console: &mut Console<'_>,
    answers: &[Answer<'_>],
    architectures: &[ExplainedArchitecture],
) -> anyhow::Result<()> {
    let images = answers.iter().map(|(name, answer)| match answer {
        Ok(image) => {
            json!({"image": image.name, "platforms": list(image), "digest": image.digest, "from": image.from})
        }
        Err(why) => json!({"image": name, "unknown": why.label(), "reason": why.to_string()}),
    });
    let architectures = architectures.iter().map(|ExplainedArchitecture { name, taints, from }| {
        json!({"architecture": name, "taints": taints, "from": from})
    });
    Ok(writeln!(console.stdout, "{:#}", images.chain(architectures).collect::<Value>())?)
}

fn list(image: &Explained) -> Vec<String> {
    match &*image.platforms {
        Platforms::Any | Platforms::OlmBundle => vec!["any".to_owned()],
        Platforms::Only(platforms) => platforms.iter().map(ToString::to_string).collect(),
    }
}

fn names(image: &Explained) -> String {
    let names = list(image);
    if names.is_empty() { "nothing".to_owned() } else { names.join(",") }
}
