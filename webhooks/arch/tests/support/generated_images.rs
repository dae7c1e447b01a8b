//! Images of all kinds, and the client of `oci-client` as the second opinion on them.

use std::collections::BTreeSet;

use arch::image_resolver::ImageResolver;
use arch::reference;
use oci_client::Client;
use oci_client::RegistryOperation;
use oci_client::manifest::{OciDescriptor, OciManifest};
use oci_client::secrets::RegistryAuth;
use serde_json::{Value, json};

use super::registry::{config, digest, entry, index_of, manifest};
use super::resolver::runs_on;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const ARCHITECTURES: [&str; 6] = ["amd64", "arm64", "s390x", "ppc64le", "riscv64", "386"];

/// The number of images. Their tags are the numbers from 0 on.
pub(crate) const COUNT: usize = 200;

/// The images of the repository `a`.
#[derive(Default)]
pub(crate) struct GeneratedImages {
    blobs: Vec<Vec<u8>>,
    /// By tag or digest. A manifest follows those that it refers to.
    manifests: Vec<(String, Vec<u8>)>,
}

/// A document of OCI with the media types of Docker.
fn as_docker(document: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(document).unwrap();
    let text = text
        .replace("vnd.oci.image.manifest.v1+json", "vnd.docker.distribution.manifest.v2+json")
        .replace("vnd.oci.image.config.v1+json", "vnd.docker.container.image.v1+json")
        .replace("vnd.oci.image.index.v1+json", "vnd.docker.distribution.manifest.list.v2+json");
    text.into_bytes()
}

fn kind(document: &[u8]) -> String {
    let document: Value = serde_json::from_str(str::from_utf8(document).unwrap()).unwrap();
    document["mediaType"].as_str().unwrap().to_owned()
}

impl GeneratedImages {
    /// Indexes, manifest lists, nested indexes, and single manifests of both formats.
    pub(crate) fn new() -> Self {
        let mut all = Self::default();
        for number in 0..COUNT {
            let chosen =
                ARCHITECTURES.iter().enumerate().filter(|(bit, _)| ((number / 4 + 1) >> bit) & 1 == 1);
            let chosen: Vec<_> = chosen.map(|(_, name)| *name).collect();
            let body = match number % 4 {
                0 => all.index(&chosen),
                1 if number % 8 == 1 => as_docker(all.image(chosen[0])),
                1 => all.image(chosen[0]),
                2 => {
                    let inner = all.index(&chosen);
                    let mut outer = entry(&all.add(inner), Value::Null);
                    outer["mediaType"] = json!(OCI_INDEX);
                    index_of(vec![outer])
                }
                _ => {
                    let list = all.index_of(&chosen, as_docker);
                    as_docker(list)
                }
            };
            all.add(body.clone());
            all.manifests.push((number.to_string(), body));
        }
        all
    }

    fn add(&mut self, manifest: Vec<u8>) -> String {
        let digest = digest(&manifest);
        if !self.manifests.iter().any(|(own, _)| *own == digest) {
            self.manifests.push((digest.clone(), manifest));
        }
        digest
    }

    fn image(&mut self, architecture: &str) -> Vec<u8> {
        let config = config("linux", architecture);
        let manifest = manifest(&config);
        self.blobs.push(config);
        manifest
    }

    fn index(&mut self, architectures: &[&str]) -> Vec<u8> {
        self.index_of(architectures, |manifest| manifest)
    }

    fn index_of(&mut self, architectures: &[&str], format: fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
        let entries = architectures.iter().map(|architecture| {
            let image = format(self.image(architecture));
            entry(&self.add(image), json!({"os": "linux", "architecture": architecture}))
        });
        let entries = entries.collect();
        index_of(entries)
    }

    /// The document at a path of the registry API.
    pub(crate) fn at(&self, path: &str) -> Option<&[u8]> {
        if let Some(wanted) = path.strip_prefix("/v2/a/manifests/") {
            return self.manifests.iter().find(|(own, _)| own == wanted).map(|(_, body)| &**body);
        }
        let wanted = path.strip_prefix("/v2/a/blobs/")?;
        self.blobs.iter().find(|body| digest(body) == wanted).map(|body| &**body)
    }

    /// Pushes all images.
    pub(crate) async fn push(&self, client: &Client, host: &str, auth: &RegistryAuth) {
        let image = |version: &str| {
            let sign = if version.contains(':') { '@' } else { ':' };
            reference::parse(&format!("{host}/a{sign}{version}")).unwrap()
        };
        client.auth(&image("0"), auth, RegistryOperation::Push).await.unwrap();
        let blobs: BTreeSet<_> = self.blobs.iter().collect();
        for blob in blobs {
            client.push_blob(&image("0"), blob.clone(), &digest(blob)).await.unwrap();
        }
        for (version, body) in &self.manifests {
            let kind = kind(body).parse().unwrap();
            client.push_manifest_raw(&image(version), body.clone(), kind).await.unwrap();
        }
    }
}

/// The platforms of an image and its digest, by the client.
async fn second_opinion(client: &Client, name: &str, auth: &RegistryAuth) -> (String, BTreeSet<String>) {
    let image = reference::parse(name).unwrap();
    let (manifest, digest) = client.pull_manifest(&image, auth).await.unwrap();
    let mut platforms = BTreeSet::new();
    match manifest {
        OciManifest::ImageIndex(index) => {
            for entry in index.manifests {
                if let Some(own) = entry.platform {
                    let variant = own.variant.map_or_else(String::new, |variant| format!("/{variant}"));
                    platforms.insert(format!("{}/{}{variant}", own.os, own.architecture));
                } else {
                    let inner = image.clone_with_digest(entry.digest).to_string();
                    platforms.extend(Box::pin(second_opinion(client, &inner, auth)).await.1);
                }
            }
        }
        OciManifest::Image(own) => {
            let mut blob = Vec::new();
            let config: OciDescriptor = own.config;
            client.pull_blob(&image, &config, &mut blob).await.unwrap();
            let config: Value = serde_json::from_str(str::from_utf8(&blob).unwrap()).unwrap();
            let text = |key: &str| config[key].as_str().unwrap();
            platforms.insert(format!("{}/{}", text("os"), text("architecture")));
        }
    }
    (digest, platforms)
}

/// Checks that both agree on each image, by tag and by digest.
pub(crate) async fn compare(images: &ImageResolver, client: &Client, host: &str, auth: &RegistryAuth) {
    for number in 0..COUNT {
        let tagged = format!("{host}/a:{number}");
        let (digest, platforms) = second_opinion(client, &tagged, auth).await;
        let by_digest = format!("{host}/a@{digest}");
        for name in [&tagged, &by_digest] {
            let explained = images.explain(name).await.unwrap();
            assert_eq!(explained.digest, digest, "{name}");
            let found = runs_on(images, name).await.unwrap();
            assert_eq!(found.split(' ').map(str::to_owned).collect::<BTreeSet<_>>(), platforms, "{name}");
        }
    }
}
