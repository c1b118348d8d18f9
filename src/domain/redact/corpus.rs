//! Measures how many secrets are found, and how much ordinary text is redacted.

use super::text;

const SECRETS: &str = include_str!("../../../tests/data/redact/secrets.txt");
const ORDINARY: &str = include_str!("../../../tests/data/redact/ordinary.txt");
const WEAK: [&str; 6] = ["swordfish", "letmein", "hunter2", "changeit1", "qwerty", "dragon99"];
const SIGNS: &[u8] = b"!@#%^*+~?";
const LETTERS_AND_DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// An endless sequence of numbers, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn of(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length).map(|_| char::from(alphabet[self.below(alphabet.len())])).collect()
    }
}

/// What `{A36}` and its like stand for.
fn filled_in(form: &str, numbers: &mut Numbers) -> Option<String> {
    let (kind, rest) = form.split_at_checked(1)?;
    let digits = rest.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let length = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    Some(match kind {
        "A" => numbers.of(LETTERS_AND_DIGITS, length),
        "L" => numbers.of(&LETTERS_AND_DIGITS[..52], length),
        "D" => numbers.of(b"123456789", length),
        "H" => numbers.of(b"0123456789abcdef", length),
        "B" => numbers.of(&[LETTERS_AND_DIGITS, b"+/"].concat(), length),
        "P" => {
            let half = numbers.of(LETTERS_AND_DIGITS, length - 2);
            let sign = if rest.ends_with(['x', 'm', 'c']) { numbers.of(b"!*~", 1) } else { numbers.of(SIGNS, 1) };
            format!("{}{sign}7{}", &half[..length / 2], &half[length / 2..])
        }
        "X" => WEAK[numbers.below(WEAK.len())].to_owned(),
        "U" => ["Ym9iOmh1bnRlcjJ4", "YWRtaW46czNjcmV0MTIz", "c3ZjOlE3ITlhYWJiY2M="][numbers.below(3)].to_owned(),
        _ => return None,
    })
}

/// The line with its forms filled in, and what they were filled with.
fn line_of(template: &str, numbers: &mut Numbers) -> (String, Vec<String>) {
    let (mut line, mut secrets) = (String::new(), Vec::new());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        line.push_str(&rest[..open]);
        let form = rest[open + 1..].split('}').next().unwrap_or_default();
        match filled_in(form, numbers) {
            Some(secret) => {
                line.push_str(&secret);
                secrets.push(secret);
                rest = &rest[open + form.len() + 2..];
            }
            None => {
                line.push('{');
                rest = &rest[open + 1..];
            }
        }
    }
    (line + rest, secrets)
}

#[test]
fn finds_secrets_and_keeps_ordinary_text() {
    let mut numbers = Numbers(7);
    let (mut found, mut of) = (0, 0);
    for round in 0..3 {
        for template in SECRETS.lines().filter(|line| !line.starts_with("# ") && line.contains('{')) {
            let (line, secrets) = line_of(template, &mut numbers);
            let shown = text(&line).unwrap_or_else(|| line.clone());
            let is_found = secrets.iter().filter(|s| s.len() > 5).all(|secret| !shown.contains(secret.as_str()));
            (found, of) = (found + usize::from(is_found), of + 1);
            if !is_found && round == 0 {
                println!("missed: {template}");
            }
        }
    }
    let ordinary: Vec<_> = ORDINARY.lines().collect();
    let blanked: Vec<_> = ordinary.iter().filter(|line| text(line).is_some()).collect();
    blanked.iter().for_each(|line| println!("blanked: {line}"));
    let recall = f64::from(found as u32) / f64::from(of as u32);
    let false_positives = blanked.len() as f64 / ordinary.len() as f64;
    println!("{of} lines with secrets: recall {recall:.4}");
    println!("{} ordinary lines: {false_positives:.4} blanked", ordinary.len());
    assert!(of >= 3 * 300 && recall >= 0.97, "recall {recall}");
    assert!(ordinary.len() >= 2000 && false_positives <= 0.01, "false positives {false_positives}");
}
