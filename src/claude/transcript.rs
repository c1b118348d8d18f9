//! The end of a conversation's transcript: the last prompts, answers and errors of tools.
//!
//! A transcript is a file of JSON lines, which may have hundreds of megabytes and whose last line may be half written. Only
//! its end is read, and only in the rights of the user who owns it: the path comes from a report, which may name any file.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use serde_json::Value;

use super::work::{is_by_user, without_secrets};
use crate::domain::text::{data_of, fenced, repaired_json, safe_lines};

/// How much of the end is read, in bytes.
const MAX_READ: u64 = 256 << 10;
/// How many of each kind are kept.
const MAX_COUNT: usize = 3;
/// The longest texts, in bytes; all together they have less than 4 KiB.
const MAX_PROMPT: usize = 400;
const MAX_ANSWER: usize = 600;
const MAX_ERROR: usize = 300;

/// Beginnings of texts that the agent adds to a conversation in its user's name.
const BY_AGENT: [&str; 5] =
    ["<command-", "<local-command-", "<bash-", "Caveat: The messages below", "[Request interrupted by user"];

/// What was said last; each list has the newest last. Every text is without secrets, bounded, and safe to show, but it is
/// foreign: it must be fenced where an agent reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TranscriptTail {
    pub(crate) prompts: Vec<String>,
    pub(crate) answers: Vec<String>,
    pub(crate) errors: Vec<String>,
}

/// The first of the lines that were read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstLine {
    Whole,
    /// The end of a line whose begin was not read.
    Cut,
}

impl TranscriptTail {
    pub(crate) fn is_empty(&self) -> bool {
        self.prompts.is_empty() && self.answers.is_empty() && self.errors.is_empty()
    }

    /// The end of the transcript at `path`. `None`: it is not there, is no regular file of this user's, or says nothing.
    pub fn read(path: &Path) -> Option<Self> {
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            return None;
        }
        // A link may lead to another file than the transcript, and opening a FIFO would block.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).ok()?;
        let about = file.metadata().ok()?;
        if !about.is_file() || about.uid() != rustix::process::geteuid().as_raw() {
            return None;
        }
        let from = about.len().saturating_sub(MAX_READ);
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_READ).read_to_end(&mut bytes).ok()?;
        let first = if from == 0 { FirstLine::Whole } else { FirstLine::Cut };
        Some(Self::parse(&bytes, first)).filter(|tail| !tail.is_empty())
    }

    /// The end of the transcript of a session as Markdown, fenced and labelled as data.
    pub(crate) fn markdown(&self, instance_id: &str) -> String {
        let kinds = [("Prompts", &self.prompts), ("Answers", &self.answers), ("Errors of tools", &self.errors)];
        let part = |(name, texts): (&str, &Vec<String>)| format!("{name}:\n\n{}\n", texts.join("\n\n"));
        let parts: Vec<_> = kinds.into_iter().filter(|(_, texts)| !texts.is_empty()).map(part).collect();
        format!("# End of the transcript\n\n{}", fenced(&data_of(instance_id), &parts.join("\n")))
    }

    /// Reads the lines in `bytes`.
    fn parse(bytes: &[u8], first: FirstLine) -> Self {
        let mut tail = Self::default();
        let lines = bytes.split(|byte| *byte == b'\n').skip(usize::from(first == FirstLine::Cut));
        // From the end: what is not kept is not examined.
        for line in lines.collect::<Vec<_>>().into_iter().rev() {
            let is_full = |list: &Vec<String>| list.len() == MAX_COUNT;
            if is_full(&tail.prompts) && is_full(&tail.answers) && is_full(&tail.errors) {
                break;
            }
            if let Some(line) = value_of(line) {
                tail.add(&line);
            }
        }
        for list in [&mut tail.prompts, &mut tail.answers, &mut tail.errors] {
            list.reverse();
        }
        tail
    }

    fn add(&mut self, line: &Value) {
        let is_set = |name: &str| line.get(name).and_then(Value::as_bool) == Some(true);
        // Messages of sub-agents, and those that the agent adds itself.
        if is_set("isSidechain") || is_set("isMeta") || is_set("isCompactSummary") {
            return;
        }
        let Some(content) = line.get("message").and_then(|message| message.get("content")) else { return };
        match line.get("type").and_then(Value::as_str) {
            Some("user") => {
                if let Some(text) = text_of(content).filter(|text| is_prompt(text)) {
                    add(&mut self.prompts, &text, MAX_PROMPT);
                }
                for result in content.as_array().into_iter().flatten().rev() {
                    if result.get("is_error").and_then(Value::as_bool) == Some(true)
                        && let Some(text) = result.get("content").and_then(text_of)
                    {
                        let text = text.replace("<tool_use_error>", "").replace("</tool_use_error>", "");
                        add(&mut self.errors, &text, MAX_ERROR);
                    }
                }
            }
            Some("assistant") => {
                let (list, longest) = match is_set("isApiErrorMessage") {
                    true => (&mut self.errors, MAX_ERROR),
                    false => (&mut self.answers, MAX_ANSWER),
                };
                if let Some(text) = text_of(content) {
                    add(list, &text, longest);
                }
            }
            _ => {}
        }
    }
}

fn value_of(line: &[u8]) -> Option<Value> {
    if !line.starts_with(b"{") {
        return None;
    }
    // Agents cut text in the middle of an emoji.
    serde_json::from_slice(line).ok().or_else(|| serde_json::from_slice(&repaired_json(line)?).ok())
}

/// The text of a message's content, which is a text or a list of blocks.
fn text_of(content: &Value) -> Option<String> {
    let text = match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let is_text = |block: &&Value| block.get("type").and_then(Value::as_str) == Some("text");
            let texts = blocks.iter().filter(is_text).filter_map(|block| block.get("text")?.as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => return None,
    };
    (!text.trim().is_empty()).then_some(text)
}

fn is_prompt(text: &str) -> bool {
    is_by_user(text) && !BY_AGENT.iter().any(|begin| text.trim_start().starts_with(begin))
}

fn add(list: &mut Vec<String>, text: &str, longest: usize) {
    if list.len() < MAX_COUNT {
        list.push(excerpt(without_secrets(text).trim(), longest));
    }
}

/// The begin and the end of a text, in at most `longest` bytes.
fn excerpt(text: &str, longest: usize) -> String {
    const CUT: &str = "\n[\u{2026}]\n";
    // What is unsafe is replaced by a character of three bytes.
    let text = safe_lines(text.replace("\r\n", "\n"));
    if text.len() <= longest {
        return text;
    }
    let half = longest.saturating_sub(CUT.len()) / 2;
    let (begin, end) = (text.floor_char_boundary(half), text.ceil_char_boundary(text.len() - half));
    format!("{}{CUT}{}", &text[..begin], &text[end..])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::text::is_unsafe;

    fn lines(values: &[Value]) -> Vec<u8> {
        values.iter().flat_map(|value| format!("{value}\n").into_bytes()).collect()
    }

    fn user(content: Value) -> Value {
        json!({"parentUuid": null, "isSidechain": false, "type": "user", "message": {"role": "user", "content": content},
            "uuid": "1", "timestamp": "2026-11-25T12:00:00.000Z", "sessionId": "s", "version": "2.1.332"})
    }

    fn assistant(content: Value) -> Value {
        json!({"isSidechain": false, "type": "assistant", "message": {"role": "assistant", "content": content,
            "model": "m", "usage": {"input_tokens": 7}}})
    }

    fn conversation() -> Vec<Value> {
        let flagged = |flag: &str, mut line: Value| {
            line[flag] = true.into();
            line
        };
        vec![
            json!({"type": "summary", "summary": "s"}),
            user(json!("first")),
            user(json!([{"type": "text", "text": "second"}, {"type": "image", "source": {}}])),
            assistant(json!([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "I will look."}])),
            assistant(json!([{"type": "tool_use", "name": "Bash", "input": {"command": "false"}}])),
            user(json!([{"type": "tool_result", "content": "Exit code 1", "is_error": true}])),
            user(json!([{"type": "tool_result", "content": [{"type": "text", "text": "fine"}], "is_error": false}])),
            user(json!([{"type": "tool_result", "is_error": true,
                "content": [{"type": "text", "text": "<tool_use_error>File not read</tool_use_error>"}]}])),
            flagged("isMeta", user(json!("meta"))),
            flagged("isSidechain", user(json!("to a sub-agent"))),
            flagged("isCompactSummary", user(json!("This session is being continued"))),
            user(json!("<command-name>/clear</command-name>")),
            user(json!("<task-notification>x</task-notification>")),
            user(json!([{"type": "text", "text": "[Request interrupted by user]"}])),
            user(json!("third")),
            user(json!("fourth")),
            assistant(json!("It is done.")),
            flagged("isApiErrorMessage", assistant(json!([{"type": "text", "text": "API Error: 529"}]))),
            json!({"type": "file-history-snapshot", "messageId": "1"}),
        ]
    }

    #[test]
    fn last_prompts_answers_and_errors_are_read() {
        let tail = TranscriptTail::parse(&lines(&conversation()), FirstLine::Whole);
        assert_eq!(tail.prompts, ["second", "third", "fourth"]);
        assert_eq!(tail.answers, ["I will look.", "It is done."]);
        assert_eq!(tail.errors, ["Exit code 1", "File not read", "API Error: 529"]);
    }

    #[test]
    fn half_written_and_broken_lines_are_skipped() {
        let whole = lines(&conversation());
        let expected = TranscriptTail::parse(&whole, FirstLine::Whole);
        let mut bytes = b"the rest of a line\"}\n".to_vec();
        bytes.extend(&whole);
        bytes.extend(b"\nnull\n[1]\n{\"type\": 7}\n{\"type\": \"user\", \"message\": {\"content\": {}}}\n\xff\xfe\n");
        bytes.extend(format!("{{\"type\": {}\n", "[".repeat(100_000)).as_bytes());
        let cut = lines(&[user(json!("half written"))]);
        bytes.extend(&cut[..cut.len() - 7]);
        let tail = TranscriptTail::parse(&bytes, FirstLine::Cut);
        assert_eq!((tail.prompts, tail.answers), (expected.prompts, expected.answers));
        let emoji = br#"{"type": "user", "message": {"content": "half \ud83d"}}"#;
        assert_eq!(TranscriptTail::parse(emoji, FirstLine::Whole).prompts, ["half \u{fffd}"]);
    }

    #[test]
    fn only_a_regular_file_of_the_user_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("s.jsonl"), lines(&conversation())).unwrap();
        assert!(TranscriptTail::read(&at("s.jsonl")).is_some());
        fs::write(at("s.txt"), lines(&conversation())).unwrap();
        symlink(at("s.jsonl"), at("link.jsonl")).unwrap();
        fs::write(at("empty.jsonl"), "").unwrap();
        fs::create_dir(at("folder.jsonl")).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo.jsonl"), mode).unwrap();
        for name in ["s.txt", "link.jsonl", "empty.jsonl", "folder.jsonl", "fifo.jsonl", "none.jsonl"] {
            assert_eq!(TranscriptTail::read(&at(name)), None, "{name}");
        }
        assert_eq!(TranscriptTail::read(Path::new("/dev/zero")), None);
    }

    #[test]
    fn only_the_end_of_a_large_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.jsonl");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&lines(&[user(json!("long ago"))])).unwrap();
        // A hole, which would take long to read.
        file.set_len(500 << 20).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"\n").unwrap();
        file.write_all(&lines(&[user(json!("just now"))])).unwrap();
        assert_eq!(TranscriptTail::read(&path).unwrap().prompts, ["just now"]);
        file.write_all(&vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(TranscriptTail::read(&path), None, "a line that is longer than what is read");
    }

    #[test]
    fn secrets_are_blanked() {
        const SECRET: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";
        for before in [0, 180, 190, 370, 5000] {
            let text = format!("{}{SECRET} {}", "word ".repeat(before / 5), "word ".repeat(before / 5));
            let tail = TranscriptTail::parse(&lines(&[user(json!(text)), assistant(json!(text))]), FirstLine::Whole);
            assert!(!format!("{tail:?}").contains("ghp_"), "{tail:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn tail_is_bounded_and_safe(
            texts in prop::collection::vec("[\u{0}-\u{1f}a-z\" \u{80}-\u{9f}\u{202a}-\u{202e}\u{2066}-\u{2069}\u{1f600}\n]{0,900}", 0..9),
            cut in 0..200_usize,
        ) {
            let errors = |text: &String| user(json!([{"type": "tool_result", "content": text, "is_error": true}]));
            let all = texts.iter().flat_map(|text| [user(json!(text)), assistant(json!(text)), errors(text)]);
            let bytes = lines(&all.collect::<Vec<_>>());
            let first = if cut == 0 { FirstLine::Whole } else { FirstLine::Cut };
            let tail = TranscriptTail::parse(&bytes[cut.min(bytes.len())..], first);
            let all = [tail.prompts, tail.answers, tail.errors].concat();
            prop_assert!(all.len() <= 3 * MAX_COUNT && all.concat().len() <= 4096);
            prop_assert!(!all.concat().contains(|c: char| is_unsafe(c) && c != '\n' && c != '\t'), "{:?}", all);
        }
    }
}
