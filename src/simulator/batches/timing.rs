//! When what happens to a batch. Pure: everything follows from the plan and the time.

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is checked, or queued.
    Waiting,
    /// Lines are answered.
    Running,
    /// All are answered; results are being written.
    Writing,
    /// Somebody has cancelled it.
    Cancelling,
    /// It has ended as it should.
    Completed,
    /// It was refused after it had been made.
    Failed,
    /// Its time is over.
    Expired,
    /// It has been cancelled.
    Cancelled,
}

impl Phase {
    /// Whether nothing changes any more.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }

    /// From a provider's name of a state before the end.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = name.trim_start_matches("batch_state_").trim_start_matches("job_state_");
        Some(match name {
            "waiting" | "validating" | "pending" | "queued" => Self::Waiting,
            "running" | "in_progress" => Self::Running,
            "writing" | "finalizing" => Self::Writing,
            "cancelling" | "canceling" | "cancellation_requested" => Self::Cancelling,
            _ => return None,
        })
    }
}

/// A cancellation: when it was asked for, and when it takes effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cancel {
    /// When it was asked for.
    pub requested: f64,
    /// When the batch ends by it.
    pub effect: f64,
}

/// The plan of a batch, in seconds of the clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// When it was made.
    pub created: f64,
    /// When the first line is begun.
    pub started: f64,
    /// When the last line would be answered at its pace.
    pub paced: f64,
    /// When writing begins.
    pub computed: f64,
    /// When it is complete.
    pub ended: f64,
    /// When its time is over.
    pub expires: f64,
    /// Whether it is refused when it would start.
    pub fails: bool,
    /// The part of the lines that are ever answered.
    pub most: f64,
    /// Whether and when it is cancelled.
    pub cancel: Option<Cancel>,
}

impl Timing {
    /// One that is made now and takes so long.
    pub fn new(created: f64, takes: f64, expires: f64) -> Self {
        let computed = created + 0.9 * takes;
        Self {
            created,
            started: created + 0.1 * takes,
            paced: computed,
            computed,
            ended: created + takes,
            expires,
            fails: false,
            most: 1.0,
            cancel: None,
        }
    }

    /// Never leaves a phase by itself.
    pub fn stick(&mut self, phase: Phase) {
        match phase {
            Phase::Waiting => {
                (self.started, self.paced, self.computed, self.ended) =
                    (f64::INFINITY, f64::INFINITY, f64::INFINITY, f64::INFINITY);
            }
            Phase::Running => self.stop_after(0.5),
            Phase::Writing => self.ended = f64::INFINITY,
            // Cancelling never ends once it is asked for.
            _ => {}
        }
    }

    /// Answers this part of the lines, and no more.
    pub fn stop_after(&mut self, part: f64) {
        self.most = part;
        (self.computed, self.ended) = (f64::INFINITY, f64::INFINITY);
    }

    /// When this part of the lines has been answered.
    pub fn when(&self, part: f64) -> f64 {
        self.started + part * (self.paced - self.started)
    }

    /// When it ends, and how.
    pub fn end(&self) -> (f64, Phase) {
        if let Some(cancel) = self.cancel {
            return (cancel.effect, Phase::Cancelled);
        }
        let done = if self.fails { (self.started, Phase::Failed) } else { (self.ended, Phase::Completed) };
        if self.expires < done.0 { (self.expires, Phase::Expired) } else { done }
    }

    /// Where it is.
    pub fn phase(&self, now: f64) -> Phase {
        let (end, how) = self.end();
        if now >= end {
            return how;
        }
        match self.cancel {
            Some(cancel) if now >= cancel.requested => Phase::Cancelling,
            _ if now < self.started => Phase::Waiting,
            _ if now < self.computed => Phase::Running,
            _ => Phase::Writing,
        }
    }

    /// The part of the lines that have been answered.
    pub fn share(&self, now: f64) -> f64 {
        let now = now.min(self.end().0);
        if self.fails || now < self.started {
            return 0.0;
        }
        let takes = self.paced - self.started;
        let share = if takes > 0.0 { (now - self.started) / takes } else { 1.0 };
        share.clamp(0.0, 1.0).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: f64 = 86_400.0;

    #[test]
    fn it_waits_runs_writes_and_ends() {
        let timing = Timing::new(100.0, 10.0, 100.0 + DAY);
        let phases = [100.5, 102.0, 109.5, 110.0, 1e9].map(|now| timing.phase(now));
        assert_eq!(phases, [Phase::Waiting, Phase::Running, Phase::Writing, Phase::Completed, Phase::Completed]);
        let shares = [100.5, 105.0, 110.0, 1e9].map(|now| timing.share(now));
        assert_eq!(shares, [0.0, 0.5, 1.0, 1.0]);
        let at_once = Timing::new(5.0, 0.0, DAY);
        assert_eq!((at_once.phase(5.0), at_once.share(5.0)), (Phase::Completed, 1.0));
    }

    #[test]
    fn its_time_is_over() {
        let mut timing = Timing::new(0.0, 10.0, DAY);
        timing.stop_after(0.6);
        assert_eq!((timing.phase(DAY - 1.0), timing.phase(DAY)), (Phase::Running, Phase::Expired));
        assert!((timing.share(DAY) - 0.6).abs() < 1e-9);
        let mut timing = Timing::new(0.0, 10.0, f64::INFINITY);
        timing.stick(Phase::Waiting);
        assert_eq!((timing.phase(1e12), timing.share(1e12)), (Phase::Waiting, 0.0));
        let mut timing = Timing::new(0.0, 10.0, DAY);
        timing.stick(Phase::Writing);
        assert_eq!((timing.phase(DAY - 1.0), timing.share(DAY)), (Phase::Writing, 1.0));
    }

    #[test]
    fn a_refusal_and_a_cancellation() {
        let mut timing = Timing::new(0.0, 10.0, DAY);
        timing.fails = true;
        assert_eq!((timing.phase(0.5), timing.phase(1.0), timing.share(9.0)), (Phase::Waiting, Phase::Failed, 0.0));
        let mut timing = Timing::new(0.0, 10.0, DAY);
        timing.cancel = Some(Cancel { requested: 3.0, effect: 5.0 });
        let phases = [2.0, 4.0, 5.0].map(|now| timing.phase(now));
        assert_eq!(phases, [Phase::Running, Phase::Cancelling, Phase::Cancelled]);
        assert!((timing.share(1e9) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn states_have_the_names_of_all_providers() {
        assert_eq!(Phase::from_name("BATCH_STATE_PENDING"), Some(Phase::Waiting));
        assert_eq!(Phase::from_name("IN_PROGRESS"), Some(Phase::Running));
        assert_eq!(Phase::from_name("completed"), None);
    }
}
