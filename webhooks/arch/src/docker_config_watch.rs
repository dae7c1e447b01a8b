//! The docker configuration that the operator mounts: read at the start, and again when it changes. The tokens in it may live no
//! longer than hours.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::credentials::{DockerConfig, HELPERS};
use crate::image_resolver::ImageResolver;

/// The path that Docker uses, for root.
pub(crate) const DEFAULT_PATH: &str = "/root/.docker/config.json";
/// Interval between two reads. The content is polled: the kubelet swaps a symlink above the file, which a watch on the file misses.
const INTERVAL: Duration = Duration::from_secs(10);

/// Reads the file. The file of the default path may be absent.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<DockerConfig>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(DockerConfig::from_json(&text)?)),
        // Other users may not read the home directory of root.
        Err(error)
            if path == Path::new(DEFAULT_PATH)
                && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads the file again when it changes, and never returns. A file that cannot be read is logged once, and the previous credentials stay.
pub(crate) async fn follow(path: PathBuf, images: Arc<ImageResolver>) {
    let mut said = String::new();
    loop {
        sleep(INTERVAL).await;
        match reload(&path, &images) {
            Ok(true) => info!(path = %path.display(), "the docker configuration was read again"),
            Ok(false) => {}
            Err(error) => {
                let problem = error.to_string();
                if said != problem {
                    let path = path.display();
                    warn!(%path, problem, "can't read the docker configuration: the one before stays in use");
                    said = problem;
                }
                continue;
            }
        }
        said.clear();
    }
}

/// Logs that a file names credential helpers.
pub(crate) fn warn_of_helpers(path: &Path, file: &DockerConfig) {
    if file.has_helpers() {
        warn!(path = %path.display(), "{HELPERS}");
    }
}

/// Whether there is something new.
fn reload(path: &Path, images: &ImageResolver) -> anyhow::Result<bool> {
    match (read(path)?, images.mounted()) {
        (None, Some(_)) => bail!("it is gone"),
        (None, None) => Ok(false),
        (Some(file), Some(before)) if file == *before => Ok(false),
        (Some(file), _) => {
            warn_of_helpers(path, &file);
            images.mount(file);
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arch_decision::config::Settings;

    #[tokio::test(start_paused = true)]
    async fn changed_file_is_used_unless_broken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let write = |user: &str| {
            let file = format!(r#"{{"auths": {{"a.b": {{"username": "{user}", "password": "p"}}}}}}"#);
            fs::write(&path, &file).unwrap();
            DockerConfig::from_json(&file).unwrap()
        };
        let first = write("first");
        let images = ImageResolver::new(&Settings::default(), read(&path).unwrap(), None).unwrap();
        let images = Arc::new(images);
        tokio::spawn(follow(path.clone(), Arc::clone(&images)));
        let used = async || {
            sleep(2 * INTERVAL).await;
            images.mounted().unwrap()
        };
        assert_eq!(*used().await, first);
        let second = write("second");
        assert_eq!(*used().await, second);
        fs::write(&path, "{").unwrap();
        assert_eq!(*used().await, second);
        fs::remove_file(&path).unwrap();
        assert_eq!(*used().await, second);
        let third = write("third");
        assert_eq!(*used().await, third);
    }
}
