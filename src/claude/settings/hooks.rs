//! The hooks of this program in a settings file: adding, finding and removing them.
//!
//! Claude Code, Codex and Gemini CLI list them as `hooks.EVENT[].hooks[].command`, Cursor and Copilot CLI as
//! `hooks.EVENT[].KEY`. A hook belongs to this program if it runs only this program, also by an old path or with options
//! that were added by hand; hooks that run other programs too are the user's.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::jsonc::{self, Node};
use super::{SettingsError, command};

const HOOKS: &str = "hooks";

/// How a settings file lists hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookShape {
    /// As Claude Code: an event has groups, each with a matcher and hooks.
    Groups,
    /// `KEY` has the command.
    Flat(&'static str),
}

/// A hook that runs this program.
#[derive(Clone, Copy, Debug)]
pub struct OwnHook<'a> {
    /// How the file lists it.
    pub shape: HookShape,
    /// The event, by the agent's name for it.
    pub event: &'a str,
    /// The arguments that make it this event's hook.
    pub arguments: &'a [&'a str],
    /// The tools for which it runs; `None`: all.
    pub matcher: Option<&'a str>,
    /// Further fields.
    pub fields: &'a [(&'static str, i64)],
}

impl OwnHook<'_> {
    /// The hook as an item of its event's list.
    fn item(&self, program: &str) -> Value {
        let command = format!("{} {}", quoted(program), self.arguments.join(" "));
        let (key, is_typed) = match self.shape {
            HookShape::Groups => ("command", true),
            HookShape::Flat(key) => (key, key != "command"),
        };
        let mut hook = json!({key: command});
        if is_typed {
            hook["type"] = "command".into();
        }
        for (name, value) in self.fields {
            hook[*name] = (*value).into();
        }
        let mut item = if self.shape == HookShape::Groups { json!({HOOKS: [hook]}) } else { hook };
        if let Some(matcher) = self.matcher {
            item["matcher"] = matcher.into();
        }
        item
    }

    /// The commands in its event's list.
    fn commands<'a>(&self, list: &'a Node, text: &str) -> Vec<(&'a Node, String)> {
        let items = list.items().iter();
        let nodes: Vec<_> = match self.shape {
            HookShape::Groups => {
                let hooks = items.filter_map(|group| group.member(HOOKS)).flat_map(Node::items);
                hooks.filter_map(|hook| hook.member("command")).collect()
            }
            HookShape::Flat(key) => items.filter_map(|hook| hook.member(key)).collect(),
        };
        nodes.into_iter().filter_map(|node| Some((node, node.string(text)?))).collect()
    }

    /// Whether this item of a list of hooks runs only this program.
    fn is_alone(&self, hook: &Node, text: &str) -> bool {
        let key = if let HookShape::Flat(key) = self.shape { key } else { "command" };
        let line = hook.member(key).and_then(|node| node.string(text));
        line.and_then(|line| command::find(&line, self.arguments)).is_some_and(|call| call.is_alone)
    }

    /// Adds the hook, or corrects the path of this program in the one that is there.
    ///
    /// # Errors
    /// The settings cannot be parsed, or have another shape.
    pub fn add(&self, text: &str, program: &str) -> Result<String, SettingsError> {
        let root = object(text)?;
        let Some(hooks) = root.member(HOOKS) else {
            return Ok(root.with_member(text, HOOKS, &json!({self.event: [self.item(program)]})));
        };
        if !hooks.is_object() {
            return Err(SettingsError::Shape(HOOKS.into(), "an object"));
        }
        let Some(list) = hooks.member(self.event) else {
            return Ok(hooks.with_member(text, self.event, &json!([self.item(program)])));
        };
        if !list.is_array() {
            return Err(SettingsError::Shape(format!("{HOOKS}.{}", self.event), "an array"));
        }
        for (node, old) in self.commands(list, text) {
            if let Some(call) = command::find(&old, self.arguments) {
                let updated = with_program(&old, &call, program);
                let text = if updated == old { text.to_owned() } else { node.replaced(text, &json!(updated)) };
                // Each event is reported once.
                return self.remove(text, 1);
            }
        }
        Ok(list.with_item(text, &self.item(program)))
    }

    /// Removes the hooks that run only this program, except for the first `keep`.
    ///
    /// # Errors
    /// The settings cannot be parsed.
    pub fn remove(&self, mut text: String, keep: usize) -> Result<String, SettingsError> {
        while let Some(shorter) = self.without_one(&text, keep)? {
            text = shorter;
        }
        Ok(text)
    }

    fn without_one(&self, text: &str, keep: usize) -> Result<Option<String>, SettingsError> {
        let root = object(text)?;
        let Some((of_hooks, hooks)) = root.place_of(HOOKS).zip(root.member(HOOKS)) else { return Ok(None) };
        let Some((of_list, list)) = hooks.place_of(self.event).zip(hooks.member(self.event)) else { return Ok(None) };
        let mut own = Vec::new();
        for (of_item, item) in list.items().iter().enumerate() {
            match (self.shape, item.member(HOOKS)) {
                (HookShape::Flat(_), _) if self.is_alone(item, text) => own.push((of_item, None)),
                (HookShape::Groups, Some(group)) => {
                    let places = group.items().iter().enumerate().filter(|(_, hook)| self.is_alone(hook, text));
                    own.extend(places.map(|(place, _)| (of_item, Some((group, place)))));
                }
                _ => {}
            }
        }
        Ok(own.get(keep).map(|(of_item, in_group)| {
            // A group that would have no hooks is removed.
            let last = in_group.filter(|(group, _)| group.len() > 1);
            let nest = [(&root, of_hooks), (hooks, of_list), (list, *of_item)];
            without(text, &nest.into_iter().chain(last).collect::<Vec<_>>())
        }))
    }

    /// Whether there is such a hook.
    ///
    /// # Errors
    /// The settings cannot be parsed.
    pub fn is_in(&self, text: &str) -> Result<bool, SettingsError> {
        Ok(!self.calls(&object(text)?, text).is_empty())
    }

    /// The places of such hooks: of the group in its event's list, and of the hook in the group.
    pub fn places(&self, text: &str) -> Vec<(usize, usize)> {
        let Ok(root) = object(text) else { return Vec::new() };
        let Some(list) = root.member(HOOKS).and_then(|hooks| hooks.member(self.event)) else { return Vec::new() };
        let groups = list.items().iter().enumerate();
        let hooks = groups.flat_map(|(of_group, group)| {
            let hooks = group.member(HOOKS).map(Node::items).unwrap_or_default();
            hooks.iter().enumerate().map(move |(place, hook)| ((of_group, place), hook))
        });
        let runs = |hook: &Node| {
            let line = hook.member("command").and_then(|node| node.string(text));
            line.is_some_and(|line| command::find(&line, self.arguments).is_some())
        };
        hooks.filter(|(_, hook)| runs(hook)).map(|(place, _)| place).collect()
    }

    /// The paths by which such hooks run this program, as a shell reads them.
    pub fn programs(&self, text: &str) -> Vec<String> {
        object(text).map(|root| self.calls(&root, text)).unwrap_or_default()
    }

    fn calls(&self, root: &Node, text: &str) -> Vec<String> {
        let list = root.member(HOOKS).and_then(|hooks| hooks.member(self.event));
        let commands = list.map(|list| self.commands(list, text)).unwrap_or_default();
        commands.iter().filter_map(|(_, line)| Some(command::find(line, self.arguments)?.path)).collect()
    }
}

/// The names of all events for which the settings have hooks.
///
/// # Errors
/// The settings cannot be parsed.
pub fn events(text: &str) -> Result<Vec<String>, SettingsError> {
    if is_blank(text) {
        return Ok(Vec::new());
    }
    let root = object(text)?;
    let hooks = root.member(HOOKS).map(Node::members).unwrap_or_default();
    Ok(hooks.iter().map(|member| member.key().to_owned()).collect())
}

/// Whether a file has nothing but white space and a byte order mark.
pub fn is_blank(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim().is_empty()
}

pub(super) fn object(text: &str) -> Result<Node, SettingsError> {
    let root = jsonc::parse(text)?;
    if root.is_object() { Ok(root) } else { Err(SettingsError::Shape("the file".into(), "a JSON object")) }
}

/// The command line with the current path of this program.
pub(super) fn with_program(old: &str, call: &command::SessiondCall, program: &str) -> String {
    format!("{}{}{}", &old[..call.program.start], quoted(program), &old[call.program.end..])
}

/// Removes the innermost part of a nest, and the containers that become empty, unless the user had them empty. Each element
/// is a container and an index in it.
pub(super) fn without(text: &str, nest: &[(&Node, usize)]) -> String {
    let stays = |(container, _): &&(&Node, usize)| container.len() > 1 || container.was_empty(text);
    let place = nest.iter().rfind(stays).or(nest.first());
    place.map_or_else(|| text.to_owned(), |(container, index)| container.without_part(text, *index))
}

/// A path as one word of a shell command.
pub(super) fn quoted(program: &str) -> String {
    // Only a NUL character cannot be quoted, and no path has one.
    shlex::try_quote(program).map_or_else(|_| program.to_owned(), Cow::into_owned)
}
