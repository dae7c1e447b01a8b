//! `arch explain`: what is known of images, and where from.

use std::io::{self, Write};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::known::Explained;
use crate::options::Offline;
use arch_decision::platform::Platforms;

/// Shows what images run on.
#[derive(Debug, Args)]
pub struct Explain {
    /// Images, as pods name them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// What to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    options: Offline,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}

impl Explain {
    /// Runs the command. It fails if an image can't be explained, after all others were.
    pub fn run(self) -> anyhow::Result<()> {
        let (_, images) = self.options.images(None)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut explained, mut failed) = (Vec::new(), 0);
        for name in &self.images {
            let answer = runtime.block_on(images.explain(name));
            failed += usize::from(answer.is_err());
            explained.push((name, answer));
        }
        let mut out = io::stdout().lock();
        match self.output {
            Format::Table => {
                let mut rows = vec![["IMAGE", "RUNS ON", "DIGEST", "FROM"].map(str::to_owned)];
                rows.extend(explained.iter().map(|(name, answer)| match answer {
                    Ok(image) => [image.name.clone(), names(image), image.digest.clone(), image.from.clone()],
                    Err(why) => [(*name).clone(), format!("? {why}"), String::new(), String::new()],
                }));
                write!(out, "{}", table(&rows))?;
            }
            Format::Json => {
                let items = explained.iter().map(|(name, answer)| match answer {
                    Ok(image) => json!({"image": image.name, "platforms": list(image), "digest": image.digest, "from": image.from}),
                    Err(why) => json!({"image": name, "unknown": why.label(), "reason": why.to_string()}),
                });
                writeln!(out, "{:#}", items.collect::<serde_json::Value>())?;
            }
        }
        ensure!(failed == 0, "{failed} of {} images can't be explained", self.images.len());
        Ok(())
    }
}

fn list(image: &Explained) -> Vec<String> {
    match &*image.platforms {
        Platforms::Any => vec!["any".to_owned()],
        Platforms::Only(platforms) => platforms.iter().map(ToString::to_string).collect(),
    }
}

fn names(image: &Explained) -> String {
    let names = list(image);
    if names.is_empty() { "nothing".to_owned() } else { names.join(",") }
}

/// Rows in columns, two spaces between them.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..N).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:width$}  ", printable(cell)));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}

/// What a terminal doesn't take for an order.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
