//! The platforms of images.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::truncate::listed;

/// An operating system and a CPU architecture, as Go and images name them: `linux/amd64`, `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `GOOS`.
    pub os: Box<str>,
    /// The architecture, with its variant if it isn't the usual one.
    pub architecture: Architecture,
}

/// A CPU architecture: `GOARCH` and, where there are several, the variant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture {
    /// `GOARCH`.
    pub name: Box<str>,
    /// `v7` of `arm`, `v3` of `amd64`; none where it is the usual one, or any.
    pub variant: Option<Box<str>>,
}

/// The architectures of nodes that Kubernetes knows: `GOARCH` of the platforms that it is or was built for. No other word becomes a
/// requirement of a pod, because images can name any.
pub const KUBERNETES_ARCHITECTURES: [&str; 9] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"];

/// The platforms that an image supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platforms {
    /// It holds nothing that a CPU would run, such as a volume of data.
    Any,
    /// Manifests of an operator, which OLM unpacks by a program of another image. Its configuration names the architecture of the
    /// machine that built it.
    OlmBundle,
    /// On these alone.
    Only(BTreeSet<Platform>),
}

impl Platform {
    /// By the words of an image index or configuration, of whatever spelling (`Normalize` of github.com/containerd/platforms).
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match &*os.to_ascii_lowercase() {
            "macos" => "darwin".into(),
            os => os.into(),
        };
        Self { os, architecture: Architecture::normal(architecture, variant.unwrap_or_default()) }
    }

    /// Bytes of its text, which the author of an image chooses.
    pub fn text_len(&self) -> usize {
        let Architecture { name, variant } = &self.architecture;
        self.os.len() + name.len() + variant.as_ref().map_or(0, |variant| variant.len())
    }
}

impl Architecture {
    fn normal(name: &str, variant: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (name, variant) = match (&*name, &*variant) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        Self {
            name: name.into(),
            variant: Some(variant).filter(|variant| !variant.is_empty()).map(Into::into),
        }
    }

    /// Whether CPUs of this architecture run images for `other`. Without a variant it includes all variants; with one, it
    /// includes that one and those before it.
    pub fn runs(&self, other: &Self) -> bool {
        let level = |variant: &Option<Box<str>>| {
            variant.as_deref().map_or(Some(0), |variant| variant.strip_prefix('v')?.parse::<u8>().ok())
        };
        // As containerd has it (`platformVector` of github.com/containerd/platforms), but for one thing: it has every arm64 run
        // arm as well, and whether a CPU does is its maker's choice.
        (&*self.name, &*other.name) == ("amd64", "386")
            || self.name == other.name
                && (self.variant.is_none()
                    || self.variant == other.variant
                    || matches!((level(&self.variant), level(&other.variant)), (Some(own), Some(other)) if other <= own))
    }

    /// Whether containerd on such a node selects an index entry for `other`. An amd64 or arm64 node selects entries of the baseline
    /// only (`platforms.Default` of github.com/containerd/platforms); CRI-O selects by the architecture alone, as [`Self::runs`].
    pub fn selects(&self, other: &Self) -> bool {
        let any_variant = self.variant.is_none() && &*self.name != "arm";
        self.runs(other) && !(any_variant && other.variant.is_some())
    }

    /// Whether it is an architecture of Kubernetes nodes, of whatever variant.
    pub fn is_known(&self) -> bool {
        KUBERNETES_ARCHITECTURES.contains(&&*self.name)
    }
}

impl Platforms {
    /// Whether the image runs on a node of this operating system and architecture.
    pub fn run_on(&self, os: &str, architecture: &Architecture) -> bool {
        self.any_for(os, |own| architecture.runs(own))
    }

    /// Whether every container runtime selects the image on such a node; see [`Architecture::selects`].
    pub fn are_selected_on(&self, os: &str, architecture: &Architecture) -> bool {
        self.any_for(os, |own| architecture.selects(own))
    }

    fn any_for(&self, os: &str, matches: impl Fn(&Architecture) -> bool) -> bool {
        match self {
            Self::Any | Self::OlmBundle => true,
            Self::Only(platforms) => {
                platforms.iter().any(|platform| &*platform.os == os && matches(&platform.architecture))
            }
        }
    }

    /// The architectures for one operating system, as a person reads them; without one, all platforms.
    pub fn on(&self, os: &str) -> String {
        let Self::Only(platforms) = self else { return "any".to_owned() };
        let own = platforms.iter().filter(|platform| &*platform.os == os);
        let names = listed(", ", own.map(|platform| &platform.architecture));
        match (names.is_empty(), platforms.is_empty()) {
            (false, _) => names,
            // The platforms of other operating systems, in full.
            (true, false) => listed(", ", platforms),
            (true, true) => "nothing".to_owned(),
        }
    }
}

/// A name that is no architecture.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no architecture: one is called amd64, arm64, arm/v7, s390x, ...")]
pub struct ArchitectureError(String);

impl FromStr for Architecture {
    type Err = ArchitectureError;

    fn from_str(text: &str) -> Result<Self, ArchitectureError> {
        let (name, variant) = text.split_once('/').unwrap_or((text, ""));
        let word = |word: &str| word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        // `linux/arm64` is a platform.
        let is_os = matches!(name, "linux" | "windows");
        if name.is_empty() || is_os || !word(name) || !word(variant) || text.ends_with('/') || text.len() > 63
        {
            return Err(ArchitectureError(text.to_owned()));
        }
        // `arm` here is every arm, not the one that Go builds for by default.
        let usual = Self { name: name.into(), variant: None };
        Ok(if variant.is_empty() && name == "arm" { usual } else { Self::normal(name, variant) })
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_platform() {
        for (os, architecture, variant, normal) in [
            ("linux", "amd64", None, "linux/amd64"),
            ("Linux", "x86_64", Some("v1"), "linux/amd64"),
            ("linux", "amd64", Some("v3"), "linux/amd64/v3"),
            ("linux", "aarch64", None, "linux/arm64"),
            ("linux", "arm64", Some("v8"), "linux/arm64"),
            ("linux", "arm", None, "linux/arm/v7"),
            ("linux", "arm", Some("6"), "linux/arm/v6"),
            ("linux", "armel", Some("x"), "linux/arm/v6"),
            ("linux", "i386", Some(""), "linux/386"),
            ("macos", "arm64", None, "darwin/arm64"),
        ] {
            assert_eq!(Platform::new(os, architecture, variant).to_string(), normal);
        }
    }

    #[test]
    fn variant_runs_earlier_variants() {
        let runs = |own: &str, other| {
            let Platform { architecture, .. } = Platform::new("linux", "arm", Some(other));
            own.parse::<Architecture>().unwrap().runs(&architecture)
        };
        assert!(runs("arm", "v7") && runs("arm", "v5"));
        assert!(runs("arm/v7", "v7") && runs("arm/v7", "v6") && !runs("arm/v6", "v7"));
        assert!(!runs("arm64", "v8"));
        let old = Platform::new("linux", "i386", None).architecture;
        for (own, expected) in [("amd64", true), ("amd64/v2", true), ("386", true), ("arm64", false)] {
            assert_eq!(own.parse::<Architecture>().unwrap().runs(&old), expected, "{own}");
        }
        let amd64: Architecture = "amd64".parse().unwrap();
        assert!(
            amd64.runs(&Platform::new("linux", "x86_64", Some("v3")).architecture),
            "no label states the level"
        );
        for (own, os_arch, variant, expected) in [
            ("amd64", "amd64", None, true),
            ("amd64", "amd64", Some("v1"), true),
            ("amd64", "386", None, true),
            ("amd64", "amd64", Some("v2"), false),
            ("amd64/v3", "amd64", Some("v2"), true),
            ("arm64", "arm64", Some("v8"), true),
            ("arm64", "arm64", Some("v9"), false),
            ("arm", "arm", Some("v6"), true),
            ("arm64", "amd64", None, false),
        ] {
            let other = Platform::new("linux", os_arch, variant).architecture;
            assert_eq!(own.parse::<Architecture>().unwrap().selects(&other), expected, "{own} {other}");
        }
        for bad in ["", "arm/", "/v7", "a b", "linux/arm64", "windows", "AMD64", "kubernetes.io/arch"] {
            assert!(bad.parse::<Architecture>().is_err(), "{bad}");
        }
    }
}
