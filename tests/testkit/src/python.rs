//! Packages of Python that tests use, each in a virtual environment of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter of an environment in `folder` that has `package`, as pip names it with its version; it is installed
/// unless it is there. `module` is what the package is imported as. `None` where it cannot be had.
pub fn with_package(folder: &Path, package: &str, module: &str) -> Option<PathBuf> {
    let python = folder.join("bin/python3");
    let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let works = || succeeds(Command::new(&python).args(["-c", &format!("import {module}")]));
    let install = || {
        succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))
            && succeeds(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "--retries", "1", package]))
    };
    (works() || (install() && works())).then_some(python)
}
