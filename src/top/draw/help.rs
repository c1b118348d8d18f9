//! The text of `?`.

use super::style::symbol;
use crate::domain::attention::Need;

pub(in crate::top) fn help_text() -> String {
    let keys = "\
Up, Down, k, j     select a session
PgUp, PgDn, Space  move by a page
Home, End, G       first, last
Enter              details: fields, recorded work and handoff
y                  copy the command that resumes the session (OSC 52)
r                  resume it: in a new tmux window where there is tmux; else
                   print the command and exit. On another machine: print ssh
c                  close it permanently, after a question
g                  group by machine, by project, not at all
s                  sort by attention, project, heartbeat, machine, context, id
/                  filter by words; Enter keeps the filter, Esc clears it
a                  show also closed and headless sessions
Ctrl-L             draw everything again
Ctrl-Z             suspend
q, Esc, Ctrl-C     quit

";
    let meaning = |need| match need {
        Need::Waiting => "waiting for its user",
        Need::Failed => "its turn ended with an error",
        Need::Idle => "idle: done, and ready for a task",
        Need::Working => "working",
        Need::Active => "active; nothing reports what it does",
        Need::Stale => "stale: no heartbeat any more, can be resumed",
        Need::Closed => "closed",
    };
    let symbols: String = Need::ALL.into_iter().map(|need| format!("{}  {}\n", symbol(need), meaning(need))).collect();
    format!(
        "{keys}{symbols}?  its machine is away: what is shown was true when its daemon was last heard of, see AGE\n\n\
         AGE is the time since the last heartbeat, or since its machine's daemon vouched for it. TREND is the context window since this view started.\n"
    )
}
