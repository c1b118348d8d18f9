//! The two lines at the top: this machine and its daemon; then all sessions.

use super::style::symbol;
use super::{Ages, Canvas, Paint};
use crate::domain::Timestamp;
use crate::top::fleet::{DaemonLink, Facts};
use crate::top::view::View;
use crate::wire::LimitBody;

pub(super) const HEIGHT: u16 = 2;

/// Less headroom than this is a warning, in percent.
const LITTLE: f64 = 20.0;

type Parts = Vec<(String, Paint)>;

pub(super) fn draw(canvas: &mut Canvas<'_>, view: &View, ages: &Ages) {
    let facts = view.fleet.facts.as_ref();
    let name = facts.map_or("sessiond top", |facts| facts.status.machine.name.as_str());
    let mut first: Parts = vec![(name.to_owned(), Paint::Title)];
    match (view.fleet.link, facts) {
        (DaemonLink::UnreachableSince(at), _) => first.push((unreachable(at, ages), Paint::Bad)),
        (DaemonLink::Connected, Some(facts)) => first.extend(daemon(facts, ages)),
        (DaemonLink::Connected, None) => {}
    }
    draw_parts(canvas, 0, first);
    draw_parts(canvas, 1, sessions(view));
}

/// Writes parts beside each other, as many as fit.
fn draw_parts(canvas: &mut Canvas<'_>, line: u16, parts: Parts) {
    let area = canvas.buffer.area;
    let mut x = area.x + 1;
    for (text, paint) in parts {
        x += canvas.text(x, area.y + line, area.right().saturating_sub(x), &text, paint) + 2;
    }
}

/// `daemon unreachable since 12:03:04 (2m)`, in UTC as all times.
fn unreachable(at: Timestamp, ages: &Ages) -> String {
    let text = at.to_string();
    let time = text.get(11..19).unwrap_or(&text);
    format!("daemon unreachable since {time}Z ({})", ages.since(at))
}

fn daemon(facts: &Facts, ages: &Ages) -> Parts {
    let central = &facts.status.central;
    let since = Timestamp::parse(&central.since).map(|at| format!(" {}", ages.since(at))).unwrap_or_default();
    let paint = match central.state.as_str() {
        "connected" => Paint::Good,
        "off" => Paint::Dim,
        _ => Paint::Warn,
    };
    let mut parts = vec![(format!("central {}{since}", central.state), paint)];
    let backlog = &facts.status.backlog;
    let waiting = backlog.sessions.saturating_add(backlog.records);
    if central.state != "off" {
        let oldest = backlog.oldest_at.as_deref().and_then(Timestamp::parse);
        let age = oldest.map(|at| format!(" ({})", ages.since(at))).unwrap_or_default();
        parts.push((format!("backlog {waiting}{age}"), if waiting == 0 { Paint::Dim } else { Paint::Plain }));
    }
    if facts.status.parked > 0 {
        parts.push((format!("parked {}", facts.status.parked), Paint::Warn));
    }
    parts.extend(headroom(&facts.limits));
    parts
}

/// The limit with the least headroom.
fn headroom(limits: &[LimitBody]) -> Option<(String, Paint)> {
    let known = limits.iter().filter_map(|limit| Some((limit.headroom_percent?, limit)));
    let (left, limit) = known.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
    let account = limit.account.as_deref().map(|account| format!(" of {account}")).unwrap_or_default();
    let paint = if left < LITTLE { Paint::Warn } else { Paint::Plain };
    Some((format!("limits {left}% left ({}{account})", limit.window), paint))
}

/// The sessions by activity, and the machines.
fn sessions(view: &View) -> Parts {
    let counted = |(need, n)| (format!("{} {n} {}", symbol(need), need.as_str()), Paint::Need(need));
    let mut parts: Parts = view.counts.present().map(counted).collect();
    if parts.is_empty() {
        parts.push(("0 sessions".to_owned(), Paint::Dim));
    }
    if let Some(facts) = &view.fleet.facts {
        let away = facts.machines.iter().filter(|machine| facts.is_away(machine)).count();
        let machines = facts.machines.len();
        let noun = if machines == 1 { "machine" } else { "machines" };
        match away {
            0 => parts.push((format!("{machines} {noun}"), Paint::Dim)),
            _ => parts.push((format!("{machines} {noun}, {away} away (?)"), Paint::Warn)),
        }
    }
    parts
}
