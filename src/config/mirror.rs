//! `[mirror]`: which sessions of other hosts this host reads ahead.

use super::ConfigError;
use super::file::MirrorSection;
use super::settings::quotable;
use crate::domain::{MirrorScope, Project};

const PROJECTS: &str = "mirror.projects";

/// The scope that the section asks for.
///
/// # Errors
/// The scope is unknown, or the projects do not fit it.
pub(super) fn scope(section: MirrorSection) -> Result<MirrorScope, ConfigError> {
    let projects = section.projects.unwrap_or_default();
    let scope = match section.scope.as_deref() {
        Some("projects") => return of_projects(&projects),
        None | Some("all") => MirrorScope::All,
        Some("none") => MirrorScope::None,
        Some(other) => {
            let rule = format!("\"{}\" is none of all, projects, none", quotable(other));
            return Err(ConfigError::key("mirror.scope", rule));
        }
    };
    if projects.is_empty() {
        return Ok(scope);
    }
    Err(ConfigError::key(PROJECTS, "it is allowed only with mirror.scope = \"projects\""))
}

fn of_projects(names: &[String]) -> Result<MirrorScope, ConfigError> {
    let invalid = |rule: String| ConfigError::key(PROJECTS, rule);
    let project = |name: &String| Project::parse(&quotable(name)).map_err(|error| invalid(error.rule.to_string()));
    let projects = names.iter().map(project).collect::<Result<_, _>>()?;
    MirrorScope::of_projects(projects).map_err(|error| invalid(error.rule.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::ConfigFile;

    fn of(toml: &str) -> Result<MirrorScope, String> {
        let file = ConfigFile::parse(toml).map_err(|error| error.to_string())?;
        scope(file.mirror).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_is_in_scope_by_default() {
        for toml in ["", "[mirror]", "[mirror]\nscope = \"all\"", "[mirror]\nscope = \"all\"\nprojects = []"] {
            assert_eq!(of(toml), Ok(MirrorScope::All), "{toml}");
        }
        assert_eq!(of("[mirror]\nscope = \"none\""), Ok(MirrorScope::None));
        let scope = of("[mirror]\nscope = \"projects\"\nprojects = [\"web\", \"odin\"]").unwrap();
        assert_eq!(scope.projects(), Some(vec!["odin", "web"]));
    }

    #[test]
    fn errors_name_the_key_and_what_is_allowed() {
        let many: Vec<_> = (0..101).map(|n| format!("\"p{n}\"")).collect();
        let many = format!("scope = \"projects\"\nprojects = [{}]", many.join(", "));
        for (toml, message) in [
            ("scope = \"some\"", "mirror.scope: \"some\" is none of all, projects, none"),
            ("scope = \"\"", "mirror.scope: \"\" is none of all, projects, none"),
            ("scope = \"All\"", "mirror.scope: \"All\" is none of"),
            ("scope = \"projects\"", "mirror.projects: it must name at least one project"),
            ("scope = \"projects\"\nprojects = []", "mirror.projects: it must name at least one project"),
            ("projects = [\"odin\"]", "mirror.projects: it is allowed only with mirror.scope"),
            ("scope = \"none\"\nprojects = [\"odin\"]", "mirror.projects: it is allowed only with mirror.scope"),
            ("scope = \"projects\"\nprojects = [\"a b\"]", "mirror.projects: "),
            ("scope = \"projects\"\nprojects = [\"\"]", "mirror.projects: "),
            ("scope = \"projects\"\nprojects = [\"Odin\"]", "mirror.projects: "),
            ("scope = \"projects\"\nprojects = [\"a\", \"b\", \"a\"]", "mirror.projects: it names a twice"),
            (many.as_str(), "mirror.projects: it names 101 projects; at most 100"),
            ("scope = 3", "mirror.scope"),
            ("scope = \"projects\"\nprojects = \"odin\"", "mirror.projects"),
            ("project = [\"odin\"]", "there is no key mirror.project; did you mean mirror.projects?"),
        ] {
            let error = of(&format!("[mirror]\n{toml}")).unwrap_err();
            assert!(error.contains(message) && error.lines().count() == 1, "{toml}: {error}");
        }
    }
}
