//! The options of an installation, machine name and central, which are written to the configuration file.

use std::fs;
use std::path::Path;

use percent_encoding::percent_decode_str;
use url::Url;

use super::error;
use super::steps::InstallStep;
use crate::wire::{ErrorCode, ErrorDetail};

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// The options. The password is separated from the URL, because all users can read the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The machine's name.
    machine: Option<String>,
    /// Central's URL.
    central_url: Option<String>,
    password: Option<String>,
}

impl Setup {
    /// # Errors
    /// The URL is invalid, or has a password that cannot be separated from it.
    pub fn new(machine: Option<String>, central_url: Option<&str>) -> Result<Self, ErrorDetail> {
        let Some(text) = central_url else { return Ok(Self { machine, ..Self::default() }) };
        let wrong = |why: String| {
            error(ErrorCode::Usage, format!("--central-url: {why}"), "give it in the form that psql accepts")
        };
        // A list of hosts is not a valid URL; a password in it is not separated, but refused below.
        let password = match Url::parse(text) {
            Ok(url) => url.password().map(percent_decoded),
            Err(_) if text.contains(',') => None,
            Err(error) => return Err(wrong(error.to_string())),
        };
        let url = match Url::parse(text) {
            Ok(mut url) if password.is_some() => {
                url.set_password(None).map_err(|()| wrong("it cannot have a password".into()))?;
                url.to_string()
            }
            _ => text.to_owned(),
        };
        if crate::config::has_password(&url) {
            return Err(wrong("it has a password; remove it and put it into central.password_file".into()));
        }
        Ok(Self { machine, central_url: Some(url), password })
    }

    /// The steps that write the configuration file and the password file.
    ///
    /// `named`: the configuration must name the password file. `defaults`: changes of a new configuration against the
    /// example, as the prefix of a line of the example and the line that replaces it.
    ///
    /// # Errors
    /// The configuration file exists and has other values.
    pub(super) fn steps(
        &self,
        config: &Path,
        password_file: &Path,
        named: bool,
        defaults: &[(&str, &str)],
    ) -> Result<Vec<InstallStep>, ErrorDetail> {
        let mut wanted = Vec::new();
        if let Some(machine) = &self.machine {
            wanted.push(("#name = \"laptop\"", format!("name = {}", toml_string(machine))));
        }
        if let Some(url) = &self.central_url {
            wanted.push(("#url = ", format!("url = {}", toml_string(url))));
        }
        if named && self.password.is_some() {
            let path = password_file.display().to_string();
            wanted.push(("#password_file = ", format!("password_file = {}", toml_string(&path))));
        }
        let mut steps = Vec::new();
        match fs::read_to_string(config) {
            Ok(text) => require_same_values(&text, &wanted, config)?,
            Err(_) => {
                wanted.extend(defaults.iter().map(|(example, line)| (*example, (*line).to_owned())));
                steps.push(InstallStep::write(config, 0o644, example_with(&wanted)));
            }
        }
        if let Some(password) = &self.password {
            steps.push(InstallStep::secret(password_file, format!("{password}\n")));
        }
        Ok(steps)
    }
}

/// # Errors
/// The existing configuration file, which is never rewritten, does not have all the wanted lines.
fn require_same_values(text: &str, wanted: &[(&str, String)], config: &Path) -> Result<(), ErrorDetail> {
    match wanted.iter().find(|(_, line)| !text.lines().any(|have| have.trim() == line)) {
        None => Ok(()),
        Some((_, line)) => Err(error(
            ErrorCode::Conflict,
            format!("{} exists and does not have the line {line}", config.display()),
            "add the line to it, and repeat the installation without the flag",
        )),
    }
}

fn example_with(wanted: &[(&str, String)]) -> String {
    let line = |line: &str| {
        let replacement = wanted.iter().find(|(example, _)| line.starts_with(example));
        format!("{}\n", replacement.map_or(line, |(_, replacement)| replacement))
    };
    EXAMPLE.lines().map(line).collect()
}

fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(steps: &[InstallStep]) -> Vec<String> {
        steps.iter().filter_map(|step| step.text().map(str::to_owned)).collect()
    }

    #[test]
    fn writes_the_password_to_a_separate_file() {
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
    fn without_options_the_configuration_is_the_example() {
        let steps = Setup::default().steps(Path::new("/nowhere/c"), Path::new("/nowhere/p"), true, &[]).unwrap();
        assert_eq!(text_of(&steps), [EXAMPLE]);
    }

    #[test]
    fn an_existing_configuration_is_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        fs::write(&config, "[central]\nurl = \"postgres://me@odin3/x\"\n").unwrap();
        let of = |url| Setup::new(None, Some(url)).unwrap().steps(&config, Path::new("/p"), false, &[]);
        assert_eq!(text_of(&of("postgres://me@odin3/x").unwrap()), Vec::<String>::new());
        let error = of("postgres://me@odin4/x").unwrap_err();
        assert!(error.message.contains("does not have the line url = \"postgres://me@odin4/x\""), "{}", error.message);
    }

    #[test]
    fn errors_of_a_url_do_not_show_the_password() {
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
