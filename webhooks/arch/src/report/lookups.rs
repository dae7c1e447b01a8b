//! The answers for all images of a report: each is looked up once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use podshaper_core::pod::Pod;

use super::ReportedPod;
use crate::image_resolver::ImageResolver;
use arch_decision::config::Settings;
use arch_decision::images::{Access, Image, Images, Knowledge, Known, LookupError, images_of};

/// Images that are asked for at a time.
const BATCH: usize = 16;
/// The longest time of one batch.
pub(super) const BATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers by reference, and whether the image is a volume only.
#[derive(Debug, Default)]
pub(super) struct CollectedImages(BTreeMap<(String, bool), Knowledge>);

impl CollectedImages {
    /// Looks up the images of these pods, a few at a time. Progress goes to a terminal.
    pub(super) async fn look_up<'p>(
        images: &ImageResolver,
        settings: &Settings,
        pods: impl Iterator<Item = &'p ReportedPod>,
    ) -> anyhow::Result<Self> {
        let mut wanted = BTreeSet::new();
        for reported in pods {
            let pod: Pod<'_> = serde_json::from_str(&reported.pod)?;
            let own = images_of(&pod)?;
            let own = own.iter().filter(|image| settings.images.statement(image.reference).is_none());
            wanted.extend(own.map(|image| (image.reference.to_owned(), image.volume)));
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        let mut known = BTreeMap::new();
        let mut progress = io::stderr();
        let is_shown = progress.is_terminal();
        for (index, batch) in wanted.chunks(BATCH).enumerate() {
            if is_shown {
                write!(progress, "\r{} of {} images ...\x1b[K", index * BATCH, wanted.len())
                    .context("standard error")?;
            }
            let images_of_batch: Vec<_> = batch
                .iter()
                .map(|(name, volume)| Image { reference: name, always: false, anew: false, volume: *volume })
                .collect();
            let answers =
                images.known(&images_of_batch, &Access::default(), Instant::now() + BATCH_TIMEOUT).await;
            known.extend(batch.iter().cloned().zip(answers.images));
        }
        if is_shown {
            write!(progress, "\r\x1b[K").context("standard error")?;
        }
        Ok(Self(known))
    }
}

impl Images for CollectedImages {
    async fn known(&self, images: &[Image<'_>], _: &Access<'_>, _: Instant) -> Known {
        let answer = |image: &Image<'_>| {
            let known = self.0.get(&(image.reference.to_owned(), image.volume));
            known.cloned().unwrap_or(Knowledge::Unknown(LookupError::Unavailable))
        };
        Known { images: images.iter().map(answer).collect(), warnings: Vec::new() }
    }
}
