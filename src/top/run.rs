//! The loop of the view.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui_crossterm::crossterm::event::{Event, KeyEvent, KeyModifiers, read};

use super::draw::{self, Ages, Palette};
use super::feed::{self, News};
use super::fleet::CountDifference;
use super::keys::{self, Action, Focus};
use super::signals::{self, Signal};
use super::terminal::{self, Screen};
use super::view::{Effect, View};
use super::worker::{self, Answer, Job};
use super::{Input, TopOptions};
use crate::client::{Client, Result};
use crate::wire::{ErrorCode, ErrorDetail};

/// The least time between two frames that no key caused.
const FRAME_GAP: Duration = Duration::from_millis(100);
/// The least time between two frames that only ages caused: each row's age changes at another time of the second.
const AGE_GAP: Duration = Duration::from_secs(1);
/// How many reports may wait; then the feed waits, and the daemon with it.
const MAX_QUEUED: usize = 1_024;
/// The longest answer of the daemon that is waited for.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest wait without a frame, in case no age is shown.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The longest command that is copied, in bytes: terminals ignore longer ones.
const MAX_COPIED: usize = 50_000;

pub(super) fn run(client: &Client, options: &TopOptions) -> Result<Option<String>> {
    let client = client.clone().timeout(TIMEOUT);
    // Fails before the screen is taken over.
    let facts = feed::facts(&client)?;
    let (input, inputs) = sync_channel(MAX_QUEUED);
    let (wake, woken) = sync_channel(1);
    let (jobs, waiting_jobs) = sync_channel(8);
    signals::watch(input.clone()).map_err(|error| failed("cannot receive signals", &error))?;
    let screen = Screen::open().map_err(|error| failed("cannot set up the terminal", &error))?;
    feed::watch_sessions(client.clone(), input.clone());
    feed::watch_facts(client.clone(), input.clone(), woken);
    worker::work(client, options.session_text.clone(), waiting_jobs, input.clone());
    read_keys(input);
    let mut view = View::default();
    view.set_facts(facts);
    let top = Top { view, screen, inputs, wake, jobs, options, relisted_for: Vec::new(), details_are_old: false };
    top.run().map_err(|error| failed("cannot write to the terminal", &error))
}

fn failed(what: &str, error: &io::Error) -> ErrorDetail {
    ErrorDetail {
        code: ErrorCode::Usage,
        message: format!("{what}: {error}"),
        hint: "use `sessiond top --once` for one frame as text".to_owned(),
    }
}

/// Reports what is typed.
fn read_keys(input: SyncSender<Input>) {
    thread::spawn(move || {
        loop {
            let event = match read() {
                Ok(Event::Key(key)) => Input::Key(key),
                Ok(Event::Paste(text)) => Input::Paste(text),
                Ok(Event::Resize(..)) => Input::Resized,
                Ok(_) => continue,
                Err(_) => Input::TerminalLost,
            };
            let is_lost = matches!(event, Input::TerminalLost);
            if input.send(event).is_err() || is_lost {
                return;
            }
        }
    });
}

struct Top<'a> {
    view: View,
    screen: Screen,
    inputs: Receiver<Input>,
    /// Makes the feed ask for the facts.
    wake: SyncSender<()>,
    jobs: SyncSender<Job>,
    options: &'a TopOptions,
    /// The machines whose counts differed from the rows when these were listed again.
    relisted_for: Vec<CountDifference>,
    /// The session of the open details changed since they were read.
    details_are_old: bool,
}

/// What the loop does next.
#[derive(Debug)]
enum Flow {
    /// Nothing was changed.
    Wait,
    /// Draw with the next regular frame.
    Continue,
    /// Draw without waiting for the next regular frame.
    DrawNow,
    Quit,
    QuitAndPrint(String),
    EndBy(i32),
}

impl Top<'_> {
    fn run(mut self) -> io::Result<Option<String>> {
        let mut wait = Duration::ZERO;
        let mut last_frame: Option<Instant> = None;
        loop {
            let since_frame = |last: Option<Instant>| last.map_or(FRAME_GAP, |at| at.elapsed());
            match self.handle_inputs(wait)? {
                Flow::Wait | Flow::DrawNow => {}
                Flow::Continue if since_frame(last_frame) >= FRAME_GAP => {}
                Flow::Continue => {
                    wait = FRAME_GAP - since_frame(last_frame);
                    continue;
                }
                Flow::Quit => return Ok(None),
                Flow::QuitAndPrint(command) => return Ok(Some(command)),
                Flow::EndBy(signal) => {
                    terminal::restore();
                    signals::end_by(signal);
                    return Ok(None);
                }
            }
            wait = self.draw()?;
            last_frame = Some(Instant::now());
        }
    }

    /// Waits for input, and handles all that is there. Returns at the first that needs more than a frame in time.
    fn handle_inputs(&mut self, wait: Duration) -> io::Result<Flow> {
        let mut next = self.inputs.recv_timeout(wait);
        let mut flow = Flow::Wait;
        loop {
            flow = match next {
                Ok(input) => match self.handle(input)? {
                    Flow::Wait => flow,
                    Flow::Continue => Flow::Continue,
                    other => return Ok(other),
                },
                Err(RecvTimeoutError::Timeout) => return Ok(flow),
                Err(RecvTimeoutError::Disconnected) => return Ok(Flow::Quit),
            };
            next = self.inputs.recv_timeout(Duration::ZERO);
        }
    }

    /// Draws a frame, and returns for how long it stays true.
    fn draw(&mut self) -> io::Result<Duration> {
        let palette = Palette { has_colour: self.options.has_colour };
        let ages = Ages::at((self.options.clock)());
        let view = &mut self.view;
        self.screen.draw(|buffer| draw::frame(buffer, view, &ages, palette))?;
        if std::mem::take(&mut self.details_are_old)
            && let Some(id) = self.view.opened()
        {
            let _ = self.jobs.try_send(Job::Details(id.to_owned()));
        }
        // A little later, so that the age has changed by then.
        Ok((ages.unchanged_for().min(LONGEST_WAIT) + Duration::from_millis(5)).max(AGE_GAP))
    }

    fn handle(&mut self, input: Input) -> io::Result<Flow> {
        match input {
            Input::Key(key) => self.press(key),
            Input::Paste(text) => {
                if self.view.focus() == Focus::Filter {
                    text.chars().for_each(|c| _ = self.view.update(Action::Type(c)));
                }
                Ok(Flow::DrawNow)
            }
            Input::Resized => Ok(Flow::DrawNow),
            Input::TerminalLost => Ok(Flow::Quit),
            Input::Signal(Signal::End(number)) => Ok(Flow::EndBy(number)),
            Input::Signal(Signal::Suspend) => self.suspend(),
            Input::Signal(Signal::Continued) => {
                self.screen.enter_again()?;
                Ok(Flow::DrawNow)
            }
            Input::News(news) => self.learn(news),
            Input::Answer(answer) => self.receive(answer),
        }
    }

    /// Esc and a key that follows at once arrive as that key with Alt.
    fn press(&mut self, key: KeyEvent) -> io::Result<Flow> {
        if !key.modifiers.contains(KeyModifiers::ALT) {
            return match keys::action(key, self.view.focus()) {
                Some(action) => self.act(action),
                None => Ok(Flow::Wait),
            };
        }
        if self.view.is_plain_table() {
            return Ok(Flow::Wait);
        }
        self.act(Action::Back)?;
        self.press(KeyEvent { modifiers: key.modifiers - KeyModifiers::ALT, ..key })
    }

    fn act(&mut self, action: Action) -> io::Result<Flow> {
        let job = match self.view.update(action) {
            None => return Ok(Flow::DrawNow),
            Some(Effect::Quit) => return Ok(Flow::Quit),
            Some(Effect::Suspend) => return self.suspend(),
            Some(Effect::Repaint) => {
                self.screen.forget();
                return Ok(Flow::DrawNow);
            }
            Some(Effect::FetchDetails(id)) => Job::Details(id),
            Some(Effect::CopyCommand(id)) => Job::CopyCommand(id),
            Some(Effect::Resume(id)) => {
                let is_local = self.view.fleet.get(&id).is_some_and(|row| row.is_local);
                if is_local && self.options.in_tmux { Job::ResumeInTmux(id) } else { Job::ResumeCommand(id) }
            }
            Some(Effect::Close(id)) => Job::Close(id),
        };
        if self.jobs.try_send(job).is_err() {
            self.view.report("the daemon has not answered the last requests yet; try again");
        }
        Ok(Flow::DrawNow)
    }

    /// Gives the terminal back, stops, and takes it again when the process continues.
    fn suspend(&mut self) -> io::Result<Flow> {
        terminal::restore();
        signals::stop();
        self.screen.enter_again()?;
        Ok(Flow::DrawNow)
    }

    fn learn(&mut self, news: News) -> io::Result<Flow> {
        match news {
            News::Sessions(rows) => {
                self.view.list(rows);
                self.details_are_old = true;
                self.wake_facts();
            }
            News::Changed(row) => {
                self.details_are_old |= self.view.opened() == Some(row.instance_id.as_str());
                let effect = self.view.apply_row(*row);
                if effect.changes_counts {
                    self.wake_facts();
                }
                if effect.is_alarm && self.options.bell {
                    self.screen.send("\u{7}")?;
                }
            }
            News::DaemonLost => self.view.lose_daemon((self.options.clock)()),
            News::Facts(facts) => {
                let differing = self.view.fleet.differing_machines(&facts.machines);
                if !differing.is_empty() && differing != self.relisted_for && self.jobs.try_send(Job::List).is_ok() {
                    self.relisted_for = differing;
                }
                self.view.set_facts(*facts);
            }
        }
        Ok(Flow::Continue)
    }

    fn wake_facts(&self) {
        // A full channel says that the feed will ask anyway.
        let _ = self.wake.try_send(());
    }

    fn receive(&mut self, answer: Answer) -> io::Result<Flow> {
        match answer {
            Answer::Details { instance_id, text } => self.view.show_details(&instance_id, text),
            Answer::Copy(command) if command.len() > MAX_COPIED => {
                self.view.report("the command is too long to be copied")
            }
            Answer::Copy(command) => {
                self.screen.send(&copy_sequence(&command))?;
                self.view.say(format!("copied: {command}"));
            }
            Answer::Print(command) => return Ok(Flow::QuitAndPrint(command)),
            Answer::List(rows) => self.view.update_silent(rows),
            Answer::Done(text) => self.view.say(text),
            Answer::Failed(text) => self.view.report(text),
        }
        Ok(Flow::DrawNow)
    }
}

/// OSC 52: asks the terminal to put this text into the clipboard.
fn copy_sequence(text: &str) -> String {
    format!("\u{1b}]52;c;{}\u{7}", base64(text.as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0_u32, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_text_is_base64() {
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
        assert_eq!(copy_sequence("a\u{1b}"), "\u{1b}]52;c;YRs=\u{7}");
    }
}
