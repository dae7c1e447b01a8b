//! Names of images as [`Reference`]s. Their own parser differs from the kubelet's: it takes `Registry/app` for an image of Docker Hub.

use oci_client::Reference;

use arch_decision::name::{ImageName, Version};

/// Parses the name of an image as the kubelet does. None if it is not a name.
pub fn parse(text: &str) -> Option<Reference> {
    let ImageName { registry, repository, version } = ImageName::parse(text)?;
    let registry = registry.into_string();
    let repository = repository.into_string();
    Some(match version {
        Version::Tag(tag) => Reference::with_tag(registry, repository, tag.into_string()),
        Version::Digest(digest) => Reference::with_digest(registry, repository, digest.into_string()),
    })
}

/// The digest or the tag, as registries are asked for it.
pub(crate) fn version(image: &Reference) -> &str {
    image.digest().or(image.tag()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_kubelets() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        for (name, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("Registry/a", "registry/a:latest".to_owned()),
            ("[::1]:5000/a:1", "[::1]:5000/a:1".to_owned()),
            (&format!("r.io/a:1@{digest}"), format!("r.io/a@{digest}")),
        ] {
            let image = parse(name).unwrap();
            assert_eq!(image.to_string(), full);
            assert_eq!(image.to_string(), ImageName::parse(name).unwrap().to_string());
        }
        assert_eq!(parse("NOT A NAME"), None);
        assert_ne!("Registry/a".parse::<Reference>().ok(), parse("Registry/a"), "its own parser");
    }
}
