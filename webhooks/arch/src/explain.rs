//! `arch explain`: the architectures of images, and the registry or mirror that answered.

use anyhow::ensure;
use clap::Args;
use podshaper_offline::block_on;
use podshaper_offline::console::Console;
use podshaper_offline::table::{ReportFormat, Table};
use serde_json::json;

use crate::image_resolver::Explained;
use crate::options::ImageOptions;
use arch_decision::platform::Platforms;

/// Show the architectures and the digest of images, and the registry or mirror that answered
#[derive(Debug, Args)]
pub struct Explain {
    /// Names of images, as in a pod
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = ReportFormat::Table)]
    output: ReportFormat,
    #[command(flatten)]
    options: ImageOptions,
}

impl Explain {
    /// Runs the command. It fails if an image can't be explained, after all others were.
    pub fn run(self, console: &mut Console<'_>) -> anyhow::Result<()> {
        let (_, images) = self.options.images(None)?;
        let explained = block_on(async {
            let mut explained = Vec::new();
            for name in &self.images {
                explained.push((name, images.explain(name).await));
            }
            Ok(explained)
        })?;
        match self.output {
            ReportFormat::Table => {
                let mut table = Table::new(["IMAGE", "RUNS ON", "DIGEST", "FROM"]);
                for (name, answer) in &explained {
                    table.row(match answer {
                        Ok(image) => {
                            [image.name.clone(), names(image), image.digest.clone(), image.from.clone()]
                        }
                        Err(why) => [(*name).clone(), format!("? {why}"), String::new(), String::new()],
                    });
                }
                table.print(console.stdout)?;
            }
            ReportFormat::Json => {
                let items = explained.iter().map(|(name, answer)| match answer {
                    Ok(image) => json!({"image": image.name, "platforms": list(image), "digest": image.digest, "from": image.from}),
                    Err(why) => json!({"image": name, "unknown": why.label(), "reason": why.to_string()}),
                });
                writeln!(console.stdout, "{:#}", items.collect::<serde_json::Value>())?;
            }
        }
        let failed = explained.iter().filter(|(_, answer)| answer.is_err()).count();
        ensure!(failed == 0, "{failed} of {} images can't be explained", self.images.len());
        Ok(())
    }
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
