//! Answers about images: from the cache, or from registries.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use oci_client::Reference;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use crate::credentials::DockerConfig;
use crate::image_cache::{CacheAnswer, Flight, Freshness, ImageCache, ImageKey, LookupResult, is_temporary};
use crate::metrics::Metrics;
use crate::reference;
use crate::registry::{Keyring, Plan, Resolved, Resolver, resolver};
use crate::secrets::{PullSecrets, named};
use arch_decision::config::{CacheSettings, Settings};
use arch_decision::images::{Access, Image, Images, Knowledge, Known, LookupError};
use arch_decision::platform::Platforms;

/// Longest wait for a registry to confirm a remembered answer.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_millis(500);
/// Largest number of workloads with concurrent prefetches. Images of other workloads are resolved when their pods are created.
const PREFETCHES: usize = 16;
/// The longest time that a prefetch waits for the ServiceAccount and its Secrets.
const PREFETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory for the names of the images of one workload, in bytes.
const MAX_PREFETCHED_NAMES: usize = 32 << 10;
/// Bytes of a name beside its text.
const ENTRY: usize = 48;

/// Resolves images.
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
    name: Reference,
    key: ImageKey,
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
    /// The platforms that it supports.
    pub platforms: Arc<Platforms>,
    /// The registry or mirror that answered.
    pub from: String,
}

impl ImageResolver {
    /// A resolver with these settings, and with credentials of a file and of Secrets.
    pub fn new(
        settings: &Settings,
        mounted: Option<DockerConfig>,
        secrets: Option<PullSecrets>,
    ) -> anyhow::Result<Self> {
        let resolver = Arc::new(resolver(settings)?);
        let cache = Arc::new(ImageCache::new(settings.cache));
        let mounted = Arc::new(RwLock::new(mounted.map(Arc::new)));
        let secrets = secrets.map(Arc::new);
        let metrics = Metrics::default();
        let prefetches = Arc::new(Semaphore::new(PREFETCHES));
        Ok(Self { resolver, cache, settings: settings.cache, mounted, secrets, metrics, prefetches })
    }

    /// Checks that the pod has the identities of clouds that the settings need.
    pub(crate) fn check_identities(&self) -> anyhow::Result<()> {
        self.resolver.check_identities()
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
        let name = reference::parse(name).ok_or(LookupError::Invalid)?;
        let plan = self.resolver.plan(&name, self.mounted().as_slice(), None)?;
        let Resolved { digest, platforms, from, .. } =
            self.resolver.resolve(&name, &plan, &Arc::default()).await?;
        Ok(Explained { name: name.to_string(), digest: digest.into(), platforms, from: from.into() })
    }

    /// The pull secrets of a pod that names `own` and has this ServiceAccount; none if that cannot be read.
    async fn pull_secrets(
        &self,
        own: Vec<String>,
        namespace: &str,
        account: &str,
        deadline: Instant,
    ) -> Option<Vec<String>> {
        match &self.secrets {
            Some(secrets) if own.is_empty() => secrets.of_service_account(namespace, account, deadline).await,
            _ => Some(own),
        }
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

    fn wanted(&self, image: &Image<'_>, namespace: &str, keyring: &Keyring) -> Result<Wanted, LookupError> {
        let name = reference::parse(image.reference).ok_or(LookupError::Invalid)?;
        let freshness = match (name.digest(), image.always, self.settings.pull_always) {
            (Some(_), ..) => Freshness::Always,
            (None, ..) if image.anew => Freshness::Now,
            (None, false, _) => Freshness::Within(self.settings.if_not_present),
            (None, true, Some(time)) => Freshness::Within(time),
            (None, true, None) => Freshness::Now,
        };
        let plan = self.resolver.plan(&name, keyring, Some(namespace))?;
        let key = ImageKey::new(&name, plan.identity());
        Ok(Wanted { name, key, freshness, plan })
    }

    /// Starts a lookup, or joins one.
    fn start_lookup(&self, namespace: &str, wanted: Wanted, before: Option<Resolved>) -> Option<Flight> {
        let (resolver, cache, metrics) =
            (Arc::clone(&self.resolver), Arc::clone(&self.cache), self.metrics.clone());
        let Wanted { name: image, key, freshness, plan } = wanted;
        let namespace: Arc<str> = namespace.into();
        let requester = Arc::clone(&namespace);
        self.cache.join_or_start(&key.clone(), &namespace, move || async move {
            // A lookup may have ended between the read of the cache and the start of this one.
            if let CacheAnswer::Fresh(outcome) = cache.get(&key, freshness, &requester) {
                return outcome;
            }
            let begun = Instant::now();
            let outcome = match before {
                Some(before) => again(&resolver, &cache, &image, &plan, before, &requester).await,
                None => resolver.resolve(&image, &plan, &requester).await,
            };
            let label = outcome.as_ref().map_or_else(|why| why.label(), |_| "known");
            metrics.record_lookup(resolver.label(image.registry()), label, begun.elapsed());
            if let Ok(resolved) = &outcome {
                let by_digest = image.clone_with_digest(resolved.digest.to_string());
                cache.keep(ImageKey::new(&by_digest, plan.identity()), Ok(resolved.clone()), &requester);
                let (bytes, images) = cache.size();
                metrics.set_cache_size(bytes, images);
            }
            outcome
        })
    }

    /// The answer for an image, or its lookup.
    fn begin(&self, image: &Image<'_>, namespace: &str, keyring: &Keyring) -> Pending {
        let wanted = match self.wanted(image, namespace, keyring) {
            Ok(wanted) => wanted,
            Err(why) => return Pending::Known(Err(why)),
        };
        match self.cache.get(&wanted.key, wanted.freshness, namespace) {
            CacheAnswer::Fresh(outcome) => {
                self.metrics.wanted("hit");
                Pending::Known(outcome)
            }
            CacheAnswer::Stale(outcome) => {
                self.metrics.wanted("stale");
                let freshness = wanted.freshness;
                let flight = self.start_lookup(namespace, wanted, outcome.as_ref().ok().cloned());
                match (flight, freshness) {
                    (Some(flight), Freshness::Now) => Pending::Running(flight, Some(outcome)),
                    // The lookup continues, for the pods that come later.
                    _ => Pending::Known(outcome),
                }
            }
            CacheAnswer::Miss => {
                self.metrics.wanted("miss");
                let flight = self.start_lookup(namespace, wanted, None);
                flight.map_or(Pending::Known(Err(LookupError::Unavailable)), |flight| {
                    Pending::Running(flight, None)
                })
            }
        }
    }
}

enum Pending {
    Known(LookupResult),
    /// The lookup, and the cached answer for its failure.
    Running(Flight, Option<LookupResult>),
}

impl Pending {
    async fn outcome(self, deadline: Instant) -> LookupResult {
        let (mut flight, remembered) = match self {
            Self::Known(outcome) => return outcome,
            Self::Running(flight, remembered) => (flight, remembered),
        };
        let deadline =
            if remembered.is_some() { deadline.min(Instant::now() + CONFIRMATION_TIMEOUT) } else { deadline };
        let received = timeout_at(deadline.into(), flight.wait_for(|state| state.result().is_some())).await;
        let outcome = match received {
            Ok(Ok(state)) => state.result().cloned().unwrap_or(Err(LookupError::Unavailable)),
            Ok(Err(_)) => Err(LookupError::Unavailable),
            Err(_) => Err(LookupError::Timeout),
        };
        remembered.filter(|_| is_temporary(&outcome)).unwrap_or(outcome)
    }
}

impl Images for ImageResolver {
    async fn known(&self, images: &[Image<'_>], access: &Access<'_>, deadline: Instant) -> Known {
        let (keyring, warnings) = self.keyring(access, deadline).await;
        // All lookups start before the first is awaited, so the wait is that of the longest.
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

    fn prefetch(&self, images: &[Image<'_>], access: &Access<'_>, service_account: &str) {
        let Ok(turn) = Arc::clone(&self.prefetches).try_acquire_owned() else { return };
        let mut room = MAX_PREFETCHED_NAMES;
        let images = images.iter().filter(|image| {
            let left = room.checked_sub(ENTRY + image.reference.len());
            room = left.unwrap_or(room);
            left.is_some()
        });
        let images: Vec<_> = images.map(|image| (image.reference.to_owned(), image.always)).collect();
        let secrets: Vec<_> = named(access).into_iter().map(str::to_owned).collect();
        let (known, namespace, account) =
            (self.clone(), access.namespace.to_owned(), service_account.to_owned());
        tokio::spawn(async move {
            let deadline = Instant::now() + PREFETCH_TIMEOUT;
            // Without the pull secrets that the pods will have, a registry would only count one more refused request.
            let Some(secrets) = known.pull_secrets(secrets, &namespace, &account, deadline).await else {
                return;
            };
            let pull_secrets = secrets.iter().map(String::as_str).collect();
            let access = Access { namespace: &namespace, pull_secrets };
            let (keyring, _) = known.keyring(&access, deadline).await;
            for (reference, always) in &images {
                // The pods that need the result do not exist yet.
                let image = Image { reference, always: *always, anew: false, volume: false };
                drop(known.begin(&image, &namespace, &keyring));
            }
            drop(turn);
        });
    }
}

/// Checks whether a tag still has the same digest.
async fn again(
    resolver: &Resolver,
    cache: &ImageCache,
    image: &Reference,
    plan: &Plan,
    before: Resolved,
    namespace: &Arc<str>,
) -> LookupResult {
    let digest = resolver.digest(image, plan, namespace).await?;
    if digest == before.digest {
        return Ok(before);
    }
    // Another tag may have the same digest.
    let key = ImageKey::new(&image.clone_with_digest(digest.to_string()), plan.identity());
    match cache.get(&key, Freshness::Always, namespace) {
        CacheAnswer::Fresh(Ok(known)) => Ok(known),
        _ => resolver.resolve(image, plan, namespace).await,
    }
}
