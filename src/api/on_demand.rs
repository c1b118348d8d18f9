//! Asks central for sessions that this host does not read ahead, before a route answers from the store.
//!
//! With the scope "all" nothing is asked. Otherwise a route asks if what it is to answer may concern sessions out of scope;
//! what central has is in the store by the time it answers. If central cannot be asked, the route answers with what is in
//! the store, and says so.
//!
//! In a large fleet the history of sessions in scope is not read ahead either, and asked for in the same way.

use std::time::Duration;

use super::{Api, ApiError};
use crate::domain::mirror::HistoryReading;
use crate::domain::on_demand::{Answer, MAX_OF_PROJECT, Question};
use crate::domain::{Hint, InstanceId, LinkState, MachineName, Project, Timestamp};
use crate::requests::Unanswered;
use crate::store::{Lookup, Record, StoreError};
use crate::wire::ErrorCode;

/// A session that was read so recently is not asked for again.
const FRESH: Duration = Duration::from_secs(5);

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// There was none: everything that is wanted is read ahead.
    NotNeeded,
    /// Central answered.
    Answered(Answer),
    /// Central could not be asked, or did not answer. The reason, in one line.
    Failed(String),
}

impl Asked {
    /// One line for the client, if central did not answer.
    pub(super) fn note(&self) -> Option<String> {
        match self {
            Self::Failed(why) => Some(format!("central has not answered about what is not read ahead: {why}")),
            Self::NotNeeded | Self::Answered(_) => None,
        }
    }
}

/// A session that was found, and what became of the question.
pub(super) struct Sought {
    pub(super) lookup: Lookup,
    pub(super) asked: Asked,
}

impl Api {
    /// The sessions that an id, or the beginning of one, leads to; central is asked for what is not read ahead.
    ///
    /// # Errors
    /// The store fails, or there is none.
    pub(super) async fn find(&self, text: &str) -> Result<Lookup, ApiError> {
        self.seek(text).await.map(|sought| sought.lookup)
    }

    /// The same, and what became of the question.
    pub(super) async fn seek(&self, text: &str) -> Result<Sought, ApiError> {
        let lookup = self.store.find(text.to_owned()).await?;
        let asked = if self.is_certain(text, &lookup) {
            Asked::NotNeeded
        } else {
            let exact = InstanceId::parse_ignoring_case(text).map(|id| id.to_string());
            self.ask(Question::Id(exact.unwrap_or_else(|| text.to_owned()))).await
        };
        let lookup = match asked {
            Asked::Answered(_) => self.store.find(text.to_owned()).await?,
            _ => lookup,
        };
        match (&lookup, asked.note()) {
            (Lookup::None, note) => Err(not_found(text, note)),
            _ => Ok(Sought { lookup, asked }),
        }
    }

    /// Whether central could say nothing else about this text.
    fn is_certain(&self, text: &str, lookup: &Lookup) -> bool {
        if self.settings.borrow().scope.is_all() {
            return true;
        }
        match lookup {
            Lookup::One(record) => InstanceId::parse_ignoring_case(text).is_some() && self.is_current(record),
            Lookup::Several(_) | Lookup::None => false,
        }
    }

    /// Whether this session is one of this host's own, is read ahead, or was just read.
    fn is_current(&self, record: &Record) -> bool {
        match record.read_at {
            _ if !record.mirrored => true,
            Some(at) => self.is_connected() && (self.clock)().since(at) < FRESH,
            None => self.reads_ahead(&record.session.project, Some(&record.session.host_machine)),
        }
    }

    /// Whether this host reads all sessions of this project, or of this machine, ahead.
    fn reads_ahead(&self, project: &Project, machine: Option<&MachineName>) -> bool {
        self.settings.borrow().scope.includes(project)
            || machine.is_some_and(|machine| *machine == self.identity.current().name)
    }

    /// Asks for the sessions of a project that a list is to show.
    pub(super) async fn ask_for_project(
        &self,
        project: &Project,
        machine: Option<&MachineName>,
        closed_since: Option<Timestamp>,
    ) -> Asked {
        if self.reads_ahead(project, machine) {
            return Asked::NotNeeded;
        }
        self.ask(Question::Project { project: project.clone(), closed_since }).await
    }

    /// Asks for the sessions that may be resumed by a hint.
    pub(super) async fn ask_for_hint(&self, meanings: &[Hint]) -> Result<Asked, StoreError> {
        if self.settings.borrow().scope.is_all() || meanings.contains(&Hint::Newest) {
            return Ok(Asked::NotNeeded);
        }
        if let Some(Hint::Id(id)) = meanings.first()
            && let Lookup::One(record) = self.store.find(id.to_string()).await?
            && self.is_current(&record)
        {
            return Ok(Asked::NotNeeded);
        }
        Ok(self.ask(Question::Hint(meanings.to_vec())).await)
    }

    /// Has the history of another host's session read, where it is not read ahead. One that was asked for has it.
    pub(super) async fn ask_for_history(&self, record: &Record) -> Result<Asked, StoreError> {
        let has_history = !record.mirrored || record.read_at.is_some();
        if has_history || self.store.history_reading().await? == HistoryReading::Ahead {
            return Ok(Asked::NotNeeded);
        }
        Ok(self.ask(Question::Id(record.session.instance_id.to_string())).await)
    }

    fn is_connected(&self) -> bool {
        self.link.borrow().state == LinkState::Connected
    }

    async fn ask(&self, question: Question) -> Asked {
        let state = self.link.borrow().state;
        match state {
            LinkState::Connected => {}
            LinkState::Off => return Asked::Failed("none is configured".into()),
            state => return Asked::Failed(format!("its state is {}", state.as_str())),
        }
        match self.questions.ask(question).await {
            Ok(Ok(answer)) => Asked::Answered(answer),
            Ok(Err(why)) => Asked::Failed(why),
            Err(Unanswered::TooMany) => Asked::Failed("too many questions wait; try again in a second".into()),
            Err(Unanswered::NoAnswer) => Asked::Failed("it did not answer in time".into()),
        }
    }
}

/// One line about a list: what it lacks.
pub(super) fn note_of_list(asked: &Asked, project: Option<&Project>) -> Option<String> {
    match (asked, project) {
        (Asked::Answered(Answer { more: true, .. }), Some(project)) => Some(format!(
            "central has more sessions of {project} than the {MAX_OF_PROJECT} most recent ones listed here"
        )),
        (Asked::NotNeeded, None) => {
            Some("only sessions in mirror.scope are listed; those of another project with --project".into())
        }
        _ => asked.note(),
    }
}

/// The error for an id that no session has. `note`: why central has not answered.
pub(super) fn not_found(text: &str, note: Option<String>) -> ApiError {
    let usual = ApiError::not_found(text);
    match note {
        None => usual,
        Some(note) => {
            let message = format!("{}; {note}", usual.detail().message);
            ApiError::new(
                ErrorCode::NotFound,
                message,
                "try again once central is reachable; `sessiond status` shows it",
            )
        }
    }
}
