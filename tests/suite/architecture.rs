//! The arrows of ARCHITECTURE.md: which folder of src may use which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines `name -> other, other` of the indented block that follows `heading` in ARCHITECTURE.md.
fn allowed(heading: &str) -> Arrows {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let after = text.split(heading).nth(1).unwrap_or_else(|| panic!("ARCHITECTURE.md has no {heading:?}"));
    let block = after.lines().skip_while(|line| !line.contains(" -> ")).take_while(|line| line.contains(" -> "));
    let arrows: Arrows = block
        .map(|line| {
            let (from, to) = line.trim().split_once(" -> ").unwrap();
            (from.trim().to_owned(), to.split(", ").map(|name| name.trim().to_owned()).collect())
        })
        .collect();
    assert!(arrows.len() > 3, "no arrows follow {heading:?}");
    arrows
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Tests may use everything.
fn is_test(path: &Path) -> bool {
    path.iter().any(|part| {
        let part = part.to_str().unwrap();
        part.trim_end_matches(".rs").ends_with("tests") || part == "testing"
    })
}

/// A file's code without comments and without its test module.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The names that follow `prefix` in a path, also inside braces: of `crate::{a::b, c}` a and c.
fn used(code: &str, prefix: &str) -> BTreeSet<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for after in code.split(prefix).skip(1) {
        let Some(list) = after.strip_prefix('{') else {
            found.insert(name(after));
            continue;
        };
        let mut depth = 1;
        let mut item = String::new();
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && c == ',') {
                found.insert(name(item.trim()));
                item.clear();
            } else {
                item.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// The first part of a path below `dir`, without its extension.
fn top(path: &Path, dir: &Path) -> String {
    let first = path.strip_prefix(dir).unwrap().iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Arrows between the parts of `dir` that `allowed` does not have.
fn forbidden(dir: &Path, prefix: &str, allowed: &Arrows) -> Vec<String> {
    let names: BTreeSet<_> = fs::read_dir(dir).unwrap().map(|entry| top(&entry.unwrap().path(), dir)).collect();
    let mut forbidden = Vec::new();
    for path in sources(dir).into_iter().filter(|path| !is_test(path)) {
        let from = top(&path, dir);
        let Some(allowed) = allowed.get(&from) else { continue };
        for to in used(&code(&path), prefix) {
            if to != from && names.contains(&to) && !allowed.contains(&to) {
                forbidden.push(format!("{} uses {to}, and {from} may not", path.display()));
            }
        }
    }
    forbidden
}

#[test]
fn folders_use_only_what_the_map_allows() {
    let src = root().join("src");
    let mut broken = forbidden(&src, "crate::", &allowed("along these arrows"));
    broken.extend(forbidden(&src.join("store"), "crate::store::", &allowed("The store has layers")));
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_folder_is_in_the_map() {
    let allowed = allowed("along these arrows");
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(!path.is_dir() || allowed.contains_key(&name), "{name} is not among the arrows of ARCHITECTURE.md");
    }
}

#[test]
fn the_map_has_no_circles() {
    for heading in ["along these arrows", "The store has layers"] {
        let mut left = allowed(heading);
        while !left.is_empty() {
            let free = left.iter().find(|(_, to)| to.iter().all(|name| !left.contains_key(name)));
            let name = free.map(|(name, _)| name.clone()).unwrap_or_else(|| panic!("a circle among {left:?}"));
            left.remove(&name);
        }
    }
}

#[test]
fn the_check_notices_a_forbidden_arrow() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("low")).unwrap();
    fs::create_dir_all(dir.path().join("high")).unwrap();
    fs::write(dir.path().join("low/a.rs"), "use crate::{\n    high::{b, c},\n    low::d,\n};\n// crate::low\n")
        .unwrap();
    let allowed = Arrows::from([("low".to_owned(), BTreeSet::new())]);
    assert_eq!(forbidden(dir.path(), "crate::", &allowed).len(), 1);
}

#[test]
fn no_source_file_is_too_long_to_read() {
    // Data, and lists of rules.
    const DATA: [&str; 1] = ["src/domain/redact/rules.rs"];
    const LINES: usize = 500;
    let long: Vec<_> = sources(&root().join("src"))
        .into_iter()
        .map(|path| (path.strip_prefix(root()).unwrap().display().to_string(), fs::read_to_string(path).unwrap()))
        .filter(|(name, text)| !DATA.contains(&name.as_str()) && text.lines().count() > LINES)
        .map(|(name, text)| format!("{name}: {} lines", text.lines().count()))
        .collect();
    assert!(long.is_empty(), "longer than {LINES} lines: {long:#?}");
}
