//! The state of the view, and what each action changes in it. Pure: what has to be done outside is returned as an
//! [`Effect`].
//!
//! The selection is a session, not a line: it stays when rows move.

use super::fleet::{ChangeEffect, DaemonLink, Facts, Fleet};
use super::keys::{Action, Focus};
use super::row::Row;
use super::text_pane::TextPane;
use crate::domain::Timestamp;
use crate::domain::attention::{NeedCounts, SortKey, groups};

/// The longest filter, in characters.
const MAX_FILTER: usize = 100;

/// By what rows are grouped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Grouping {
    #[default]
    None,
    Machine,
    Project,
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Session(String),
    Group { name: String, counts: NeedCounts },
}

/// What is open over the table.
#[derive(Debug)]
pub(super) enum Overlay {
    None,
    Filter,
    /// Asks whether to close the session.
    CloseQuestion(String),
    Details {
        instance_id: String,
        pane: TextPane,
    },
    Help(TextPane),
}

/// What has to be done outside of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    Suspend,
    Repaint,
    FetchDetails(String),
    CopyCommand(String),
    Resume(String),
    Close(String),
}

/// A line at the bottom, until the next key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub text: String,
    pub is_error: bool,
}

pub(super) struct View {
    pub fleet: Fleet,
    pub grouping: Grouping,
    pub filter: String,
    pub overlay: Overlay,
    pub message: Option<Message>,
    /// The lines of the table, after [`View::update_lines`].
    pub lines: Vec<Line>,
    /// The counts of all shown sessions, without the filter.
    pub counts: NeedCounts,
    /// The index of the first drawn line.
    pub offset: usize,
    /// The height of the table's body when it was drawn last.
    pub page: usize,
    selected: Option<String>,
    /// The index of the selected line, which stays if its session is gone.
    cursor: usize,
    is_outdated: bool,
}

impl Default for View {
    fn default() -> Self {
        Self {
            fleet: Fleet::default(),
            grouping: Grouping::default(),
            filter: String::new(),
            overlay: Overlay::None,
            message: None,
            lines: Vec::new(),
            counts: NeedCounts::default(),
            offset: 0,
            page: 1,
            selected: None,
            cursor: 0,
            is_outdated: true,
        }
    }
}

impl View {
    pub(super) const fn focus(&self) -> Focus {
        match self.overlay {
            Overlay::None => Focus::Table,
            Overlay::Filter => Focus::Filter,
            Overlay::CloseQuestion(_) => Focus::Question,
            Overlay::Details { .. } | Overlay::Help(_) => Focus::Text,
        }
    }

    /// The id of the selected session.
    #[cfg(test)]
    pub(super) fn selected(&self) -> Option<&str> {
        self.selected.as_deref()
    }

    pub(super) fn is_selected(&self, index: usize) -> bool {
        self.selected.is_some() && index == self.cursor
    }

    /// Whether nothing is left that Esc would leave or clear.
    pub(super) fn is_plain_table(&self) -> bool {
        matches!(self.overlay, Overlay::None) && self.filter.is_empty()
    }

    /// Selects no session until the lines change again.
    pub(super) fn select_nothing(&mut self) {
        self.selected = None;
        self.cursor = 0;
    }

    /// The id of the session whose details are open.
    pub(super) fn opened(&self) -> Option<&str> {
        match &self.overlay {
            Overlay::Details { instance_id, .. } => Some(instance_id),
            _ => None,
        }
    }

    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.message = Some(Message { text: text.into(), is_error: false });
    }

    pub(super) fn report(&mut self, text: impl Into<String>) {
        self.message = Some(Message { text: text.into(), is_error: true });
    }

    pub(super) fn list(&mut self, rows: Vec<Row>) {
        self.fleet.replace(rows);
        self.fleet.link = DaemonLink::Connected;
        self.is_outdated = true;
    }

    pub(super) fn apply_row(&mut self, row: Row) -> ChangeEffect {
        self.is_outdated = true;
        self.fleet.apply(row)
    }

    pub(super) fn update_silent(&mut self, rows: Vec<Row>) {
        self.fleet.update_silent(rows);
        self.is_outdated = true;
    }

    pub(super) fn set_facts(&mut self, facts: Facts) {
        self.fleet.facts = Some(facts);
    }

    /// Notes that the daemon does not answer; the time is that of the first failure.
    pub(super) const fn lose_daemon(&mut self, at: Timestamp) {
        if matches!(self.fleet.link, DaemonLink::Connected) {
            self.fleet.link = DaemonLink::UnreachableSince(at);
        }
    }

    /// Shows fetched details, unless others were opened meanwhile.
    pub(super) fn show_details(&mut self, id: &str, text: String) {
        if let Overlay::Details { instance_id, pane } = &mut self.overlay
            && instance_id == id
        {
            pane.set_text(text);
        }
    }

    /// Makes the lines of the table, if anything changed. Linear in the number of shown sessions.
    pub(super) fn update_lines(&mut self) {
        if !std::mem::take(&mut self.is_outdated) {
            return;
        }
        let words: Vec<String> = self.filter.to_lowercase().split_whitespace().map(str::to_owned).collect();
        self.counts = self.fleet.shown().map(Row::need).collect();
        let rows: Vec<&Row> = self.fleet.shown().filter(|row| row.matches(&words)).collect();
        let session = |row: &Row| Line::Session(row.instance_id.clone());
        let name_of = |row: &Row| match self.grouping {
            Grouping::Machine => Some(row.machine.clone()),
            Grouping::Project => Some(row.project.clone()),
            Grouping::None => None,
        };
        let names: Option<Vec<String>> = rows.iter().map(|row| name_of(row)).collect();
        self.lines = match names.filter(|_| self.grouping != Grouping::None) {
            None => rows.iter().map(|row| session(row)).collect(),
            Some(names) => groups(names.iter().map(String::as_str).zip(rows.iter().map(|row| row.need())))
                .into_iter()
                .flat_map(|group| {
                    let members = group.members.into_iter().map(|index| session(rows[index]));
                    std::iter::once(Line::Group { name: group.name, counts: group.counts }).chain(members)
                })
                .collect(),
        };
        self.find_selected();
    }

    /// Finds the selected session among the new lines; if it is gone, the nearest one is selected.
    fn find_selected(&mut self) {
        let id = self.selected.as_deref();
        let is_it = |line: &Line| matches!(line, Line::Session(session) if Some(session.as_str()) == id);
        let found = match self.lines.get(self.cursor) {
            Some(line) if is_it(line) => Some(self.cursor),
            _ => self.lines.iter().position(is_it),
        };
        self.select(found.unwrap_or(self.cursor), Direction::Down);
    }

    /// Selects this line, or the nearest session in that direction.
    fn select(&mut self, index: usize, direction: Direction) {
        let is_session = |index: &usize| matches!(self.lines.get(*index), Some(Line::Session(_)));
        let last = self.lines.len().saturating_sub(1);
        let index = index.min(last);
        let (down, up) = ((index..=last).find(is_session), (0..=index).rev().find(is_session));
        let found = match direction {
            Direction::Down => down.or(up),
            Direction::Up => up.or(down),
        };
        self.cursor = found.unwrap_or(0);
        self.selected = match self.lines.get(self.cursor) {
            Some(Line::Session(id)) => Some(id.clone()),
            _ => None,
        };
    }

    /// Scrolls so that the selected line is among `height` lines, with the heading of its group where it is the first.
    pub(super) fn scroll_to_selected(&mut self, height: usize) {
        self.page = height.max(1);
        let heading = matches!(self.cursor.checked_sub(1).and_then(|i| self.lines.get(i)), Some(Line::Group { .. }));
        let top = if heading && height > 1 { self.cursor - 1 } else { self.cursor };
        let least = (self.cursor + 1).saturating_sub(height.max(1));
        self.offset = self.offset.min(self.lines.len().saturating_sub(height.max(1))).clamp(least.min(top), top);
    }

    /// Applies an action of the user.
    pub(super) fn update(&mut self, action: Action) -> Option<Effect> {
        self.message = None;
        match action {
            Action::Quit => return Some(Effect::Quit),
            Action::Suspend => return Some(Effect::Suspend),
            Action::Repaint => return Some(Effect::Repaint),
            Action::Up | Action::Down | Action::PageUp | Action::PageDown | Action::Home | Action::End => {
                self.travel(action)
            }
            Action::Group => {
                self.grouping = match self.grouping {
                    Grouping::None => Grouping::Machine,
                    Grouping::Machine => Grouping::Project,
                    Grouping::Project => Grouping::None,
                };
                self.is_outdated = true;
            }
            Action::Sort => {
                let all = SortKey::ALL;
                let present = all.iter().position(|key| *key == self.fleet.sort()).unwrap_or(0);
                self.fleet.set_sort(all[(present + 1) % all.len()]);
                self.is_outdated = true;
            }
            Action::ShowAll => {
                self.fleet.set_shows_all(!self.fleet.shows_all());
                self.is_outdated = true;
            }
            Action::Help => self.overlay = Overlay::Help(TextPane::new(super::draw::help_text())),
            Action::Filter => self.overlay = Overlay::Filter,
            Action::Type(_) | Action::Erase | Action::EraseAll => self.edit_filter(action),
            Action::Accept => return self.accept(),
            Action::Back => return self.back(),
            Action::Details | Action::CopyCommand | Action::Resume | Action::Close => {
                return self.act_on_session(action);
            }
        }
        None
    }

    fn travel(&mut self, action: Action) {
        if let Overlay::Details { pane, .. } | Overlay::Help(pane) = &mut self.overlay {
            return pane.scroll(action);
        }
        self.update_lines();
        let (at, page) = (self.cursor, self.page.saturating_sub(1).max(1));
        match action {
            // Above the first session of the first group is its heading, which cannot be selected.
            Action::Up => self.select(at.saturating_sub(1), Direction::Up),
            Action::Down => self.select(at + 1, Direction::Down),
            Action::PageUp => self.select(at.saturating_sub(page), Direction::Up),
            Action::PageDown => self.select(at + page, Direction::Down),
            Action::Home => self.select(0, Direction::Down),
            _ => self.select(usize::MAX, Direction::Up),
        }
        if self.cursor <= 1 {
            self.offset = 0;
        }
    }

    fn edit_filter(&mut self, action: Action) {
        match action {
            Action::Type(c) if self.filter.chars().count() < MAX_FILTER && !crate::domain::text::is_unsafe(c) => {
                self.filter.push(c);
            }
            Action::Erase => _ = self.filter.pop(),
            Action::EraseAll => self.filter.clear(),
            _ => {}
        }
        self.is_outdated = true;
    }

    fn accept(&mut self) -> Option<Effect> {
        match std::mem::replace(&mut self.overlay, Overlay::None) {
            Overlay::CloseQuestion(id) => Some(Effect::Close(id)),
            _ => None,
        }
    }

    fn back(&mut self) -> Option<Effect> {
        match std::mem::replace(&mut self.overlay, Overlay::None) {
            Overlay::None if self.filter.is_empty() => return Some(Effect::Quit),
            Overlay::None | Overlay::Filter => {
                self.filter.clear();
                self.is_outdated = true;
            }
            Overlay::CloseQuestion(id) => self.say(format!("{id} stays open")),
            Overlay::Details { .. } | Overlay::Help(_) => {}
        }
        None
    }

    fn act_on_session(&mut self, action: Action) -> Option<Effect> {
        self.update_lines();
        let id = match self.opened() {
            Some(opened) => opened.to_owned(),
            None if matches!(self.overlay, Overlay::Help(_)) => return None,
            None => match &self.selected {
                Some(selected) => selected.clone(),
                None => {
                    self.say("no session is selected");
                    return None;
                }
            },
        };
        match action {
            Action::CopyCommand => Some(Effect::CopyCommand(id)),
            Action::Resume => Some(Effect::Resume(id)),
            Action::Close => {
                self.overlay = Overlay::CloseQuestion(id);
                None
            }
            _ => {
                let pane = TextPane::new("reading the session ...".to_owned());
                self.overlay = Overlay::Details { instance_id: id.clone(), pane };
                Some(Effect::FetchDetails(id))
            }
        }
    }

    /// Whether the sessions are shown in another way than at the start: the words of the filter, order and grouping.
    pub(super) fn arrangement(&self) -> String {
        let mut words = vec![format!("by {}", self.fleet.sort().as_str())];
        match self.grouping {
            Grouping::None => {}
            Grouping::Machine => words.push("grouped by machine".to_owned()),
            Grouping::Project => words.push("grouped by project".to_owned()),
        }
        if self.fleet.shows_all() {
            words.push("all".to_owned());
        }
        if !self.filter.is_empty() {
            words.push(format!("/{}", self.filter));
        }
        words.join(", ")
    }

    /// The number of the selected session and how many there are, counted without headings.
    pub(super) fn position(&self) -> (usize, usize) {
        let sessions = |lines: &[Line]| lines.iter().filter(|line| matches!(line, Line::Session(_))).count();
        match self.grouping {
            Grouping::None => ((self.cursor + 1).min(self.lines.len()), self.lines.len()),
            _ => {
                let end = (self.cursor + 1).min(self.lines.len());
                (sessions(&self.lines[..end]), sessions(&self.lines))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}
