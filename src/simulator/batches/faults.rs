//! What goes wrong with batches, and with which.

use super::timing::Phase;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultKind {
    /// The batch is made, and the connection closed before the reply.
    CreateLost,
    /// The batch is made, and the reply is a 500.
    Create500Made,
    /// The reply is a 500, and there is no batch.
    Create500NotMade,
    /// The reply is a 504, and the batch is made so many seconds later.
    CreateSlow(f64),
    /// The connection is closed in the middle of an upload. (Uploads have numbers of their own.)
    UploadCut,
    /// The queue is full: refused at once or late, or as the provider does it.
    QueueFull(Option<bool>),
    /// It never leaves a phase.
    Stuck(Phase),
    /// This part of the lines is answered, the rest expires.
    ExpireAfter(f64),
    /// It is cancelled by somebody else when this part of the lines is answered.
    CancelAfter(f64),
    /// All lines fail.
    AllFailed,
    /// It completes without a file of results.
    NoOutputFile,
    /// There is a file of errors, with nothing in it.
    EmptyErrorFile,
    /// Lines have this status; 0 = none.
    LineStatus(u16),
    /// Lines are missing from the results.
    DropLines,
    /// Lines come twice.
    RepeatLines,
    /// Inline results come in any order and without what joins them (Gemini).
    Shuffle,
    /// There are lines of somebody else.
    ForeignLines,
    /// The first download breaks off in the middle.
    CutDownload,
    /// Downloads have no content type.
    NoContentType,
    /// It cannot be found for so many seconds.
    NotFoundFor(f64),
    /// It is missing from lists for so many seconds.
    ListLag(f64),
    /// What its label was is not told.
    LabelDropped,
    /// Two batches are made, as if a proxy had repeated the request.
    SecondBatch,
    /// The account is empty: the batch is refused, or each of its lines (Anthropic).
    NoCredit,
    /// States begin with a capital, and times are text (older replies of Azure's).
    CapitalStates,
    /// Its results are gone.
    Gone,
    /// Lines contain U+2028, U+2029 and U+0085, unescaped.
    Separators,
}

/// How the names of all faults read, for messages.
const NAMES: &str = "create_lost, create_500_made, create_500_not_made, create_slow[:SECONDS], upload_cut, \
                     queue_full[:late|:now], stuck:STATE, expire_after:FRACTION, cancel_after:FRACTION, all_failed, \
                     no_output_file, empty_error_file, line_status:STATUS, drop_lines, repeat_lines, shuffle, \
                     foreign_lines, cut_download, no_content_type, 404_for:SECONDS, list_lag:SECONDS, label_dropped, \
                     second_batch, no_credit, capital_states, gone or u2028";
/// After so many seconds a slow batch is made, unless it is said.
const SLOW: f64 = 60.0;

impl FaultKind {
    /// From a name, with what it needs after a colon.
    ///
    /// # Errors
    /// A message with the names.
    pub fn from_name(name: &str) -> Result<Self, String> {
        let (word, value) = name.split_once(':').map_or((name, None), |(word, value)| (word, Some(value)));
        let number = |least: f64, most: f64| {
            let number = value.and_then(|value| value.parse::<f64>().ok());
            number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
                format!("the fault {word:?} needs a number from {least} to {most}, as in '{word}:{most}', not {name:?}")
            })
        };
        let seconds = || number(0.0, 1e9);
        let simple = match word {
            "create_lost" => Self::CreateLost,
            "create_500_made" => Self::Create500Made,
            "create_500_not_made" => Self::Create500NotMade,
            "upload_cut" => Self::UploadCut,
            "all_failed" => Self::AllFailed,
            "no_output_file" => Self::NoOutputFile,
            "empty_error_file" => Self::EmptyErrorFile,
            "drop_lines" => Self::DropLines,
            "repeat_lines" => Self::RepeatLines,
            "shuffle" => Self::Shuffle,
            "foreign_lines" => Self::ForeignLines,
            "cut_download" => Self::CutDownload,
            "no_content_type" => Self::NoContentType,
            "label_dropped" => Self::LabelDropped,
            "second_batch" => Self::SecondBatch,
            "no_credit" => Self::NoCredit,
            "capital_states" => Self::CapitalStates,
            "gone" => Self::Gone,
            "u2028" => Self::Separators,
            "create_slow" if value.is_none() => return Ok(Self::CreateSlow(SLOW)),
            "create_slow" => return seconds().map(Self::CreateSlow),
            "404_for" => return seconds().map(Self::NotFoundFor),
            "list_lag" => return seconds().map(Self::ListLag),
            "expire_after" => return number(0.0, 1.0).map(Self::ExpireAfter),
            "cancel_after" => return number(0.0, 1.0).map(Self::CancelAfter),
            "queue_full" => {
                return match value {
                    None => Ok(Self::QueueFull(None)),
                    Some("late") => Ok(Self::QueueFull(Some(true))),
                    Some("now") => Ok(Self::QueueFull(Some(false))),
                    Some(other) => Err(format!("the fault queue_full is late or now, not {other:?}")),
                };
            }
            "stuck" => {
                let phase = value.and_then(Phase::from_name);
                return phase.map(Self::Stuck).ok_or_else(|| {
                    format!(
                        "the fault stuck needs a state: 'stuck:waiting', 'stuck:running', 'stuck:writing' or \
                         'stuck:cancelling', or a provider's name for one of them, not {name:?}"
                    )
                });
            }
            "line_status" => {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                return number(0.0, 599.0).map(|status| Self::LineStatus(status as u16));
            }
            _ => return Err(format!("a fault of batches must be one of {NAMES}, not {name:?}")),
        };
        if value.is_some() { Err(format!("the fault {word:?} takes nothing after a colon")) } else { Ok(simple) }
    }
}

/// A scheduled fault. Batches are numbered from 1 in the order in which they are created.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Hits every n-th batch; 0 = none by rhythm.
    pub every: u64,
    /// Hits these batches.
    pub on: Vec<u64>,
    /// Of a batch that is hit, hits every n-th line, where it is about lines.
    pub lines: usize,
}

impl Fault {
    /// Whether a batch is hit.
    pub fn hits(&self, batch: u64) -> bool {
        (self.every > 0 && batch.is_multiple_of(self.every)) || self.on.contains(&batch)
    }
}

/// The faults of one batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults(Vec<(FaultKind, usize)>);

impl Faults {
    /// Those of all that hit a batch.
    pub fn of(all: &[Fault], batch: u64) -> Self {
        Self(all.iter().filter(|fault| fault.hits(batch)).map(|fault| (fault.kind, fault.lines)).collect())
    }

    /// Whether there is this one.
    pub fn has(&self, kind: FaultKind) -> bool {
        self.0.iter().any(|(one, _)| *one == kind)
    }

    /// What a fault says, of the first that says anything.
    pub fn find<T>(&self, of: impl Fn(FaultKind) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(|(kind, _)| of(*kind))
    }

    /// What a fault says for a line, by its place.
    pub fn at<T>(&self, line: usize, of: impl Fn(FaultKind) -> Option<T>) -> Option<T> {
        let hit = self.0.iter().filter(|(_, lines)| (line + 1).is_multiple_of(*lines));
        hit.into_iter().find_map(|(kind, _)| of(*kind))
    }

    /// Whether a line, by its place, has this one.
    pub fn hits_line(&self, line: usize, kind: FaultKind) -> bool {
        self.at(line, |one| (one == kind).then_some(())).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known() {
        assert_eq!(FaultKind::from_name("create_lost"), Ok(FaultKind::CreateLost));
        assert_eq!(FaultKind::from_name("create_slow"), Ok(FaultKind::CreateSlow(60.0)));
        assert_eq!(FaultKind::from_name("expire_after:0.6"), Ok(FaultKind::ExpireAfter(0.6)));
        assert_eq!(FaultKind::from_name("queue_full:now"), Ok(FaultKind::QueueFull(Some(false))));
        assert_eq!(FaultKind::from_name("stuck:PENDING"), Ok(FaultKind::Stuck(Phase::Waiting)));
        for (name, says) in [
            ("expire_after:2", "from 0 to 1"),
            ("404_for", "needs a number"),
            ("stuck:done", "needs a state"),
            ("gone:1", "takes nothing"),
            ("queue_full:x", "late or now"),
            ("nonsense", "create_lost"),
        ] {
            assert!(FaultKind::from_name(name).unwrap_err().contains(says), "{name}");
        }
    }

    #[test]
    fn batches_and_lines_are_hit_by_number() {
        let fault = |kind, on: &[u64], lines| Fault { kind, every: 0, on: on.to_vec(), lines };
        let all = [fault(FaultKind::DropLines, &[2], 3), fault(FaultKind::Gone, &[1, 2], 1)];
        let (first, second) = (Faults::of(&all, 1), Faults::of(&all, 2));
        assert!(first.has(FaultKind::Gone) && !first.has(FaultKind::DropLines));
        let dropped = (0..6).filter(|line| second.hits_line(*line, FaultKind::DropLines));
        assert_eq!(dropped.collect::<Vec<_>>(), [2, 5]);
        assert!(Fault { every: 2, ..fault(FaultKind::Gone, &[], 1) }.hits(4));
    }
}
