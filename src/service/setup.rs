//! What a person says while installing: the machine's name and central, written down where the daemon reads it.

use std::fs;
use std::path::Path;

use percent_encoding::percent_decode_str;
use url::Url;

use super::refusal;
use super::steps::Step;
use crate::wire::{ErrorCode, ErrorDetail};

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// The password is kept apart from the URL: one is for all to read, the other for the daemon alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    machine: Option<String>,
    central_url: Option<String>,
    password: Option<String>,
}

impl Setup {
    /// # Errors
    /// The URL is none.
    pub fn new(machine: Option<String>, central_url: Option<&str>) -> Result<Self, ErrorDetail> {
        let Some(text) = central_url else { return Ok(Self { machine, ..Self::default() }) };
        let wrong =
            |why: String| refusal(ErrorCode::Usage, format!("--central-url: {why}"), "give it as psql takes it");
        // Several hosts are no URL proper; a password is cut out by hand then.
        let password = match Url::parse(text) {
            Ok(url) => url.password().map(percent_decoded),
            Err(_) if text.contains(',') => None,
            Err(error) => return Err(wrong(error.to_string())),
        };
        let url = match Url::parse(text) {
            Ok(mut url) if password.is_some() => {
                url.set_password(None).map_err(|()| wrong("it can hold no password".into()))?;
                url.to_string()
            }
            _ => text.to_owned(),
        };
        if crate::config::has_password(&url) {
            return Err(wrong("leave the password out, and put it into central.password_file".into()));
        }
        Ok(Self { machine, central_url: Some(url), password })
    }

    /// The files that hold the configuration and the password.
    ///
    /// `named`: the configuration has to name the password's file. `defaults`: what a new configuration says beyond the
    /// example, as a line of the example and the line in its place.
    pub(super) fn steps(
        &self,
        config: &Path,
        password_file: &Path,
        named: bool,
        defaults: &[(&str, &str)],
    ) -> Result<Vec<Step>, ErrorDetail> {
        let mut wanted = Vec::new();
        if let Some(machine) = &self.machine {
            wanted.push(("#name = \"laptop\"", format!("name = {}", quoted(machine))));
        }
        if let Some(url) = &self.central_url {
            wanted.push(("#url = ", format!("url = {}", quoted(url))));
        }
        if named && self.password.is_some() {
            let path = password_file.display().to_string();
            wanted.push(("#password_file = ", format!("password_file = {}", quoted(&path))));
        }
        let mut steps = Vec::new();
        match fs::read_to_string(config) {
            Ok(text) => refuse_what_differs(&text, &wanted, config)?,
            Err(_) => {
                wanted.extend(defaults.iter().map(|(example, line)| (*example, (*line).to_owned())));
                steps.push(Step::write(config, 0o644, example_with(&wanted)));
            }
        }
        if let Some(password) = &self.password {
            steps.push(Step::secret(password_file, format!("{password}\n")));
        }
        Ok(steps)
    }
}

/// A file that somebody wrote is not rewritten.
fn refuse_what_differs(text: &str, wanted: &[(&str, String)], config: &Path) -> Result<(), ErrorDetail> {
    match wanted.iter().find(|(_, line)| !text.lines().any(|have| have.trim() == line)) {
        None => Ok(()),
        Some((_, line)) => Err(refusal(
            ErrorCode::Conflict,
            format!("{} is there already, and does not say {line}", config.display()),
            "write that into it, and install again without the flag",
        )),
    }
}

fn example_with(wanted: &[(&str, String)]) -> String {
    let line = |line: &str| {
        let said = wanted.iter().find(|(example, _)| line.starts_with(example));
        format!("{}\n", said.map_or(line, |(_, said)| said))
    };
    EXAMPLE.lines().map(line).collect()
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(steps: &[Step]) -> Vec<String> {
        steps.iter().filter_map(|step| step.text().map(str::to_owned)).collect()
    }

    #[test]
    fn a_password_goes_into_a_file_of_its_own() {
        let setup = Setup::new(Some("laptop".into()), Some("postgres://me:s%23cret@odin3:5435/x")).unwrap();
        let steps = setup.steps(Path::new("/nowhere/config.toml"), Path::new("/nowhere/password"), true, &[]).unwrap();
        let texts = text_of(&steps);
        assert_eq!(texts[1], "s#cret\n");
        let config: toml::Table = texts[0].parse().unwrap();
        assert_eq!(config["machine"]["name"].as_str(), Some("laptop"));
        assert_eq!(config["central"]["url"].as_str(), Some("postgres://me@odin3:5435/x"));
        assert_eq!(config["central"]["password_file"].as_str(), Some("/nowhere/password"));
        assert!(!texts[0].contains("s%23cret"));
    }

    #[test]
    fn with_nothing_said_it_is_the_example() {
        let steps = Setup::default().steps(Path::new("/nowhere/c"), Path::new("/nowhere/p"), true, &[]).unwrap();
        assert_eq!(text_of(&steps), [EXAMPLE]);
    }

    #[test]
    fn a_file_that_somebody_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        fs::write(&config, "[central]\nurl = \"postgres://me@odin3/x\"\n").unwrap();
        let of = |url| Setup::new(None, Some(url)).unwrap().steps(&config, Path::new("/p"), false, &[]);
        assert_eq!(text_of(&of("postgres://me@odin3/x").unwrap()), Vec::<String>::new());
        let error = of("postgres://me@odin4/x").unwrap_err();
        assert!(error.message.contains("does not say url = \"postgres://me@odin4/x\""), "{}", error.message);
    }

    #[test]
    fn what_is_no_url_is_named_without_the_password() {
        for url in
            ["postgres://me:hunter2@a:1,b:2/x", "postgres://me:hunter2@h:port/x", "postgres://me@h/x?password=hunter2"]
        {
            let error = Setup::new(None, Some(url)).unwrap_err();
            assert!(
                error.message.starts_with("--central-url: ") && !error.message.contains("hunter2"),
                "{}",
                error.message
            );
        }
    }
}
