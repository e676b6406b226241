//! What requests begin with alike, as far as a member's prompt cache cares: enough to send them to one member.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use crate::providers::prompt::{Part, Prompt, Role};

/// Bytes of text that count, from the beginning of a conversation.
const COUNTED: usize = 2048;
/// A prompt that is shorter is not worth it.
const SHORTEST: usize = 1024;

/// A number for what a prompt begins with: its first message of the user, up to some length, and the instructions before.
/// `None`: that is too short to care.
pub fn of(prompt: &Prompt) -> Option<u64> {
    let mut hasher = FxHasher::default();
    let mut bytes = 0;
    match prompt {
        Prompt::Text(text) => add(text, &mut bytes, &mut hasher),
        Prompt::Messages(messages) => {
            for message in messages.iter() {
                message.parts.iter().for_each(|part| add_part(part, &mut bytes, &mut hasher));
                // Later turns change from one request of a conversation to the next.
                if message.role != Role::System {
                    break;
                }
            }
        }
    }
    (bytes >= SHORTEST).then(|| hasher.finish())
}

fn add_part(part: &Part, bytes: &mut usize, hasher: &mut FxHasher) {
    match part {
        Part::Text(text) => add(text, bytes, hasher),
        // Media that are equal are shared between the prompts of a run.
        Part::Media(media) if *bytes < COUNTED => {
            (std::sync::Arc::as_ptr(media) as usize).hash(hasher);
            *bytes += SHORTEST;
        }
        Part::Media(_) => {}
        Part::With(inner) => add_part(&inner.0, bytes, hasher),
    }
}

fn add(text: &str, bytes: &mut usize, hasher: &mut FxHasher) {
    let counted = &text.as_bytes()[..text.len().min(COUNTED.saturating_sub(*bytes))];
    *bytes += counted.len();
    hasher.write(counted);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::prompt::Message;
    use crate::providers::shared::Text;

    fn message(role: Role, text: &str) -> Message {
        Message { role, parts: vec![Part::Text(Text::of(text))], ..Message::default() }
    }

    #[test]
    fn long_beginnings_count_and_later_turns_do_not() {
        let document = "words ".repeat(500);
        let of_text = |text: &str| of(&Prompt::Text(Text::of(text)));
        assert_eq!(of_text("short"), None);
        assert_eq!(of_text(&format!("{document}one question")), of_text(&format!("{document}another")));
        assert_ne!(of_text(&format!("{document}one")), of_text(&format!("other {document}one")));
        let first = vec![message(Role::System, "Be brief."), message(Role::User, &document)];
        let mut later = first.clone();
        later.extend([message(Role::Assistant, "Yes."), message(Role::User, "And then?")]);
        let conversation = of(&Prompt::from(first));
        assert!(conversation.is_some() && conversation == of(&Prompt::from(later)));
    }
}
