//! Files, folders and standard input.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// More than any list of objects in etcd, and a bound for mistakes such as `-f /dev/zero`.
const MAX_BYTES: u64 = 512 << 20;

/// Reads `file`; `-` is `stdin`.
pub(crate) fn read(file: &Path, stdin: &mut dyn Read) -> Result<String, String> {
    let read = |source: &mut dyn Read| {
        let mut bytes = Vec::new();
        source.take(MAX_BYTES + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes =
        if is_stdin(file) { read(stdin) } else { File::open(file).and_then(|mut file| read(&mut file)) };
    let bytes = bytes.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("larger than {} MiB", MAX_BYTES >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let hint =
            if error.as_bytes().starts_with(&[0xff, 0xfe]) || error.as_bytes().starts_with(&[0xfe, 0xff]) {
                "; it looks like UTF-16, save it as UTF-8"
            } else {
                ""
            };
        format!("not UTF-8 at byte {at}{hint}")
    })
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// The name of `file` in messages.
pub(crate) fn name(file: &Path) -> String {
    if is_stdin(file) { "stdin".to_owned() } else { file.display().to_string() }
}

/// `path`, or the manifests in it if it is a directory, as kubectl selects them.
pub(crate) fn expand(path: &Path) -> io::Result<Vec<PathBuf>> {
    if is_stdin(path) || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let is_manifest = file.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if is_manifest && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(io::Error::other("no .yaml, .yml or .json file in this directory"));
    }
    files.sort();
    Ok(files)
}
