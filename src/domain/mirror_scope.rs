//! Which sessions of other hosts a host reads ahead of anybody's asking.
//!
//! The scope is a filter by project. A host's own sessions are always in its scope. What is not in scope is asked for when
//! it is wanted (see [`super::on_demand`]).

use std::fmt;
use std::sync::Arc;

use super::{Invalid, Project};

/// Which sessions of other hosts are mirrored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MirrorScope {
    /// Those of all projects.
    #[default]
    All,
    /// Those of these projects, in order and each once.
    Projects(Arc<[Project]>),
    /// None.
    None,
}

impl MirrorScope {
    /// The most projects of a scope: each query to central names all of them.
    pub const MAX_PROJECTS: usize = 100;

    /// The scope of these projects.
    ///
    /// # Errors
    /// There is none, there are more than [`Self::MAX_PROJECTS`], or one is named twice.
    pub fn of_projects(mut projects: Vec<Project>) -> Result<Self, Invalid> {
        let invalid = |rule: String| Err(Invalid::new("projects", rule));
        if projects.is_empty() {
            return invalid("it must name at least one project with scope = \"projects\"".into());
        }
        if projects.len() > Self::MAX_PROJECTS {
            let named = projects.len();
            return invalid(format!("it names {named} projects; at most {} are allowed", Self::MAX_PROJECTS));
        }
        projects.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        match projects.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => invalid(format!("it names {} twice", pair[0])),
            None => Ok(Self::Projects(projects.into())),
        }
    }

    /// Whether everything is in scope.
    pub const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether other hosts' sessions of this project are in scope.
    pub fn includes(&self, project: &Project) -> bool {
        match self {
            Self::All => true,
            Self::Projects(projects) => projects.contains(project),
            Self::None => false,
        }
    }

    /// The projects in scope; `None` if all are.
    pub fn projects(&self) -> Option<Vec<&str>> {
        match self {
            Self::All => None,
            Self::Projects(projects) => Some(projects.iter().map(Project::as_str).collect()),
            Self::None => Some(Vec::new()),
        }
    }
}

/// `all`, `none`, or `projects` and their names: the same for equal scopes only.
impl fmt::Display for MirrorScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.projects() {
            None => f.write_str("all"),
            Some(projects) if projects.is_empty() => f.write_str("none"),
            Some(projects) => write!(f, "projects {}", projects.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> Project {
        Project::parse(name).unwrap()
    }

    fn of(names: &[&str]) -> Result<MirrorScope, Invalid> {
        MirrorScope::of_projects(names.iter().map(|name| project(name)).collect())
    }

    #[test]
    fn scope_includes_its_projects_only() {
        let scope = of(&["web", "odin"]).unwrap();
        assert!(scope.includes(&project("odin")) && scope.includes(&project("web")));
        assert!(!scope.includes(&project("odin2")) && !scope.is_all());
        assert_eq!(scope.projects(), Some(vec!["odin", "web"]));
        assert!(MirrorScope::All.includes(&project("odin")) && MirrorScope::All.is_all());
        assert_eq!(MirrorScope::All.projects(), None);
        assert!(!MirrorScope::None.includes(&project("odin")));
        assert_eq!(MirrorScope::None.projects(), Some(Vec::new()));
    }

    #[test]
    fn equal_scopes_have_the_same_text_whatever_the_order() {
        assert_eq!(of(&["b", "a"]).unwrap().to_string(), "projects a b");
        assert_eq!(of(&["a", "b"]).unwrap(), of(&["b", "a"]).unwrap());
        assert_eq!(MirrorScope::All.to_string(), "all");
        assert_eq!(MirrorScope::None.to_string(), "none");
        assert_eq!(of(&["none"]).unwrap().to_string(), "projects none");
    }

    #[test]
    fn number_of_projects_is_bounded_and_none_is_named_twice() {
        assert!(of(&[]).unwrap_err().rule.contains("at least one"));
        assert!(of(&["a", "b", "a"]).unwrap_err().rule.contains("names a twice"));
        let many: Vec<_> = (0..=MirrorScope::MAX_PROJECTS).map(|n| project(&format!("p{n}"))).collect();
        assert!(MirrorScope::of_projects(many.clone()).unwrap_err().rule.contains("at most 100"));
        assert!(MirrorScope::of_projects(many[1..].to_vec()).is_ok());
    }
}
