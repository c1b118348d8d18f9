//! Writes the man pages and completions into a folder, from the same definitions as the verbs.

use std::io;
use std::path::PathBuf;

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "target/manuals".into()));
    std::fs::create_dir_all(&folder)?;
    let command = sessiond::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "sessiond", &folder)?;
    }
    clap_mangen::generate_to(command, &folder)
}
