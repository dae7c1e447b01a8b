//! Images as registries know them: the cache in front, look-ups behind.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use crate::credentials::DockerConfig;
use crate::image_cache::{CacheAnswer, Freshness, ImageCache, Key, Outcome};
use crate::metrics::Metrics;
use crate::name::{ImageName, Version};
use crate::registry::{Keyring, Plan, Resolved, Resolver, resolver};
use crate::secrets::{PullSecrets, named};
use arch_decision::config::{CacheSettings, Settings};
use arch_decision::images::{Access, Image, Images, Knowledge, Known, LookupError};
use arch_decision::platform::Platforms;

/// How long a registry is waited for that is asked whether what is remembered is still true.
const PATIENCE: Duration = Duration::from_millis(500);
/// Workloads at a time whose pods' images are looked for; those of others wait for the pods.
const PREFETCHES: usize = 16;
/// Memory for the names of one's images, in bytes.
const FORESEEN: usize = 32 << 10;
/// Bytes of a name beside its text.
const ENTRY: usize = 48;

/// What is known of images.
#[derive(Clone)]
pub struct ImageResolver {
    resolver: Arc<Resolver>,
    cache: Arc<ImageCache>,
    settings: CacheSettings,
    mounted: Arc<RwLock<Option<Arc<DockerConfig>>>>,
    secrets: Option<Arc<PullSecrets>>,
    metrics: Metrics,
    prefetches: Arc<Semaphore>,
}

/// An image, as it may be asked for.
struct Wanted {
    name: ImageName,
    key: Key,
    freshness: Freshness,
    plan: Plan,
}

/// Everything about one image, for a person.
#[derive(Debug)]
pub struct Explained {
    /// Its full name.
    pub name: String,
    /// The digest of its manifest or index.
    pub digest: String,
    /// What it runs on.
    pub platforms: Arc<Platforms>,
    /// Who told.
    pub from: String,
}

impl ImageResolver {
    /// What asks the registries of these settings, with the credentials of one file and of Secrets.
    pub fn new(
        settings: &Settings,
        mounted: Option<DockerConfig>,
        secrets: Option<PullSecrets>,
    ) -> anyhow::Result<Self> {
        let resolver = Arc::new(resolver(&settings.registries)?);
        let cache = Arc::new(ImageCache::new(settings.cache));
        let (mounted, secrets) = (Arc::new(RwLock::new(mounted.map(Arc::new))), secrets.map(Arc::new));
        let (metrics, prefetches) = (Metrics::default(), Arc::new(Semaphore::new(PREFETCHES)));
        Ok(Self { resolver, cache, settings: settings.cache, mounted, secrets, metrics, prefetches })
    }

    /// Registers its metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// The credentials for all pods.
    pub(crate) fn mounted(&self) -> Option<Arc<DockerConfig>> {
        self.mounted.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces them.
    pub(crate) fn mount(&self, file: DockerConfig) {
        *self.mounted.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(file));
    }

    /// Looks one image up, whatever is remembered.
    pub async fn explain(&self, name: &str) -> Result<Explained, LookupError> {
        let name = ImageName::parse(name).ok_or(LookupError::Invalid)?;
        let plan = self.resolver.plan(&name, self.mounted().as_slice())?;
        let Resolved { digest, platforms, from, .. } = self.resolver.resolve(&name, &plan).await?;
        Ok(Explained { name: name.to_string(), digest: digest.into(), platforms, from: from.into() })
    }

    /// The credentials for these pods, those of Secrets first, and what is wrong with any.
    async fn keyring(&self, access: &Access<'_>, deadline: Instant) -> (Vec<Arc<DockerConfig>>, Vec<String>) {
        let (mut files, warnings) = match &self.secrets {
            Some(secrets) => secrets.of(access, deadline).await,
            None => (Vec::new(), Vec::new()),
        };
        files.extend(self.mounted());
        (files, warnings)
    }

    fn wanted(&self, image: &Image<'_>, keyring: &Keyring) -> Result<Wanted, LookupError> {
        let name = ImageName::parse(image.reference).ok_or(LookupError::Invalid)?;
        let freshness = match (&name.version, image.always, self.settings.pull_always) {
            (Version::Digest(_), ..) => Freshness::Always,
            (Version::Tag(_), ..) if image.anew => Freshness::Now,
            (Version::Tag(_), false, _) => Freshness::Within(self.settings.if_not_present),
            (Version::Tag(_), true, Some(time)) => Freshness::Within(time),
            (Version::Tag(_), true, None) => Freshness::Now,
        };
        let plan = self.resolver.plan(&name, keyring)?;
        let key = Key { name: name.to_string().into(), identity: plan.identity };
        Ok(Wanted { name, key, freshness, plan })
    }

    /// Begins a look-up, or joins one.
    fn look_up(&self, namespace: &str, wanted: Wanted, before: Option<Resolved>) -> Option<Flight> {
        let (resolver, cache, metrics) =
            (Arc::clone(&self.resolver), Arc::clone(&self.cache), self.metrics.clone());
        let Wanted { name: image, key, freshness, plan } = wanted;
        self.cache.fly(&key.clone(), namespace, async move {
            // A look-up may have ended between the look into the cache and the beginning of this one.
            if let CacheAnswer::Fresh(outcome) = cache.look(&key, freshness) {
                return outcome;
            }
            let (identity, begun) = (key.identity, Instant::now());
            let outcome = match before {
                Some(before) => again(&resolver, &cache, &image, &plan, before).await,
                None => resolver.resolve(&image, &plan).await,
            };
            let label = outcome.as_ref().map_or_else(|why| why.label(), |_| "known");
            metrics.looked_up(resolver.label(&image.registry), label, begun.elapsed());
            if let Ok(resolved) = &outcome {
                let name = image.with_digest(&resolved.digest).to_string().into();
                cache.keep(Key { name, identity }, Ok(resolved.clone()));
                let (bytes, images) = cache.size();
                metrics.bytes.set(bytes.try_into().unwrap_or(i64::MAX));
                metrics.known.set(images.try_into().unwrap_or(i64::MAX));
            }
            outcome
        })
    }

    /// What is known of one image, or who will tell.
    fn begin(&self, image: &Image<'_>, namespace: &str, keyring: &Keyring) -> Pending {
        let wanted = match self.wanted(image, keyring) {
            Ok(wanted) => wanted,
            Err(why) => return Pending::Known(Err(why)),
        };
        match self.cache.look(&wanted.key, wanted.freshness) {
            CacheAnswer::Fresh(outcome) => {
                self.metrics.wanted("hit");
                Pending::Known(outcome)
            }
            CacheAnswer::Stale(outcome) => {
                self.metrics.wanted("stale");
                let freshness = wanted.freshness;
                let flight = self.look_up(namespace, wanted, outcome.as_ref().ok().cloned());
                match (flight, freshness) {
                    (Some(flight), Freshness::Now) => Pending::Flying(flight, Some(outcome)),
                    // It is looked at again for those who come later.
                    _ => Pending::Known(outcome),
                }
            }
            CacheAnswer::Miss => {
                self.metrics.wanted("miss");
                let flight = self.look_up(namespace, wanted, None);
                flight.map_or(Pending::Known(Err(LookupError::Unavailable)), |flight| {
                    Pending::Flying(flight, None)
                })
            }
        }
    }
}

type Flight = tokio::sync::watch::Receiver<Option<Outcome>>;

enum Pending {
    Known(Outcome),
    /// Who will tell, and what is to be believed if it doesn't.
    Flying(Flight, Option<Outcome>),
}

impl Pending {
    async fn outcome(self, deadline: Instant) -> Outcome {
        let (mut flight, remembered) = match self {
            Self::Known(outcome) => return outcome,
            Self::Flying(flight, remembered) => (flight, remembered),
        };
        let deadline = if remembered.is_some() { deadline.min(Instant::now() + PATIENCE) } else { deadline };
        let told = timeout_at(deadline.into(), flight.wait_for(Option::is_some)).await;
        let outcome = match told {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(LookupError::Unavailable)),
            Ok(Err(_)) => Err(LookupError::Unavailable),
            Err(_) => Err(LookupError::Timeout),
        };
        match (outcome, remembered) {
            (
                Err(LookupError::Unavailable | LookupError::Timeout | LookupError::RateLimited),
                Some(remembered),
            ) => remembered,
            (outcome, _) => outcome,
        }
    }
}

impl Images for ImageResolver {
    async fn known(&self, images: &[Image<'_>], access: &Access<'_>, deadline: Instant) -> Known {
        let (keyring, warnings) = self.keyring(access, deadline).await;
        // All at once, then one after the other: the longest tells how long it takes.
        let begun = images.iter().map(|image| self.begin(image, access.namespace, &keyring));
        let pending: Vec<_> = begun.collect();
        drop(keyring);
        let mut known = Vec::with_capacity(pending.len());
        for (image, pending) in images.iter().zip(pending) {
            known.push(match pending.outcome(deadline).await {
                // A node mounts the one image that there is, whatever it was built for.
                Ok(resolved) if image.volume && !resolved.index => Knowledge::Known(Arc::new(Platforms::Any)),
                Ok(resolved) => Knowledge::Known(resolved.platforms),
                Err(why) => Knowledge::Unknown(why),
            });
        }
        Known { images: known, warnings }
    }

    fn prefetch(&self, images: &[Image<'_>], access: &Access<'_>) {
        let Ok(turn) = Arc::clone(&self.prefetches).try_acquire_owned() else { return };
        let mut room = FORESEEN;
        let images = images.iter().filter(|image| {
            let left = room.checked_sub(ENTRY + image.reference.len());
            room = left.unwrap_or(room);
            left.is_some()
        });
        let images: Vec<_> = images.map(|image| (image.reference.to_owned(), image.always)).collect();
        let secrets: Vec<_> = named(access).into_iter().map(str::to_owned).collect();
        let (known, namespace) = (self.clone(), access.namespace.to_owned());
        tokio::spawn(async move {
            let pull_secrets = secrets.iter().map(String::as_str).collect();
            let access = Access { namespace: &namespace, pull_secrets };
            let (keyring, _) = known.keyring(&access, Instant::now() + Duration::from_secs(5)).await;
            for (reference, always) in &images {
                // Whoever waits for it isn't here yet.
                let image = Image { reference, always: *always, anew: false, volume: false };
                drop(known.begin(&image, &namespace, &keyring));
            }
            drop(turn);
        });
    }
}

/// Looks whether a tag still means what it did.
async fn again(
    resolver: &Resolver,
    cache: &ImageCache,
    image: &ImageName,
    plan: &Plan,
    before: Resolved,
) -> Outcome {
    let digest = resolver.digest(image, plan).await?;
    if digest == before.digest {
        return Ok(before);
    }
    // Another tag may have told what this is.
    let key = Key { name: image.with_digest(&digest).to_string().into(), identity: plan.identity };
    match cache.look(&key, Freshness::Always) {
        CacheAnswer::Fresh(Ok(known)) => Ok(known),
        _ => resolver.resolve(image, plan).await,
    }
}
