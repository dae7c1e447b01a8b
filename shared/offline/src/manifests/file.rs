//! Files, folders and standard input.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::documents::TextReader;

/// Opens `file`; `-` takes `stdin`, which is empty afterwards.
pub(crate) fn open<'r>(file: &Path, stdin: &mut Box<dyn Read + 'r>) -> io::Result<TextReader<'r>> {
    Ok(TextReader::new(if is_stdin(file) {
        std::mem::replace(stdin, Box::new(io::empty()))
    } else {
        Box::new(File::open(file)?)
    }))
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
