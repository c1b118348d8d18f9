//! Where the server listens, what that means, and how the user's browser gets there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::WebOptions;
use super::access::secret;
use crate::platform::files::private_file;
use crate::wire::{ErrorCode, ErrorDetail};

/// The shortest token that a file may have: 128 bits in hexadecimal digits.
const MIN_TOKEN: usize = 32;
/// The longest file.
const MAX_FILE: u64 = 4096;

/// The token of `--token-file`, which an address that other machines reach requires. A file that does not exist is made,
/// with a random token.
///
/// # Errors
/// The file is missing from the options, not private, or has no usable token.
pub(super) fn reusable_token(options: &WebOptions) -> Result<Option<String>, ErrorDetail> {
    let Some(path) = &options.token_file else {
        if options.listen.ip().is_loopback() {
            return Ok(None);
        }
        return Err(usage(
            format!("other machines can reach {}", options.listen),
            "give --token-file FILE, a file that only you can read with a token of 32 characters or more; it is made \
             if it does not exist",
        ));
    };
    token_of(path).map(Some).map_err(|why| {
        usage(
            format!("the token file {} {why}", path.display()),
            "it must be a file of your own with mode 0600 and a token of 32 characters or more",
        )
    })
}

fn usage(message: String, hint: &str) -> ErrorDetail {
    ErrorDetail { code: ErrorCode::Usage, message, hint: hint.to_owned() }
}

fn token_of(path: &Path) -> Result<String, String> {
    match private_file().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            let token = secret();
            file.write_all(format!("{token}\n").as_bytes()).map_err(|error| format!("cannot be written: {error}"))?;
            return Ok(token);
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(format!("cannot be made: {error}")),
    }
    let (about, mut file) =
        crate::platform::small_file::open(path, MAX_FILE).ok_or("is no small file that can be read")?;
    let own = rustix::process::geteuid().as_raw();
    if about.uid() != own {
        return Err(format!("belongs to user {}", about.uid()));
    }
    if about.mode() & 0o077 != 0 {
        return Err(format!("can be used by others (mode {:04o})", about.mode() & 0o7777));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    let token = text.trim();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    match token.len() >= MIN_TOKEN && token.chars().all(is_plain) {
        true => Ok(token.to_owned()),
        false => Err(format!("has no line of {MIN_TOKEN} or more letters, digits, - and _")),
    }
}

/// What it means that other machines reach the server.
pub(super) fn warning(address: SocketAddr) -> Option<String> {
    (!address.ip().is_loopback()).then(|| {
        format!(
            "{address} is HTTP in clear text: each machine that reaches this address can ask for the token, and anyone who \
             sees the traffic can read the token and the sessions; the token in the file stays valid until you change it. \
             `ssh -L` to a loopback address is safer"
        )
    })
}

/// A file that is deleted when this is dropped.
pub(super) struct LinkFile(PathBuf);

impl Drop for LinkFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Opens the URL in the user's browser. All users can read the arguments of a program, so it gets the name of a private
/// file that leads to the URL.
///
/// # Errors
/// The file cannot be written. A browser that cannot be started is no error: the URL was printed.
pub(super) fn open_in_browser(url: &str) -> Result<LinkFile, ErrorDetail> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("sessiond-web-{}.html", &secret()[..16]));
    let page =
        format!("<!doctype html><meta http-equiv=\"refresh\" content=\"0; url={url}\"><title>sessiond</title>\n");
    let written = private_file()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file: File| file.write_all(page.as_bytes()));
    written.map_err(|error| ErrorDetail {
        code: ErrorCode::Internal,
        message: format!("{} cannot be written: {error}", path.display()),
        hint: "open the printed URL, without --open".to_owned(),
    })?;
    let link = LinkFile(path);
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(opener);
    command.arg(&link.0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut browser) = command.spawn() {
        // Reaps it.
        std::thread::spawn(move || browser.wait());
    }
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn with_file(content: &str, mode: u32) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        token_of(&path)
    }

    #[test]
    fn only_a_private_file_with_a_long_token_is_accepted() {
        let token = "0123456789abcdef0123456789abcdef";
        assert_eq!(with_file(&format!("{token}\n"), 0o600).as_deref(), Ok(token));
        assert_eq!(with_file(token, 0o400).as_deref(), Ok(token));
        assert!(with_file(token, 0o640).unwrap_err().contains("mode 0640"));
        for (content, mode) in [("short", 0o600), ("", 0o600), ("a b".repeat(20).as_str(), 0o600), (token, 0o604)] {
            assert!(with_file(content, mode).is_err(), "{content} {mode:o}");
        }
        assert!(token_of(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn a_missing_file_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = token_of(&path).unwrap();
        assert_eq!((token.len(), token_of(&path).unwrap() == token), (64, true));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
