//! The Python that runs the foreign client: an environment of its own under the
//! build folder, made once for each set of pinned packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Two tests must not make it at once.
static MAKING: Mutex<()> = Mutex::new(());

/// The interpreter of an environment that holds what `requirements` pins.
pub(crate) fn interpreter(requirements: &Path) -> PathBuf {
    let _alone = MAKING.lock().unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai-venv");
    let python = dir.join("bin").join("python");
    let wanted = std::fs::read_to_string(requirements).expect("the pinned packages are listed");
    let done = dir.join("installed.txt");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    let _ = std::fs::remove_dir_all(&dir);
    let venv = Command::new("python3").args(["-m", "venv"]).arg(&dir).status();
    let made = venv.expect("python3 is needed on the PATH, to run the official OpenAI client");
    assert!(made.success(), "python3 -m venv failed; on Debian it is in the package python3-venv");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    let installed = Command::new(&python).args(install).arg(requirements).status();
    assert!(installed.expect("the environment has a python").success(), "pip could not install");
    std::fs::write(done, wanted).expect("the build folder can be written");
    python
}
